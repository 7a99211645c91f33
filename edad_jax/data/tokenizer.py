# SPDX-License-Identifier: Apache-2.0
"""A tokenizer from a folder or the hub, and with another vocabulary.

BERT's kind (WordPiece) may grow. Others, unigram and BPE, are read as they are: `tokenizer_files`.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, normalizers

from edad_jax.data.pieces import BERT_TYPES, part_types
from edad_jax.data.text.hub import is_hub_reachable
from edad_jax.data.tokenizer_files import find_files, read_tokenizer, renumber, shield_specials
from edad_jax.files import check_sums, read_json_or_none, replaced_folder, write_sums

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LOG = logging.getLogger(__name__)
_MOST_LOST = 0.01  # share of pieces that may never come out without a word

SPECIAL_TOKENS = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
MODELS = ("WordPiece", "Unigram", "BPE")  # kinds of tokenizers that are read
# Class that a folder names -> class that reads it.
_OWN_CLASSES = {
    "BertTokenizer": "BertTokenizer",
    "BertTokenizerFast": "BertTokenizer",
    "PreTrainedTokenizerFast": "PreTrainedTokenizerFast",
}


def load_tokenizer(
    path_or_hub_id: str | Path, *, option: str = "--config.teacher.checkpoint=/a/local/folder"
) -> PreTrainedTokenizerFast:
    """Returns the tokenizer of a local folder or of a hub id.

    "[SEP]" and "[MASK]" in a text are plain text to it, as in pretraining (`data.pieces`). Texts
    are to be composed (NFC) before it reads them: what makes an exported tokenizer do so itself
    (`composing`) is taken off, so that a tokenizer is the same before and after its export.

    Args:
      path_or_hub_id: a folder with vocab.txt, tokenizer.json, vocab.json and merges.txt, or a
        SentencePiece .model, or an id such as "bert-base-uncased". What the hub's cache holds is
        taken from there without asking.
      option: named in errors as the way to give a local folder.

    Raises:
      ValueError: nothing there, the hub cannot be reached, a kind of tokenizer that is not read,
        or one without [MASK] or another special piece.
    """
    source = str(path_or_hub_id)
    is_folder = os.path.isdir(source)
    if not is_folder and (source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise ValueError(f"got {source}, expected a folder with a tokenizer; give {option}")
    form = find_files(Path(source)) if is_folder else None
    if is_folder and form is None:
        raise ValueError(
            f"{source} has neither vocab.txt nor tokenizer.json, nor vocab.json with merges.txt, "
            f"nor a SentencePiece .model; give a tokenizer: {option}"
        )
    if is_folder:
        check_sums(Path(source), "vocab.*", "merges.txt", "*.model", "*token*.json")
    if form in ("merges", "sentencepiece") or (form == "json" and not _is_bert_file(Path(source))):
        tokenizer = read_tokenizer(Path(source), form)
    else:
        tokenizer = _load_by_class(source, is_folder, option)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.normalizer = _not_composing(backend.normalizer)
    check_kind(tokenizer, source)
    if not isinstance(tokenizer.model_max_length, int | float):
        raise ValueError(
            f"{source}: got model_max_length {tokenizer.model_max_length!r} in "
            "tokenizer_config.json, expected a number of pieces; mend it or take it out"
        )
    if is_bert_kind(tokenizer):
        _leave_phrases(tokenizer, source)
        _tell_unreachable(tokenizer, source)
    else:
        shield_specials(backend)
    tokenizer.split_special_tokens = True
    return tokenizer


def _load_by_class(source, is_folder, option):
    """Returns what transformers makes of a folder or a hub id."""
    import transformers

    # AutoTokenizer would ask whether to run the torch code that lies beside our models.
    named = _named_class(source) if is_folder else None
    load = getattr(transformers, _OWN_CLASSES.get(named, "AutoTokenizer")).from_pretrained
    try:
        return load(source, local_files_only=True)
    except Exception as error:
        if is_folder:
            raise ValueError(f"{source}: the tokenizer cannot be read: {error}") from error
        if not is_hub_reachable():
            raise ValueError(
                f"the tokenizer {source} is not on this machine and the Hugging Face hub cannot "
                f"be reached; give a local folder: {option}"
            ) from None
    try:
        return load(source)
    except Exception as error:
        raise ValueError(
            f"the tokenizer {source} cannot be loaded from the hub ({error}); give a local "
            f"folder: {option}"
        ) from error


def _is_bert_file(folder):
    """Returns whether tokenizer.json is of BERT's kind, or cannot be read at all."""
    try:
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception:  # tokenizers raises nothing more definite; the class that is named will too
        return True
    backend.normalizer = _not_composing(backend.normalizer)
    return part_types(backend) == BERT_TYPES


def is_bert_kind(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Returns whether a tokenizer normalises and splits words as BERT's does, into WordPiece."""
    return part_types(tokenizer.backend_tokenizer) == BERT_TYPES


def _steps(normalizer):
    """Returns the normalisers that a sequence has, or the one, or none."""
    if normalizer is None:
        return []
    if not isinstance(normalizer, normalizers.Sequence):
        return [normalizer]
    return [each for step in normalizer for each in _steps(step)]


def _in_sequence(steps):
    if not steps:
        return None
    return steps[0] if len(steps) == 1 else normalizers.Sequence(steps)


def _not_composing(normalizer):
    """Returns a normaliser without the composing in front: `composing` undone."""
    steps = _steps(normalizer)
    return _in_sequence(steps[1:] if steps and isinstance(steps[0], normalizers.NFC) else steps)


def is_phrase(content: str) -> bool:
    """Returns whether an added token has white space within, so that words alone never make it."""
    return any(map(str.isspace, content))


def _leave_phrases(tokenizer, source):
    """Has a tokenizer cut added tokens of several words ("heart attack") as any other text.

    Rows are made word by word, and a tagger's labels are of words: training never sees such a
    token, and so must nothing that reads for the trained model. They keep their ids, as pieces of
    the vocabulary that no text comes to.
    """
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    phrases = [
        token
        for token in description["added_tokens"]
        if is_phrase(token["content"]) and not token["special"]
    ]
    if not phrases:
        return
    names = [token["content"] for token in phrases]
    LOG.warning(
        "%s: added tokens of several words (%d: %s) are read word by word, in training and after "
        "it.",
        *(source, len(names), ", ".join(map(repr, names[:5]))),
    )
    description["added_tokens"] = [
        token for token in description["added_tokens"] if token not in phrases
    ]
    description["model"]["vocab"] |= {token["content"]: token["id"] for token in phrases}
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(description))


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
    named = config.get("tokenizer_class") if isinstance(config, dict) else None
    return named if isinstance(named, str) else default


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
    copy.normalizer = _in_sequence([normalizers.NFC(), *_steps(copy.normalizer)])
    return copy


def check_kind(tokenizer: PreTrainedTokenizerFast, source: str) -> None:
    """Raises ValueError for a tokenizer that is not fast, of another kind, or without a role.

    Nor may [UNK] or [MASK] be a piece of another role too. Were [UNK] also [CLS], every row would
    count as having an unknown word, which would never be masked; were it [MASK], an unknown word
    would read as a gap. But [CLS] may be [SEP], as XLM has it, and padding, which is told by its
    place, any piece.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    kind = type(backend.model).__name__ if backend is not None else type(tokenizer).__name__
    if kind not in MODELS:
        raise ValueError(
            f"{source}: got a tokenizer of the kind {kind}, expected one of {', '.join(MODELS)} in "
            "the form of the tokenizers library (tokenizer.json)"
        )
    if is_bert_kind(tokenizer) and not backend.normalizer.clean_text:
        raise ValueError(f"{source}: got clean_text=false, expected true, as in BERT")
    if is_bert_kind(tokenizer):
        unknown = backend.model.unk_token
        if unknown not in backend.get_vocab(with_added_tokens=False):
            raise ValueError(
                f"{source}: got a vocabulary without {unknown!r}, expected that piece, which "
                "stands for what it does not know; put back the model's own vocab.txt or "
                "tokenizer.json"
            )
    missing = [name for name in SPECIAL_TOKENS if getattr(tokenizer, f"{name}_id") is None]
    if missing:
        raise ValueError(
            f"{source}: the tokenizer lacks {', '.join(missing)}, expected a piece for each of "
            f"{', '.join(SPECIAL_TOKENS)}: an encoder's have them, most decoders' have not. If it "
            "has one under another name, say so in its tokenizer_config.json"
        )
    pieces = {name: getattr(tokenizer, name) for name in SPECIAL_TOKENS if name != "pad_token"}
    for name in ("unk_token", "mask_token"):
        same = [each for each in pieces if pieces[each] == pieces[name]]
        if len(same) > 1:
            raise ValueError(
                f"{source}: got {pieces[name]!r} as {' and '.join(same)}, expected a piece of its "
                f"own for {name}; say in its tokenizer_config.json which piece that is"
            )
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
    """Returns whether two tokenizers have the same pieces and read texts alike."""
    said = [json.loads(each.backend_tokenizer.to_str()) for each in (first, second)]
    if is_bert_kind(first) and is_bert_kind(second):
        pieces = [pieces_in_order(each.backend_tokenizer) for each in (first, second)]
        return said[0]["normalizer"] == said[1]["normalizer"] and pieces[0] == pieces[1]
    parts = ("normalizer", "pre_tokenizer", "model")
    return all(said[0][part] == said[1][part] for part in parts)


def save_tokenizer(
    tokenizer: PreTrainedTokenizerFast,
    vocabulary: list[str],
    out: Path,
    *,
    backend: Tokenizer | None = None,
) -> None:
    """Writes a tokenizer with another vocabulary, and checks it before it takes its place.

    Args:
      tokenizer: what normalises, splits and frames the text.
      vocabulary: pieces by id, with all special ones.
      out: folder of the new tokenizer; what was there is replaced.
      backend: what has these pieces, where they are not WordPiece: scores or merges come with them.

    Raises:
      ValueError: it does not load back as it was meant.
      OSError: it cannot be written.
    """
    import transformers

    is_bert = is_bert_kind(tokenizer)
    backend = backend or tokenizer.backend_tokenizer
    description = json.loads(backend.to_str())
    description["truncation"] = description["padding"] = None
    if is_bert:
        renumber(description, vocabulary)
    elif vocabulary != pieces_in_order(backend):
        kind = description["model"]["type"]
        raise ValueError(f"got pieces without scores or merges, expected what a {kind} has")
    specials = {name: getattr(tokenizer, name) for name in SPECIAL_TOKENS}
    with replaced_folder(out) as beside:
        try:
            tokenizer.save_pretrained(beside)
        except Exception as error:
            if type(error) is not Exception:
                raise
            raise OSError(errno.EIO, str(error)) from error  # tokenizers' word for a full disk
        config = json.loads((beside / "tokenizer_config.json").read_text())
        if is_bert:
            normalizer = description["normalizer"]
            config |= {
                "tokenizer_class": "BertTokenizer",
                "do_lower_case": normalizer["lowercase"],
                "strip_accents": normalizer["strip_accents"],
                "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
            }
        else:
            config = specials | config | {"tokenizer_class": "PreTrainedTokenizerFast"}
        for key in ("is_local", "local_files_only", "name_or_path"):
            config.pop(key, None)
        for name, content in (
            ("tokenizer.json", description),
            ("tokenizer_config.json", config),
            ("special_tokens_map.json", specials),
        ):
            text = json.dumps(content, indent=2, ensure_ascii=False)
            (beside / name).write_text(text + "\n", encoding="utf-8")
        if is_bert:
            (beside / "vocab.txt").write_text(
                "\n".join(vocabulary) + "\n", encoding="utf-8", newline="\n"
            )
        saved = transformers.AutoTokenizer.from_pretrained(beside, local_files_only=True)
        check_kind(saved, str(beside))
        if pieces_in_order(saved.backend_tokenizer) != vocabulary:
            raise ValueError(
                f"{beside}: the saved tokenizer does not load back with the same pieces"
            )
        write_sums(beside)
