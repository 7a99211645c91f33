# SPDX-License-Identifier: Apache-2.0
"""Bytes of any encoding as UTF-8: what a byte order mark, NUL bytes or the configuration say."""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterable, Iterator

from edad_jax.data.text.reading import ReadReport

OPTION = "--config.corpus.encoding"
# The mark of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
BYTE_ORDER_MARKS = tuple(mark for mark, _ in _MARKS)
_WIDE = {"utf-16": ("utf-16-le", "utf-16-be"), "utf-32": ("utf-32-le", "utf-32-be")}
_LOOKED_AT = 4096  # bytes at the beginning that tell the encoding
_FEWEST_NULS = 4
# Python's names for what spells text in other text.
_NO_TEXT = ("punycode", "unicode_escape", "raw_unicode_escape")


def check_encoding(encoding: str, option: str = OPTION) -> None:
    """Looks whether Python can read text in an encoding.

    Args:
      encoding: its name.
      option: how messages call the place where the name was given.

    Raises:
      ValueError: it cannot; says which names it knows.
    """
    try:
        if codecs.lookup(encoding).name.replace("-", "_") in _NO_TEXT:
            raise LookupError(encoding)
        b"a".decode(encoding, "replace")  # refuses what is an encoding, but not of text
        codecs.getincrementaldecoder(encoding)("replace").decode(b"a")
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"got {option}={encoding}, expected an encoding of text that Python knows; give utf-8, "
            "utf-16, cp949, euc-kr, gb18030, shift_jis, cp1252 or latin-1"
        ) from error


def recode_blocks(
    blocks: Iterable[bytes], encoding: str, name: str, report: ReadReport, *, option: str = OPTION
) -> Iterator[bytes]:
    """Yields the blocks as UTF-8; a byte order mark decides over `encoding`, and is dropped.

    UTF-16 and UTF-32 without the mark are known by their NUL bytes, which ordinary text has not.

    Args:
      blocks: the content of a file.
      encoding: what it is in, where it does not say so itself.
      name: how messages call the file.
      report: told of what was replaced, of a mark that is missing, and of a file that is skipped.
      option: how messages call the place where the encoding is given.

    Raises:
      LookupError: there is no such encoding.
    """
    blocks = iter(blocks)
    first = next(blocks, b"")
    while len(first) < _LOOKED_AT and (block := next(blocks, None)) is not None:
        first += block
    known = codecs.lookup(encoding).name
    mark, marked = next(((m, e) for m, e in _MARKS if first.startswith(m)), (b"", ""))
    if marked:
        encoding = known = marked
        first = first[len(mark) :] if known == "utf-8" else first
    elif known in ("utf-8", *_WIDE):
        found = find_wide(first[:_LOOKED_AT], known)
        if known in _WIDE and first and not found:
            report.add_problem(
                f"file skipped: no byte order mark, and not to be known as {known} "
                f"({option}=utf-8, utf-16-le or utf-16-be)",
                name,
            )
            return
        if found:
            report.add_problem(f"no byte order mark: read as {found} ({option}=...)", name)
            encoding = known = found
    if known == "utf-8":
        yield first
        yield from blocks
        return
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    replaced = 0
    for block in itertools.chain([first], blocks):
        text = decoder.decode(block)
        replaced += text.count("\ufffd")
        yield text.encode("utf-8", "replace")
    tail = decoder.decode(b"", final=True)
    if replaced + len(tail):
        report.add_problem(f"invalid {encoding} replaced", name, f"{replaced + len(tail)} times")
    yield tail.encode("utf-8", "replace")


def find_wide(first: bytes, known: str = "utf-8") -> str:
    """Returns which UTF-16 or UTF-32 bytes without a mark are in; '' if they are in neither.

    Args:
      first: the beginning of a file.
      known: what it is said to be in: utf-8, which it is unless much speaks against it, or utf-16
        or utf-32.
    """
    size = len(first) // 4 * 4 or len(first) // 2 * 2
    first = first[:size]
    columns = [first[i::4].count(0) * 4 / max(1, size) for i in range(4)]
    if size >= 8 and known != "utf-16":
        # No letter is above U+10FFFF, and nearly all are below U+FFFF.
        for zeros, letters, name in (((2, 3), 0, "utf-32-le"), ((0, 1), 3, "utf-32-be")):
            if min(columns[each] for each in zeros) > 0.9 and columns[letters] < 0.1:
                return name
    low, high = first[0::2].count(0), first[1::2].count(0)
    name = "utf-16-le" if high > low else "utf-16-be"
    most, least = max(low, high), min(low, high)
    is_one_sided = most > 10 * least and _decodes(first, name)
    if known == "utf-16":
        if is_one_sided:
            return name
        # Scripts without blanks have no NUL byte at all.
        fits = [each for each in _WIDE[known] if _is_text(first, each)]
        return fits[0] if len(fits) == 1 and not _decodes(first, "utf-8") else ""
    if known == "utf-32" or most < _FEWEST_NULS or not is_one_sided:
        return ""
    # Latin letters in UTF-16 are valid UTF-8, NUL bytes between them; other scripts are not.
    share = most * 2 / size
    return name if share > (0.7 if _decodes(first, "utf-8") else 0.05) else ""


def _decodes(content: bytes, encoding: str) -> bool:
    """Returns whether the beginning of a file is valid, whatever its last letter is cut to."""
    try:
        codecs.getincrementaldecoder(encoding)("strict").decode(content)
    except UnicodeDecodeError:
        return False
    return True


def _is_text(content: bytes, encoding: str) -> bool:
    """Returns whether bytes are valid, and nearly all of them letters, digits or white space."""
    if not _decodes(content, encoding):
        return False
    text = content.decode(encoding, "replace")
    good = sum(each.isalnum() or each.isspace() or "\u3000" <= each < "\u3040" for each in text)
    return good > 0.95 * len(text)
