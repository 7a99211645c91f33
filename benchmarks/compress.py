# SPDX-License-Identifier: Apache-2.0
"""What each way to make a model smaller costs: size, speed and entity F1 of a tagger."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.pruning import prune_extension, prune_vocabulary
from benchmarks.turns import Candidate, Cases, time_in_turn
from edad_jax.export import formats
from edad_jax.files import open_beside, write_json
from edad_jax.report import figures
from edad_jax.report.tables import markdown_table
from edad_jax.runtime.models import Tagger
from edad_jax.tasks.data.tagged import read_tagged
from edad_jax.tasks.exported import reading_of_run, scored_split, tagger_scores


class Variant(NamedTuple):
    """One way to make it smaller."""

    name: str
    format_name: str
    fewest_uses: int = 0  # of a piece, in the training split; 0 keeps all
    word_rank: int = 0
    extension_share: float = 0.0  # of the extension's feed-forward units that go


def variants(model: formats.Model) -> list[Variant]:
    """Returns the ways that make sense for a model, the least first."""
    width = model.config.base.hidden_size
    found = [
        Variant("float32", "onnx"),
        Variant("int8", "onnx-int8"),
        Variant("int8, words of the task", "onnx-int8", fewest_uses=1),
        Variant("int8, words used twice", "onnx-int8", fewest_uses=2),
        Variant(f"int8, rank {width // 2}", "onnx-int8", word_rank=width // 2),
        Variant(f"int8, rank {width // 4}", "onnx-int8", word_rank=width // 4),
    ]
    if model.config.extension:
        found += [
            Variant("int8, half of the extension", "onnx-int8", extension_share=0.5),
            Variant(
                "int8, words of the task, half of the extension",
                "onnx-int8",
                1,
                extension_share=0.5,
            ),
        ]
    return found


def compress(
    model: formats.Model, data: str, out: Path, chosen: Sequence[Variant], *, seconds: float = 2.0
) -> list[dict[str, Any]]:
    """Returns a row for each variant; writes out/NAME/ and out/compression.{json,md,png}.

    Args:
      model: a tagger.
      data: its data, as launch/finetune.py takes it. The training split says which words are used,
        the test split gives F1.
      out: folder for all.
      chosen: the variants.
      seconds: how long to time each, in rows of 128 pieces one at a time.

    Raises:
      ValueError: the model is no tagger, or the data cannot be read.
    """
    if model.task is None or model.task.kind != "tagging":
        raise ValueError(f"{model.source} is no tagger; expected one, to score what is left of it")
    splits, _ = read_tagged(data, **reading_of_run(model.source))
    test = scored_split(splits)
    texts = [" ".join(sentence.words) for sentence in splits["train"]]
    rows, candidates = [], []
    longest = model.config.base.max_position_embeddings
    length = min(128, longest)
    for number, variant in enumerate(chosen):
        folder = out / f"{number}-{variant.name.replace(', ', '-').replace(' ', '_')}"
        smaller = model
        if variant.fewest_uses:
            tokenizer = out / f"{folder.name}.tokenizer"
            smaller = prune_vocabulary(smaller, texts, tokenizer, fewest_uses=variant.fewest_uses)
        if variant.extension_share:
            smaller = prune_extension(smaller, variant.extension_share)
        formats.export(smaller, variant.format_name, folder, word_rank=variant.word_rank)
        candidates.append(Candidate(variant.name, "onnx", str(folder), longest))
        rows.append(
            {
                "name": variant.name,
                "folder": folder.name,
                "f1": tagger_scores(Tagger(folder), test)["entity F1"],
                "file_mb": (folder / "model.onnx").stat().st_size / 1e6,
                "words": smaller.config.vocab_size,
            }
        )
    timed = time_in_turn(candidates, Cases([1], [length], seconds, turns=5), threads=1)
    for row, result in zip(rows, timed, strict=True):
        row |= {"median_ms": result["cells"][0]["median_ms"], "memory_mb": result["memory_mb"]}
    _write(rows, out, length)
    return rows


def _write(rows, out, length):
    write_json(out / "compression.json", rows)
    shown = [
        {
            "model": row["name"],
            "file (MB)": f"{row['file_mb']:.1f}",
            "words": row["words"],
            f"1 x {length}, one core (ms)": f"{row['median_ms']:.1f}",
            "memory (MB)": f"{row['memory_mb']:.0f}",
            "entity F1": f"{100 * row['f1']:.2f}",
            "lost": f"{100 * (rows[0]['f1'] - row['f1']):.2f}",
        }
        for row in rows
    ]
    points = [
        {"name": row["name"], "score": 100 * row["f1"], "half": None, "cost": row["file_mb"]}
        for row in rows
    ]
    figures.plot_costs(
        out / "compression.png", points, "What smaller files cost", "file (MB)", "entity F1 (%)"
    )
    with open_beside(out / "compression.md") as file:
        file.write(f"{markdown_table(shown, list(shown[0]))}\n\n![F1](compression.png)\n")
