# SPDX-License-Identifier: Apache-2.0
"""Tiny tokenizers of every kind that is read, in the files that models come with."""

import functools
import json
import random
import struct
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers

from edad_jax.data.vocabulary import extend_vocabulary
from tests.tiny_text import make_documents, write_tokenizer

# The torch code of an MPNet pads with piece 1, whatever config.json says.
MPNET = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>"}
MPNET |= {"unk_token": "[UNK]", "mask_token": "<mask>"}
XLM_R = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")  # in RoBERTa's order
KOREAN = "해마는 기억을 맡는다. 소뇌는 운동을 맡는다. 뇌세포의 안녕 한국어 하세요."
KINDS = ("wordpiece", "unigram", "bytes", "merges", "sentencepiece", "kobert")
GROWN = ("grown unigram", "grown bytes")
GROWN_BY = 60  # pieces


def write_kind(kind: str, folder: Path) -> Path:
    """Returns the folder of a tokenizer.

    Args:
      kind: "wordpiece" (BERT's vocab.txt), "unigram" (XLM-R's tokenizer.json), "bytes" (RoBERTa's
        tokenizer.json), "merges" (the same as vocab.json and merges.txt), "sentencepiece" (a .model
        alone), "kobert" (a .model whose ids are in the vocab.txt beside it), "metaspace" (BPE on
        characters, SentencePiece's blanks), "mpnet" (the words of "wordpiece" with MPNet's special
        pieces), or one of GROWN: with GROWN_BY new pieces.
      folder: where to; made where it is not there.
    """
    if kind in GROWN:
        base = write_kind(kind.removeprefix("grown "), folder.with_name(f"{folder.name} before"))
        extend_vocabulary(base, growing_texts(), size=GROWN_BY, out=folder, progress=False)
        return folder
    if kind == "wordpiece":
        return write_tokenizer(folder)
    if kind == "mpnet":
        pieces = (write_tokenizer(folder) / "vocab.txt").read_text("utf-8").splitlines()
        return write_mpnet(folder, pieces[len(MPNET) :])
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "unigram":
        unigram().save(str(folder / "tokenizer.json"))
    elif kind == "bytes":
        byte_bpe().save(str(folder / "tokenizer.json"))
    elif kind == "metaspace":
        metaspace_bpe().save(str(folder / "tokenizer.json"))
    elif kind == "merges":
        byte_bpe().model.save(str(folder))
    else:
        write_model(folder / "spiece.model", sorts=kind != "kobert")
        if kind == "kobert":
            names = [piece for piece, _ in sentencepieces()]
            (folder / "vocab.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    return folder


def write_mpnet(folder: Path, words: list[str], *, behind: Sequence[str] = ()) -> Path:
    """Returns the folder, with a WordPiece tokenizer that has MPNet's special pieces in front.

    But those of `behind`; as published, <mask> is behind the words, and names for later use are
    among the others.
    """
    pieces = [*MPNET.values(), *words]
    if behind:
        front = [piece for piece in (*XLM_R[:4], "[unused0]", "[UNK]") if piece not in behind]
        pieces = [*front, "[CLS]", "[unused1]", *words, *behind]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(MPNET.values()))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    settings = {"tokenizer_class": "MPNetTokenizer", "do_lower_case": True} | MPNET
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@functools.cache
def _texts() -> tuple[str, ...]:
    lines = [line for document in make_documents(30, seed=3) for line in document.split("\n")]
    return (*lines, *[KOREAN] * 20)


@functools.cache
def _learned_unigram() -> str:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=list(XLM_R), unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return tokenizer.to_str()


def unigram() -> Tokenizer:
    """Returns a unigram tokenizer with XLM-R's special pieces."""
    return Tokenizer.from_str(_learned_unigram())


@functools.cache
def _learned_bytes() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(XLM_R),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    return tokenizer.to_str()


def byte_bpe() -> Tokenizer:
    """Returns a byte-level BPE tokenizer with RoBERTa's special pieces."""
    return Tokenizer.from_str(_learned_bytes())


@functools.cache
def _learned_metaspace() -> str:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=list(XLM_R), show_progress=False)
    tokenizer.train_from_iterator(_texts(), trainer)
    return tokenizer.to_str()


def metaspace_bpe() -> Tokenizer:
    """Returns a BPE tokenizer of characters, in SentencePiece's form, with RoBERTa's specials."""
    return Tokenizer.from_str(_learned_metaspace())


def growing_texts() -> list[str]:
    """Returns documents whose words the tokenizers above have in several pieces."""
    return [*make_documents(80, seed=8), *["신경세포의 신경."] * 300]


def sentencepieces() -> list[tuple[str, float]]:
    """Returns pieces and scores with KoBERT's special pieces in front, in KoBERT's order."""
    learned = json.loads(_learned_unigram())["model"]["vocab"]
    specials = ("[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]")
    return [*((name, 0.0) for name in specials), *(tuple(p) for p in learned if p[0] not in XLM_R)]


def write_model(path: Path, *, sorts: bool = False, algorithm: int = 1) -> Path:
    """Returns a SentencePiece .model, written field by field.

    Args:
      path: where to.
      sorts: False for an order of pieces that is not theirs in `sentencepieces`.
      algorithm: trainer_spec.model_type.
    """
    pieces = sentencepieces()
    if not sorts:
        random.Random(0).shuffle(pieces)
    kinds = {"[UNK]": 2, **dict.fromkeys(("[PAD]", "[CLS]", "[SEP]", "[MASK]"), 3)}
    content = b""
    for piece, score in pieces:
        text = piece.encode()
        inside = _field(1, text) + b"\x15" + struct.pack("<f", score)
        inside += b"\x18" + _varint(kinds.get(piece, 1))
        content += _field(1, inside)
    content += _field(2, b"\x18" + _varint(algorithm))
    content += _field(3, _field(1, b"identity"))
    path.write_bytes(content)
    return path


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])
