# SPDX-License-Identifier: Apache-2.0
"""A tokenizer of the BERT kind: from a folder or the hub, and with another vocabulary."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, normalizers

from edad_jax.data.text.hub import is_hub_reachable
from edad_jax.files import read_json_or_none, replaced_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LOG = logging.getLogger(__name__)
_MOST_LOST = 0.01  # share of pieces that may never come out without a word

SPECIAL_TOKENS = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
_COMPOSING = [normalizers.NFC, normalizers.BertNormalizer]
# Class that a folder names -> class that reads it.
_OWN_CLASSES = {
    "BertTokenizer": "BertTokenizer",
    "BertTokenizerFast": "BertTokenizer",
    "PreTrainedTokenizerFast": "PreTrainedTokenizerFast",
}


def load_tokenizer(
    path_or_hub_id: str | Path, *, option: str = "--config.teacher.checkpoint=/a/local/folder"
) -> PreTrainedTokenizerFast:
    """Returns the tokenizer of a local folder or of a hub id; it is of the BERT WordPiece kind.

    "[SEP]" and "[MASK]" in a text are plain text to it, as in pretraining (`data.pieces`). Texts
    are to be composed (NFC) before it reads them: what makes an exported tokenizer do so itself
    (`composing`) is taken off, so that a tokenizer is the same before and after its export.

    Args:
      path_or_hub_id: a folder with vocab.txt or tokenizer.json, or an id such as
        "bert-base-uncased". What the hub's cache holds is taken from there without asking.
      option: named in errors as the way to give a local folder.

    Raises:
      ValueError: nothing there, the hub cannot be reached, or another kind of tokenizer.
    """
    import transformers

    source = str(path_or_hub_id)
    is_folder = os.path.isdir(source)
    if not is_folder and (source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise ValueError(f"got {source}, expected a folder with a tokenizer; give {option}")
    if is_folder and not any(
        os.path.exists(os.path.join(source, name)) for name in ("vocab.txt", "tokenizer.json")
    ):
        raise ValueError(
            f"{source} has neither vocab.txt nor tokenizer.json; give a tokenizer: {option}"
        )
    # AutoTokenizer would ask whether to run the torch code that lies beside our models.
    named = _named_class(source) if is_folder else None
    load = getattr(transformers, _OWN_CLASSES.get(named, "AutoTokenizer")).from_pretrained
    try:
        tokenizer = load(source, local_files_only=True)
    except Exception as error:
        if is_folder:
            raise ValueError(f"{source}: the tokenizer cannot be read: {error}") from error
        if not is_hub_reachable():
            raise ValueError(
                f"the tokenizer {source} is not on this machine and the Hugging Face hub cannot "
                f"be reached; give a local folder: {option}"
            ) from None
        try:
            tokenizer = load(source)
        except Exception as second:
            raise ValueError(
                f"the tokenizer {source} cannot be loaded from the hub ({second}); give a local "
                f"folder: {option}"
            ) from second
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = getattr(backend, "normalizer", None)
    if isinstance(parts, normalizers.Sequence) and [type(part) for part in parts] == _COMPOSING:
        backend.normalizer = parts[1]
    check_kind(tokenizer, source)
    _tell_unreachable(tokenizer, source)
    tokenizer.split_special_tokens = True
    return tokenizer


def _tell_unreachable(tokenizer, source):
    """Warns of a vocabulary with capitals whose text is lower-cased before it is looked up.

    So it is read where tokenizer_config.json does not say do_lower_case: words with capitals then
    come out in scraps, and nothing fails.
    """
    if not tokenizer.backend_tokenizer.normalizer.lowercase:
        return
    special = set(tokenizer.all_special_tokens)
    pieces = [piece for piece in tokenizer.get_vocab() if piece not in special]
    lost = [piece for piece in pieces if piece != piece.lower() and not piece.startswith("[")]
    if len(lost) > _MOST_LOST * len(pieces):
        LOG.warning(
            "%s: %s of %s pieces have capitals (%s), and can never come out, since its tokenizer "
            "lower-cases text. If the model is a cased one, put "
            '{"tokenizer_class": "BertTokenizer", "do_lower_case": false} into its '
            "tokenizer_config.json.",
            *(source, f"{len(lost):,}", f"{len(pieces):,}", ", ".join(sorted(lost)[:5])),
        )


def _named_class(folder: str) -> str | None:
    """Returns what tokenizer_config.json says that the tokenizer is; vocab.txt alone is BERT's."""
    config = read_json_or_none(os.path.join(folder, "tokenizer_config.json"))
    is_alone = not os.path.exists(os.path.join(folder, "tokenizer.json"))
    default = "BertTokenizer" if is_alone else None
    return config.get("tokenizer_class", default) if isinstance(config, dict) else default


def check_unknown(shares: Mapping[str, float], most: float, *, option: str, advice: str) -> None:
    """Says which share of the pieces a tokenizer does not know.

    Args:
      shares: of each set of rows.
      most: what is borne.
      option: that says how much is borne.
      advice: what to give instead, for errors.

    Raises:
      ValueError: one has more. Who answers the same to all of them may have a score of 100.
    """
    told = ", ".join(f"{name} {share:.2%}" for name, share in shares.items())
    LOG.info("Pieces that the tokenizer does not know ([UNK]): %s.", told)
    if max(shares.values(), default=0.0) > most:
        raise ValueError(
            f"the tokenizer does not know many of the pieces ({told}), expected at most "
            f"{most:.0%}: is the text in another language or encoding than the model's? {advice}, "
            f"or, if it is to be so, a larger {option}"
        )


def composing(backend: Tokenizer) -> Tokenizer:
    """Returns a copy of a tokenizer that composes (NFC) whatever text it is given."""
    copy = Tokenizer.from_str(backend.to_str())
    copy.normalizer = normalizers.Sequence([normalizers.NFC(), copy.normalizer])
    return copy


def check_kind(tokenizer: PreTrainedTokenizerFast, source: str) -> None:
    """Raises ValueError unless the tokenizer normalises and splits words as BERT's does."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    description = json.loads(backend.to_str()) if backend is not None else {}
    kinds = {
        part: (description.get(part) or {}).get("type")
        for part in ("normalizer", "pre_tokenizer", "model")
    }
    expected = {
        "normalizer": "BertNormalizer",
        "pre_tokenizer": "BertPreTokenizer",
        "model": "WordPiece",
    }
    if kinds != expected:
        raise ValueError(
            f"{source} is no BERT tokenizer: got {kinds}, expected {expected}; take a model of the "
            "BERT family with a WordPiece vocabulary"
        )
    if not description["normalizer"]["clean_text"]:
        raise ValueError(f"{source}: got clean_text=false, expected true, as in BERT")
    unknown = description["model"]["unk_token"]
    if unknown not in description["model"]["vocab"]:
        raise ValueError(
            f"{source}: got a vocabulary without {unknown!r}, expected that piece, which stands "
            "for what it does not know; put back the model's own vocab.txt or tokenizer.json"
        )
    missing = [name for name in SPECIAL_TOKENS if getattr(tokenizer, f"{name}_id") is None]
    if missing:
        raise ValueError(f"{source}: the tokenizer lacks {', '.join(missing)}")
    ids = sorted(backend.get_vocab(with_added_tokens=True).values())
    if ids != list(range(len(ids))):
        raise ValueError(
            f"{source}: got {len(ids):,} pieces with ids up to {ids[-1]:,}, expected every id "
            "from 0 once; a vocabulary file with a line twice gives this"
        )


def pieces_in_order(backend: Tokenizer) -> list[str]:
    """Returns the pieces of a vocabulary by their ids."""
    pieces = backend.get_vocab(with_added_tokens=True)
    return sorted(pieces, key=pieces.__getitem__)


def tokenizes_alike(first: PreTrainedTokenizerFast, second: PreTrainedTokenizerFast) -> bool:
    """Returns whether two tokenizers of the BERT kind have the same pieces and read texts alike."""
    backends = [each.backend_tokenizer for each in (first, second)]
    said = [json.loads(backend.to_str())["normalizer"] for backend in backends]
    return said[0] == said[1] and pieces_in_order(backends[0]) == pieces_in_order(backends[1])


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, vocabulary: list[str], out: Path) -> None:
    """Writes a tokenizer with another vocabulary, and checks it before it takes its place.

    Args:
      tokenizer: what normalises, splits and frames the text.
      vocabulary: pieces by id; the special ones have the ids that they had.
      out: folder of the new tokenizer; what was there is replaced.

    Raises:
      ValueError: it does not load back as it was meant.
      OSError: it cannot be written.
    """
    import transformers

    description = json.loads(tokenizer.backend_tokenizer.to_str())
    description["truncation"] = description["padding"] = None
    description["model"]["vocab"] = {piece: number for number, piece in enumerate(vocabulary)}
    normalizer = description["normalizer"]
    specials = {name: getattr(tokenizer, name) for name in SPECIAL_TOKENS}
    with replaced_folder(out) as beside:
        try:
            tokenizer.save_pretrained(beside)
        except Exception as error:
            if type(error) is not Exception:
                raise
            raise OSError(errno.EIO, str(error)) from error  # tokenizers' word for a full disk
        config = json.loads((beside / "tokenizer_config.json").read_text()) | {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": normalizer["lowercase"],
            "strip_accents": normalizer["strip_accents"],
            "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
        }
        for key in ("is_local", "local_files_only", "name_or_path"):
            config.pop(key, None)
        for name, content in (
            ("tokenizer.json", description),
            ("tokenizer_config.json", config),
            ("special_tokens_map.json", specials),
        ):
            text = json.dumps(content, indent=2, ensure_ascii=False)
            (beside / name).write_text(text + "\n", encoding="utf-8")
        (beside / "vocab.txt").write_text(
            "\n".join(vocabulary) + "\n", encoding="utf-8", newline="\n"
        )
        saved = transformers.AutoTokenizer.from_pretrained(beside, local_files_only=True)
        check_kind(saved, str(beside))
        if pieces_in_order(saved.backend_tokenizer) != vocabulary:
            raise ValueError(
                f"{beside}: the saved tokenizer does not load back with the same pieces"
            )
