# SPDX-License-Identifier: Apache-2.0
"""Tokenizers of other kinds than BERT's, from whatever files describe one.

tokenizer.json              of any kind, as it is
vocab.json, merges.txt      byte-level BPE (RoBERTa)
*.model                     SentencePiece; with a vocab.txt beside it the ids are that file's
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from edad_jax.data.sentencepiece_model import Preprocessing, read_sentencepiece
from edad_jax.files import read_json_or_none

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# What a special piece is called where nothing says so, by its role.
_USUAL_NAMES = {
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>", "<cls>"),
    "sep_token": ("[SEP]", "</s>", "<sep>"),
    "mask_token": ("[MASK]", "<mask>"),
}
# Classes whose code changes a text before SentencePiece reads it -> whether it lower-cases by
# default. KoBERT's two classes are written after XLNet's.
_CHANGING_CLASSES = {"Albert": True, "XLNet": False, "KoBert": False, "KoBERT": False}


def find_files(folder: Path) -> str | None:
    """Returns which form a folder's tokenizer has: "json", "vocab", "merges", "sentencepiece"."""
    if (folder / "tokenizer.json").is_file():
        return "json"
    if any(folder.glob("*.model")):
        return "sentencepiece"
    if (folder / "vocab.txt").is_file():
        return "vocab"
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return "merges"
    return None


def read_tokenizer(folder: Path, form: str) -> PreTrainedTokenizerFast:
    """Returns the tokenizer that a folder's files describe, with its special pieces by role.

    Args:
      folder: has the files.
      form: from `find_files`, but "vocab".

    Raises:
      ValueError: a file cannot be read, or files do not fit together.
    """
    import transformers

    said = _read_settings(folder)
    read = {"json": _read_json, "merges": _read_merges, "sentencepiece": _read_model}[form]
    backend = read(folder, said)
    pieces = backend.get_vocab(with_added_tokens=True)
    specials = {}
    for role, names in _USUAL_NAMES.items():
        name = said.get(role)
        name = name.get("content") if isinstance(name, dict) else name
        if name is None:
            name = next((usual for usual in names if usual in pieces), None)
        if name in pieces:
            specials[role] = name
    if backend.post_processor is None and {"cls_token", "sep_token"} <= set(specials):
        backend.post_processor = _framing(*(specials[f"{r}_token"] for r in ("cls", "sep")), pieces)
    options = {}
    if isinstance(said.get("model_max_length"), int):
        options["model_max_length"] = said["model_max_length"]
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **specials, **options)


def _framing(cls: str, sep: str, pieces: Mapping[str, int]) -> processors.TemplateProcessing:
    """Returns what puts [CLS] and [SEP] around texts, as BERT has them."""
    return processors.TemplateProcessing(
        single=[cls, "$A", sep],
        pair=[cls, "$A", sep, "$B:1", f"{sep}:1"],
        special_tokens=[(name, pieces[name]) for name in (cls, sep)],
    )


def _read_settings(folder: Path) -> dict[str, Any]:
    """Returns what special_tokens_map.json and tokenizer_config.json say, the latter first."""
    said: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        values = read_json_or_none(folder / name)
        said |= values if isinstance(values, dict) else {}
    return said


def _read_json(folder: Path, said: Mapping[str, Any]) -> Tokenizer:
    del said
    path = folder / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing more definite
        raise ValueError(
            f"{path}: the tokenizer cannot be read: {error}; fetch the files again"
        ) from error


def _read_merges(folder: Path, said: Mapping[str, Any]) -> Tokenizer:
    files = [str(folder / name) for name in ("vocab.json", "merges.txt")]
    try:
        tokenizer = Tokenizer(models.BPE.from_file(*files))
    except Exception as error:  # likewise
        raise ValueError(
            f"{folder}: merges.txt and vocab.json do not fit together: {error}; put the files of "
            "one model there"
        ) from error
    blank = bool(said.get("add_prefix_space", False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=blank)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _read_model(folder: Path, said: Mapping[str, Any]) -> Tokenizer:
    found = sorted(folder.glob("*.model"))
    if len(found) > 1:
        raise ValueError(
            f"{folder} has {len(found)} files that end in .model "
            f"({', '.join(path.name for path in found)}), expected one; keep the tokenizer's"
        )
    model_json = read_json_or_none(folder / "config.json")
    family = model_json.get("model_type") if isinstance(model_json, dict) else None
    named = said.get("tokenizer_class") or ""
    vocabulary = folder / "vocab.txt"
    order = None
    if vocabulary.is_file():
        order = vocabulary.read_text(encoding="utf-8").rstrip("\n").split("\n")
    lower = next((_CHANGING_CLASSES[c] for c in _CHANGING_CLASSES if named.startswith(c)), None)
    if lower is None and not named and (order or family == "albert"):
        lower = family == "albert"  # KoBERT's files name no class
    before = None
    if lower is not None:
        lower = bool(said.get("do_lower_case", lower))
        before = Preprocessing(lower, bool(said.get("keep_accents", False)))
    is_xlm = order is None and (
        named.startswith("XLMRoberta") or (not named and family == "xlm-roberta")
    )
    return read_sentencepiece(found[0], order, before, is_xlm_roberta=is_xlm)


def renumber(description: dict[str, Any], vocabulary: Sequence[str]) -> None:
    """Has a tokenizer.json of a WordPiece tokenizer have these pieces, by id; nothing else of it.

    Args:
      description: what the file says; its added tokens that are no piece are left out.
      vocabulary: with all pieces that frame a text.
    """
    numbers = {piece: number for number, piece in enumerate(vocabulary)}
    description["model"]["vocab"] = numbers
    added = [token for token in description["added_tokens"] if token["content"] in numbers]
    description["added_tokens"] = [token | {"id": numbers[token["content"]]} for token in added]
    framing = description["post_processor"] or {}
    for role in ("cls", "sep"):  # of BertProcessing and RobertaProcessing
        if role in framing:
            framing[role] = [framing[role][0], numbers[framing[role][0]]]
    for token in framing.get("special_tokens", {}).values():  # of TemplateProcessing
        token["ids"] = [numbers[piece] for piece in token["tokens"]]


def shield_specials(backend: Tokenizer) -> None:
    """Keeps a text from naming a special piece, once special words are read as plain text.

    A unigram or WordPiece model takes "<mask>" in a text for its piece of that name, as it takes
    any other. So the first character of such a word is cut from the rest. Byte-level BPE splits
    them by itself.
    """
    said = json.loads(backend.to_str())
    before = said["pre_tokenizer"]
    before = before["pretokenizers"] if before and before["type"] == "Sequence" else [before]
    before = [step for step in before if step]
    if said["model"]["type"] == "BPE" and any(step["type"] == "ByteLevel" for step in before):
        return
    names = [added["content"] for added in said["added_tokens"] if added["special"]]
    short = [name for name in names if len(name) < 2]
    if short:
        raise ValueError(
            f"got special pieces {short} of one character, expected such as no text has; give "
            "them other names in tokenizer.json"
        )
    if not names:
        return
    cut = "|".join(f"{re.escape(name[0])}(?={re.escape(name[1:])})" for name in sorted(names))
    shield = {
        "type": "Split",
        "pattern": {"Regex": cut},
        "behavior": "MergedWithPrevious",
        "invert": False,
    }
    if shield not in before:
        said["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*before, shield]}
        backend.pre_tokenizer = Tokenizer.from_str(json.dumps(said)).pre_tokenizer
