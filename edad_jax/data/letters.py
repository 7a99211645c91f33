# SPDX-License-Identifier: Apache-2.0
"""Pieces of unigram and BPE tokenizers as the letters that they stand for."""

from __future__ import annotations

import functools
import json
import unicodedata
from collections.abc import Callable, Mapping

from tokenizers import Tokenizer

_BLANK = "\u2581"  # SentencePiece's


def reader_of(backend: Tokenizer) -> Callable[[str], str]:
    """Returns what shows a piece as text: blanks as blanks, bytes as the letters they make up."""
    if not is_byte_level(backend):
        return lambda piece: piece.replace(_BLANK, " ")
    values = _bytes_of_characters()

    def show(piece):  # a token that was added is not in bytes
        parts = (bytes([values[each]]) if each in values else each.encode() for each in piece)
        return b"".join(parts).decode("utf-8", "replace")

    return show


def is_byte_level(backend: Tokenizer) -> bool:
    """Returns whether pieces are of characters that stand for bytes."""
    said = json.loads(backend.to_str())
    return '"ByteLevel"' in json.dumps([said["normalizer"], said["pre_tokenizer"]])


def letters_of(word: str, *, is_bytes: bool) -> list[bool]:
    """Returns whether each character of a word is a letter, a digit, or the blank before it."""
    if not is_bytes:
        flags = [is_letter(character) for character in word]
        return [word[:1] == _BLANK or flags[0], *flags[1:]] if flags else flags
    values = _bytes_of_characters()
    try:
        text = bytes(values[character] for character in word).decode("utf-8")
    except (KeyError, UnicodeDecodeError):  # a token that was added; bytes that are no text
        return [False] * len(word)
    flags = []
    for number, character in enumerate(text):
        is_good = is_letter(character) or (number == 0 and character == " ")
        flags += [is_good] * len(character.encode("utf-8"))
    return flags


def is_letter(character: str) -> bool:
    """Returns whether a character is a letter, a digit, or a sign on one."""
    return character.isalnum() or unicodedata.category(character)[0] == "M"


@functools.cache
def _bytes_of_characters() -> Mapping[str, int]:
    """Returns the byte that each character stands for in byte-level BPE (Radford et al. 2019)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    values = {chr(byte): byte for byte in shown}
    return values | {chr(256 + number): byte for number, byte in enumerate(hidden)}
