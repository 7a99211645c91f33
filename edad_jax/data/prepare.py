# SPDX-License-Identifier: Apache-2.0
"""From a configuration to rows on disk: the text, the vocabulary, the rows, each done once."""

import dataclasses
import hashlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from edad_jax import files
from edad_jax.data import disk
from edad_jax.data import rows as rows_on_disk
from edad_jax.data.batches import Rows
from edad_jax.data.pairs import SETS, make_rows
from edad_jax.data.parts import count_parts, join_parts, make_part
from edad_jax.data.piece_counts import token_counts, unknown_share
from edad_jax.data.rows import MANIFEST, RowSettings
from edad_jax.data.stages import is_done, recorded_facts, run_stage
from edad_jax.data.storage import fetch_prepared, local_folder
from edad_jax.data.text.reading import ReadReport
from edad_jax.data.text.source import cut_text, describe_source, read_text
from edad_jax.data.tokenizer import check_unknown, is_bert_kind, load_tokenizer, pieces_in_order
from edad_jax.data.vocabulary import extend_vocabulary, split_added_words
from edad_jax.files import RemotePath, file_checksum
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
    if isinstance(files.as_path(config.prepared), RemotePath):
        folder = fetch_prepared(config.prepared, Path(workdir) / "prepared")
    else:
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
        facts = prepare_folder(config, folder)

    tokenizer = load_tokenizer(vocabulary_dir, option="--config.prepared=FOLDER")
    pieces = pieces_in_order(tokenizer.backend_tokenizer)
    base_size = len(pieces)
    if not config.vocabulary.from_scratch:
        base_size = facts["vocabulary"]["base_size"]
    train, heldout = Rows(rows_dir / "train"), Rows(rows_dir / "heldout")
    for rows in (train, heldout):
        rows.verify()  # a bit that has flipped would be another piece, and nothing would fail
    if config.prepared:
        _check_prepared(config, pieces, train, folder)
    check_unknown(
        {
            name: unknown_share(rows, tokenizer.unk_token_id)
            for name, rows in (("train", train), ("held-out", heldout))
        },
        config.rows.max_unknown_share,
        option="--config.rows.max_unknown_share",
        advice="Give another --config.teacher.checkpoint or --config.corpus.encoding",
    )
    return Prepared(
        tokenizer_dir=vocabulary_dir,
        vocabulary=Vocabulary(
            base_size=base_size,
            size=len(pieces),
            mask_id=tokenizer.mask_token_id,
            cls_id=tokenizer.cls_token_id,
            sep_id=tokenizer.sep_token_id,
            unk_id=tokenizer.unk_token_id,
            added_pieces=split_added_words(tokenizer.backend_tokenizer, base_size),
            token_counts=_count_tokens(config, train, folder, Path(workdir)),
        ),
        train=train,
        heldout=heldout,
        facts=facts,
    )


def prepare_folder(config: ConfigDict, folder: Path | RemotePath) -> dict:
    """Returns facts about vocabulary and rows, which are in `folder` by then, or were before.

    Raises:
      ValueError: as `prepare`.
    """
    settings, source = RowSettings.from_config(config), describe_source(config.corpus)
    disk.check_rows_folder(config, folder, option="--out")
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)

    def make(out):
        report = ReadReport()
        with local_folder(folder / "vocabulary") as vocabulary_dir:
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
        return manifest

    return {
        "vocabulary": learn_vocabulary(config, folder),
        "rows": _make_rows(settings, source, folder, make),
    }


def prepare_part(
    config: ConfigDict, folder: Path | RemotePath, part: int, parts: int
) -> dict[str, int]:
    """Returns how many rows of each set this part of the rows has, once they are there.

    Raises:
      ValueError: as `prepare` and `parts.make_part`; the vocabulary is not there yet.
    """
    settings, source = RowSettings.from_config(config), describe_source(config.corpus)
    learn_vocabulary(config, folder, only_look=True)
    with local_folder(folder / "vocabulary") as vocabulary_dir:
        return make_part(
            cut_text(config.corpus, parts),
            vocabulary_dir,
            folder / "parts",
            settings,
            part=part,
            parts=parts,
            made_of=_rows_fingerprint(settings, source, folder),
            workers=config.rows.workers or core_count(),
            progress=config.progress,
        )


def join_prepared(config: ConfigDict, folder: Path | RemotePath) -> dict:
    """Returns facts about vocabulary and rows, once the parts of the rows are put together.

    Raises:
      ValueError: as `prepare` and `parts.join_parts`.
    """
    settings, source = RowSettings.from_config(config), describe_source(config.corpus)
    learned = learn_vocabulary(config, folder, only_look=True)

    def join(out):
        made_of = _rows_fingerprint(settings, source, folder)
        text = cut_text(config.corpus, count_parts(folder / "parts"))
        with local_folder(folder / "vocabulary") as vocabulary_dir:
            return join_parts(
                text, vocabulary_dir, folder / "parts", out, settings, made_of=made_of
            )

    return {"vocabulary": learned, "rows": _make_rows(settings, source, folder, join)}


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
    if rows.packed != config.rows.packed:
        raise ValueError(
            f"config.rows.packed={config.rows.packed}, but the rows in {folder} are "
            f"{'' if rows.packed else 'not '}packed; give --config.rows.packed={rows.packed}"
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
    """Returns the pieces' counts where a run asks for them; what was prepared stays untouched."""
    if not config.masking.smoothing and config.mlm_head_init == "random":
        return None
    is_there = (folder / "counts.stage.json").exists()
    return token_counts(train, (workdir if config.prepared and not is_there else folder) / "counts")


def _base(config):
    return config.vocabulary.base or config.teacher.checkpoint


def _load_base(config):
    option = {"option": "--config.vocabulary.base=FOLDER"} if config.vocabulary.base else {}
    return load_tokenizer(_base(config), **option)


def _load_base_pieces(config):
    return pieces_in_order(_load_base(config).backend_tokenizer)


def learn_vocabulary(
    config: ConfigDict, folder: Path | RemotePath, *, only_look: bool = False
) -> dict:
    """Returns facts about the tokenizer in `folder`/vocabulary, made now or before.

    Args:
      config: names the text and the tokenizer to extend.
      folder: of vocabulary and rows.
      only_look: whether it is an error if it is not there.

    Raises:
      ValueError: it was made from something else, or is not there.
    """
    source = describe_source(config.corpus)
    section = config.vocabulary
    base = _load_base(config)
    base_pieces = "\n".join(pieces_in_order(base.backend_tokenizer))
    if not is_bert_kind(base):  # scores or merges decide as well
        base_pieces = base.backend_tokenizer.to_str()
    base_pieces = base_pieces.encode("utf-8", "surrogatepass")
    fingerprint = {
        "corpus": source,
        "base_sha256": hashlib.sha256(base_pieces).hexdigest(),
        "size": section.size,
        "max_megabytes": section.max_megabytes,
        "from_scratch": section.from_scratch,
    }

    if not only_look and not is_done(folder / "vocabulary"):
        disk.check_writable(folder, option="--out")

    def learn(out):
        if only_look:
            raise ValueError(
                f"{out}: got no finished vocabulary, expected one, which all parts share; run the "
                "same command with --vocabulary instead of --part and --parts first"
            )
        if isinstance(out, RemotePath):
            with tempfile.TemporaryDirectory() as here:
                facts = learn(Path(here) / "vocabulary")
                for path in sorted((Path(here) / "vocabulary").iterdir()):
                    (out / path.name).upload(path)
            return facts
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

    return run_stage(folder / "vocabulary", fingerprint, learn)


def _first_megabytes(documents: Iterator[str], megabytes: float) -> Iterator[str]:
    """Yields documents until they hold so many million characters."""
    left = megabytes * 1e6
    for document in documents:
        if left <= 0:
            return
        left -= len(document)
        yield document


def _rows_fingerprint(settings: RowSettings, source: dict, folder: Path | RemotePath) -> dict:
    names = ("duplicates", "max_length", "mode", "short_seq_prob")
    vocabulary = folder / "vocabulary" / "vocab.txt"
    if not vocabulary.exists():  # of another kind than BERT's
        vocabulary = folder / "vocabulary" / "tokenizer.json"
    return {
        "corpus": source,
        "vocabulary": file_checksum(vocabulary),
        "rows": {name: getattr(settings, name) for name in names}
        | ({"packed": True} if settings.packed else {}),
        "heldout_fraction": settings.heldout_fraction,
        "seed": settings.seed,
    }


def _make_rows(settings, source, folder, make):
    """Returns facts about the rows in `folder`/rows, which are made now or were made before."""

    def build(out):
        manifest = make(out)
        return {key: manifest[key] for key in ("documents", "reading", *SETS)}

    facts = run_stage(folder / "rows", _rows_fingerprint(settings, source, folder), build)
    for name in SETS:
        rows, tokens = facts[name]["rows"], facts[name]["tokens"]
        padding = 1 - tokens / max(1, rows * settings.max_length)
        LOG.info("%s: %s rows, of which %.1f%% is padding.", name, f"{rows:,}", 100 * padding)
    for warning in _next_sentence_warnings(settings, facts):
        LOG.warning("%s", warning)
    return facts


def _next_sentence_warnings(settings, facts):
    """Yields what is wrong with the next-sentence labels of rows, and what to do."""
    if settings.mode != "pairs":
        return
    for name in SETS:
        counts = facts[name]
        share = rows_on_disk.random_next_share(counts)
        if share is None or rows_on_disk.is_next_sentence_task(share):
            continue
        if share < 0.5:
            why = "a random B comes from another document, and there is none"
        elif ones := counts["documents_of_one_sentence"]:
            why = (
                f"{ones:,} documents are one sentence, and where a row has room for one only "
                f"(config.rows.max_length={settings.max_length}), nothing follows it"
            )
        else:
            why = (
                f"most sentences fill a row (config.rows.max_length={settings.max_length}), so "
                "that what follows them has no room; choose longer rows"
            )
        yield (
            f"{name} rows: {share:.0%} have a random next sentence, expected about half: {why}. "
            "What a net learns of next sentences from them means nothing. Give text in more and "
            "longer documents (a blank line ends one; --config.corpus.lines=False), or rows of "
            "single segments: --config.rows.mode=single"
        )
