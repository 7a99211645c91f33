# SPDX-License-Identifier: Apache-2.0
"""Text and a BERT tokenizer small enough for tests: no file from outside, no network."""

import dataclasses
import json
import random
import string
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from edad_jax.data.pairs import make_rows
from edad_jax.data.rows import RowSettings
from edad_jax.data.text.reading import ReadReport

# Several chunks and shards of a few hundred rows.
TINY_ROWS = RowSettings(
    max_length=32, heldout_fraction=0.1, seed=1, chunk_characters=20_000, chunks_in_shard=2
)
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = tuple(
    "the a of and in cell cells protein gene neuron brain patient dose shows binds acts was were "
    "with for not 안녕 하세요 뇌 세포".split()
)
DOMAIN_WORDS = tuple(
    "hippocampus amygdala dopamine serotonin glutamate astrocyte microglia cerebellum cortex "
    "neuropeptide oligodendrocyte myelin axonal synaptic ganglion".split()
)


def write_tokenizer(folder: Path, *, lower: bool = True, **config: object) -> Path:
    """Returns the folder, with vocab.txt and tokenizer_config.json of a tiny BERT tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = string.ascii_letters + string.digits
    pieces = [*SPECIALS, *letters, *(f"##{c}" for c in letters), *string.punctuation, *WORDS]
    pieces += ["##s", "##하세요", "é", "。"]
    unique = list(dict.fromkeys(pieces))
    (folder / "vocab.txt").write_text("\n".join(unique) + "\n", encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": lower} | config
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def make_documents(count: int, *, seed: int = 0, sentences: int = 30) -> list[str]:
    """Returns documents of domain text, a paragraph a line, deterministic."""
    generator = random.Random(seed)
    documents = []
    for number in range(count):
        lines = []
        for _ in range(max(1, generator.randrange(sentences))):
            words = generator.choices(WORDS[:19] + DOMAIN_WORDS, k=generator.randrange(3, 25))
            lines.append(f"{' '.join(words).capitalize()} {number}.")
        documents.append("\n".join(lines))
    return documents


def make_tiny_rows(
    documents: Iterable[str],
    tokenizer_dir: Path,
    out: Path,
    *,
    workers: int = 0,
    report: ReadReport | None = None,
    **changes: object,
) -> dict:
    """Returns the manifest of the rows that TINY_ROWS, with some settings changed, asks for."""
    settings = dataclasses.replace(TINY_ROWS, **changes)
    return make_rows(
        documents, tokenizer_dir, out, settings, workers=workers, progress=False, report=report
    )


def load_rows(folder: Path) -> np.ndarray:
    """Returns the rows of a set, whatever its manifest says."""
    return np.concatenate([np.load(path) for path in sorted(folder.glob("*.npy"))])


def read_files(folder: Path) -> dict[str, bytes]:
    """Returns the content of all files in a folder, by their paths in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
