# SPDX-License-Identifier: Apache-2.0
"""From a configuration to rows on disk: the text, the vocabulary, the rows, each done once."""

import dataclasses
import hashlib
import importlib.metadata
import logging
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from edad_jax.data.batches import Rows
from edad_jax.data.pairs import SETS, make_rows
from edad_jax.data.piece_counts import token_counts
from edad_jax.data.rows import MANIFEST, RowSettings
from edad_jax.data.stages import recorded_facts, run_stage
from edad_jax.data.text.corpus import read_dataset, read_documents
from edad_jax.data.text.docstrings import read_docstrings
from edad_jax.data.text.files import list_files
from edad_jax.data.text.reading import ReadReport
from edad_jax.data.tokenizer import load_tokenizer, pieces_in_order
from edad_jax.data.vocabulary import extend_vocabulary, split_added_words
from edad_jax.files import file_checksum
from edad_jax.machine import core_count
from edad_jax.types import Vocabulary

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What training reads."""

    tokenizer_dir: Path
    vocabulary: Vocabulary
    train: Rows
    heldout: Rows
    facts: dict  # about text, vocabulary and rows, for the model card


def prepare(config: ConfigDict, workdir: str | Path) -> Prepared:
    """Returns tokenizer and rows: from config.prepared, from earlier, or made now in workdir.

    Raises:
      ValueError: no text, or text, vocabulary or settings that do not go together.
    """
    folder = Path(config.prepared or workdir).expanduser().resolve()
    vocabulary_dir, rows_dir = folder / "vocabulary", folder / "rows"
    if config.prepared:
        if not (rows_dir / MANIFEST).exists():
            raise ValueError(
                f"config.prepared={config.prepared!r}: got no finished rows there, expected a "
                "folder that launch/prepare.py has filled"
            )
        facts = {"vocabulary": recorded_facts(vocabulary_dir), "rows": recorded_facts(rows_dir)}
    else:
        settings, source = RowSettings.from_config(config), describe_source(config.corpus)
        folder.mkdir(parents=True, exist_ok=True)
        facts = {
            "vocabulary": _learn_vocabulary(config, source, vocabulary_dir),
            "rows": _make_rows(config, settings, source, vocabulary_dir, rows_dir),
        }

    tokenizer = load_tokenizer(vocabulary_dir, option="--config.prepared=FOLDER")
    pieces = pieces_in_order(tokenizer.backend_tokenizer)
    base_size = len(pieces)
    if not config.vocabulary.from_scratch:
        base_size = facts["vocabulary"]["base_size"]
    train, heldout = Rows(rows_dir / "train"), Rows(rows_dir / "heldout")
    if config.prepared:
        _check_prepared(config, pieces, train, folder)
    return Prepared(
        tokenizer_dir=vocabulary_dir,
        vocabulary=Vocabulary(
            base_size=base_size,
            size=len(pieces),
            mask_id=tokenizer.mask_token_id,
            cls_id=tokenizer.cls_token_id,
            sep_id=tokenizer.sep_token_id,
            unk_id=tokenizer.unk_token_id,
            added_pieces=split_added_words(pieces, base_size),
            token_counts=_count_tokens(config, train, folder, Path(workdir)),
        ),
        train=train,
        heldout=heldout,
        facts=facts,
    )


def read_text(corpus: ConfigDict, report: ReadReport) -> Iterator[str]:
    """Returns the documents that config.corpus names, in a fixed order, one at a time.

    They are composed (NFC), as vocabularies are: a Mac's text has each Hangul syllable in parts.
    """
    return (unicodedata.normalize("NFC", text) for text in _read_source(corpus, report))


def _read_source(corpus, report):
    if corpus.files:
        files = list_files(_patterns(corpus.files))
        return read_documents(
            files,
            report=report,
            text_key=corpus.text_key,
            encoding=corpus.encoding,
            lines=corpus.lines,
        )
    if corpus.dataset:
        return read_dataset(
            corpus.dataset,
            config_name=corpus.dataset_config or None,
            split=corpus.dataset_split,
            text_key=corpus.text_key,
            report=report,
        )
    return read_docstrings(corpus.packages, report=report)


def describe_source(corpus: ConfigDict) -> dict:
    """Returns what tells one corpus from another: names, sizes and times, or versions.

    Raises:
      ValueError: config.corpus names no text, or more than one kind.
    """
    given = [kind for kind in ("files", "dataset", "packages") if corpus[kind]]
    if len(given) != 1:
        raise ValueError(
            f"config.corpus names {' and '.join(given) or 'no text'}; expected one of "
            "--config.corpus.files='/data/*.jsonl', --config.corpus.dataset=NAME_OR_FOLDER, or "
            "config.corpus.packages (docstrings of installed packages)"
        )
    if corpus.files:
        stats = [(str(file), os.stat(file)) for file in list_files(_patterns(corpus.files))]
        return {
            "files": [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats],
            "text_key": corpus.text_key,
            "encoding": corpus.encoding,
            "lines": corpus.lines,
        }
    if corpus.dataset:
        names = ("dataset", "dataset_config", "dataset_split", "text_key")
        return {name: corpus[name] for name in names}
    return {"packages": {name: _version(name) for name in corpus.packages}}


def _patterns(files: str) -> list[str]:
    return [pattern.strip() for pattern in files.split(",") if pattern.strip()]


def _version(package: str) -> str:
    try:
        distributions = importlib.metadata.packages_distributions().get(package, [package])
        return importlib.metadata.version(distributions[0])
    except importlib.metadata.PackageNotFoundError as error:
        raise ValueError(
            f"config.corpus.packages: {package!r} is not installed; install it or leave it out"
        ) from error


def _check_prepared(config, pieces, rows, folder):
    """Raises ValueError where prepared rows are not for this configuration or this teacher."""
    if rows.max_length != config.rows.max_length:
        raise ValueError(
            f"config.rows.max_length={config.rows.max_length}, but the rows in {folder} have "
            f"{rows.max_length} pieces; give --config.rows.max_length={rows.max_length}"
        )
    mode = rows.manifest["mode"]
    if mode != config.rows.mode:
        raise ValueError(
            f"config.rows.mode={config.rows.mode!r}, but the rows in {folder} are {mode!r}; give "
            f"--config.rows.mode={mode}"
        )
    if config.vocabulary.from_scratch:
        return  # of the teacher's vocabulary nothing is kept
    expected = _load_base_pieces(config)
    if pieces[: len(expected)] != expected:
        raise ValueError(
            f"the rows in {folder} were made with another vocabulary than that of "
            f"{_base(config)}; prepare them again with this teacher, or give the teacher they "
            "were made for"
        )


def _count_tokens(config, train, folder, workdir):
    """Returns the pieces' counts where masking asks for them; what was prepared stays untouched."""
    if not config.masking.smoothing:
        return None
    is_there = (folder / "counts.stage.json").exists()
    return token_counts(train, (workdir if config.prepared and not is_there else folder) / "counts")


def _base(config):
    return config.vocabulary.base or config.teacher.checkpoint


def _load_base_pieces(config):
    option = {"option": "--config.vocabulary.base=FOLDER"} if config.vocabulary.base else {}
    return pieces_in_order(load_tokenizer(_base(config), **option).backend_tokenizer)


def _learn_vocabulary(config, source, folder):
    """Returns facts about the tokenizer in `folder`, which is made now or was made before."""
    section = config.vocabulary
    base_pieces = "\n".join(_load_base_pieces(config)).encode("utf-8", "surrogatepass")
    fingerprint = {
        "corpus": source,
        "base_sha256": hashlib.sha256(base_pieces).hexdigest(),
        "size": section.size,
        "max_megabytes": section.max_megabytes,
        "from_scratch": section.from_scratch,
    }

    def learn(out):
        LOG.info(
            "Learning %d words %s the vocabulary of %s.",
            section.size,
            "in place of" if section.from_scratch else "on top of",
            _base(config),
        )
        learned = extend_vocabulary(
            _base(config),
            _first_megabytes(read_text(config.corpus, ReadReport()), section.max_megabytes),
            size=section.size,
            out=out,
            keep_base=not section.from_scratch,
            progress=config.progress,
        )
        LOG.info("%s", learned.summary())
        return dataclasses.asdict(learned)

    return run_stage(folder, fingerprint, learn)


def _first_megabytes(documents: Iterator[str], megabytes: float) -> Iterator[str]:
    """Yields documents until they hold so many million characters."""
    left = megabytes * 1e6
    for document in documents:
        if left <= 0:
            return
        left -= len(document)
        yield document


def _make_rows(config, settings, source, vocabulary_dir, folder):
    """Returns facts about the rows in `folder`, which are made now or were made before."""
    names = ("duplicates", "max_length", "mode", "short_seq_prob")
    fingerprint = {
        "corpus": source,
        "vocabulary": file_checksum(vocabulary_dir / "vocab.txt"),
        "rows": {name: getattr(settings, name) for name in names},
        "heldout_fraction": settings.heldout_fraction,
        "seed": settings.seed,
    }

    def make(out):
        report = ReadReport()
        manifest = make_rows(
            read_text(config.corpus, report),
            vocabulary_dir,
            out,
            settings,
            workers=config.rows.workers or core_count(),
            progress=config.progress,
            report=report,
        )
        LOG.info("Text: %s", report.summary())
        return {key: manifest[key] for key in ("documents", "reading", *SETS)}

    return run_stage(folder, fingerprint, make)
