# SPDX-License-Identifier: Apache-2.0
"""Documents from JSON: an object a line, or a file that is one value over many lines."""

from __future__ import annotations

import io
import itertools
import json
import re
from collections.abc import Generator, Iterable, Iterator
from typing import BinaryIO

from edad_jax.data.text.reading import (
    BLOCK_BYTES,
    KEPT_MESSAGES,
    MAX_RECORD_BYTES,
    ReadReport,
    decode_line,
    finish_document,
    open_blocks,
    read_lines,
)

OPTION = "--config.corpus.text_key=..."
_RETURNS = re.compile(r"\r++\n|\r")
_SPACE = re.compile(r"[\s,]*")
_COMPACT = re.compile(rb'\s*(\[\s*["{\[]|\{\s*"(?:[^"\\]){1,100}"\s*:\s*\[\s*\{)')
_NEXT_RECORD = re.compile(r'[\n,]\s*(?=\{\s*")')
_CONTAINERS = ("data", "documents", "docs", "texts")  # whose strings are documents
_SMALL = 1 << 20  # letters: an object up to this size is looked at as a whole
_DECODER = json.JSONDecoder(strict=False)


def read_json(
    blocks: Iterable[bytes], where: str, report: ReadReport, text_key: str
) -> Iterator[str]:
    """Yields the documents of JSON: of every record its text.

    A record is an object, or a string in an array. Records lie one a line, or in one array, or in
    an array under a key of one object (`{"data": [...]}`), or one after another over several lines.

    Args:
      blocks: the content of a file, in UTF-8.
      where: how messages call the file.
      report: counts the documents, and the records without one by reason, with their line.
      text_key: where a record has its text: a string, or a list of strings, which are its lines.
    """
    stream = open_blocks(blocks)
    begin = stream.read(BLOCK_BYTES)
    rest = itertools.chain([begin], iter(lambda: stream.read(BLOCK_BYTES), b""))
    if _is_one_value(begin):
        yield from _Values(open_blocks(rest), where, report, text_key).read()
        return
    for number, raw in read_lines(rest, where, report, max_bytes=MAX_RECORD_BYTES, cut=False):
        if not raw or raw.isspace():
            continue
        here = f"{where}:{number}"
        line = decode_line(raw, where, number, report)
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            if line:
                report.add_problem("line skipped: not JSON", here, error)
            continue
        if isinstance(record, dict) and text_key in record:
            yield from finish_value(record[text_key], here, report)
            continue
        if _has_records(record):
            yield from _Values(io.BytesIO(line.encode()), where, report, text_key, number).read()
            continue
        found = ", ".join(list(record)[:8]) if isinstance(record, dict) else type(record)
        report.add_problem(f"line skipped: no {text_key!r} ({OPTION})", here, found)


def _is_one_value(begin: bytes) -> bool:
    """Returns whether the first line is not a record of its own, but the beginning of a value."""
    first, end, following = begin.lstrip().replace(b"\r", b"\n").partition(b"\n")
    first = first.rstrip()
    if not first.startswith((b"{", b"[")):
        return False
    if not end:  # so long a line may be the whole file: an array is read as it comes
        return len(begin) >= BLOCK_BYTES and bool(_COMPACT.match(first))
    if _parses(first):
        return False
    # A line that was cut off is followed by whole ones; a value that goes on is not, but for an
    # array that has an object a line.
    following = following.lstrip().partition(b"\n")[0].rstrip()
    return first in (b"[", b"{") or first.endswith((b",", b"[", b"{")) or not _parses(following)


def _parses(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _has_records(value: object) -> bool:
    """Returns whether a value is an array of records, or an object with one."""
    if isinstance(value, list):
        return any(isinstance(each, dict | str) for each in value)
    return isinstance(value, dict) and any(
        isinstance(each, list)
        and any(isinstance(record, dict) or key in _CONTAINERS for record in each)
        for key, each in value.items()
    )


class _Values:
    """Reads JSON values record by record; holds one of them at a time."""

    def __init__(
        self, stream: BinaryIO, where: str, report: ReadReport, text_key: str, line: int = 1
    ) -> None:
        self._stream, self._where, self._report, self._key = stream, where, report, text_key
        self._buffer, self._at, self._is_end = "", 0, False
        self._tail = b""  # bytes of a letter that goes on
        self._line = line

    def read(self) -> Iterator[str]:
        while letter := self._peek():
            if letter == "[":
                self._at += 1
                yield from self._read_array(are_records=True)
            elif letter == "{":
                yield from self._read_object()
            elif letter in "]}":  # of what was broken
                self._at += 1
            elif (value := self._decode())[0]:
                self._skip(type(value[1]), f"{self._where}:{self._line}")

    def _read_array(self, *, are_records: bool) -> Iterator[str]:
        """Yields the texts of an array's records.

        Args:
          are_records: whether its strings are records, and its objects without a text are lost
            ones; if not, that is so only once one of them has a text.
        """
        unsaid = []  # the first few objects without a text
        while (letter := self._peek()) and letter != "]":
            here = f"{self._where}:{self._line}"
            is_whole, value = self._decode()
            if not is_whole:
                continue
            if isinstance(value, dict) and self._key in value:
                yield from finish_value(value[self._key], here, self._report)
                are_records = True
            elif isinstance(value, str) and are_records:
                yield from finish_value(value, here, self._report)
            else:
                found = ", ".join(list(value)[:8]) if isinstance(value, dict) else type(value)
                if are_records or len(unsaid) < KEPT_MESSAGES:
                    unsaid.append((found, here))
            while are_records and unsaid:
                self._skip(*unsaid.pop(0))
        self._at += 1

    def _read_object(self) -> Iterator[str]:
        """Yields the text of an object, or those of the records in its arrays."""
        line, keys, before = self._line, [], self._report.documents
        if (record := self._read_small_record()) is not None:
            yield from finish_value(record[self._key], f"{self._where}:{line}", self._report)
            return
        self._at += 1
        while (letter := self._peek()) and letter != "}":
            if letter != '"':
                self._recover("expected a name in quotes")
                return
            is_whole, key = self._decode()
            if not is_whole:
                return
            if self._peek() != ":":
                self._recover("expected a colon after a name")
                return
            keys.append(key)
            self._at += 1
            if self._peek() == "[" and key != self._key:
                self._at += 1
                yield from self._read_array(are_records=key in _CONTAINERS)
                continue
            is_whole, value = self._decode()
            if is_whole and key == self._key:
                yield from finish_value(value, f"{self._where}:{line}", self._report)
        self._at += 1
        if self._report.documents == before and self._key not in keys:
            self._skip(", ".join(keys[:8]), f"{self._where}:{line}")

    def _read_small_record(self) -> dict | None:
        """Returns the object that begins here, if it has a text, and goes on behind it."""
        if len(self._buffer) - self._at < _SMALL and not self._is_end:
            self._fill(_SMALL)
        try:
            value, end = _DECODER.raw_decode(self._buffer, self._at)
        except (ValueError, RecursionError):
            return None
        if self._key not in value:
            return None
        self._line += self._buffer.count("\n", self._at, end)
        self._at = end
        return value

    def _skip(self, found: object, here: str) -> None:
        self._report.add_problem(f"record skipped: no {self._key!r} ({OPTION})", here, found)

    def _decode(self) -> tuple[bool, object]:
        """Returns (True, the value that begins here), or (False, None) after going on behind it."""
        self._peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._buffer, self._at)
            except (ValueError, RecursionError) as error:
                # What seems wrong at the end of the buffer may only go on in the next block.
                place = getattr(error, "pos", 0)
                may_go_on = place > len(self._buffer) - 16 or "nterminated" in str(error)
                if may_go_on and not self._is_end:
                    if len(self._buffer) - self._at > MAX_RECORD_BYTES:
                        self._recover(f"longer than {MAX_RECORD_BYTES:,} letters")
                        return False, None
                    self._fill(max(BLOCK_BYTES, len(self._buffer) - self._at))
                    continue
                self._recover(getattr(error, "msg", error), place)
                return False, None
            if end == len(self._buffer) and not self._is_end:
                self._fill(BLOCK_BYTES)  # a number may go on
                continue
            self._line += self._buffer.count("\n", self._at, end)
            self._at = end
            return True, value

    def _recover(self, reason: object, place: int = 0) -> None:
        """Counts what is broken, and goes on at the next thing that looks like a record."""
        place = max(place, self._at)
        line = self._line + self._buffer.count("\n", self._at, place)
        self._report.add_problem("record skipped: not JSON", f"{self._where}:{line}", reason)
        self._at += 1
        while not (match := _NEXT_RECORD.search(self._buffer, self._at)) and not self._is_end:
            kept = max(self._at, len(self._buffer) - 64)
            self._line += self._buffer.count("\n", self._at, kept)
            self._at = kept
            self._fill(BLOCK_BYTES)
        end = match.end() if match else len(self._buffer)
        self._line += self._buffer.count("\n", self._at, end)
        self._at = end

    def _peek(self) -> str:
        """Returns the next letter that is no white space and no comma; '' at the end."""
        while True:
            end = _SPACE.match(self._buffer, self._at).end()
            self._line += self._buffer.count("\n", self._at, end)
            self._at = end
            if end < len(self._buffer) or self._is_end:
                return self._buffer[end : end + 1]
            self._fill(BLOCK_BYTES)

    def _fill(self, size: int) -> None:
        """Takes in more of the file, and drops what has been read."""
        content = self._stream.read(size)
        self._is_end = not content
        content = self._tail + content
        self._tail = b""
        if not self._is_end:  # the last letter may be cut: its bytes wait for the others
            stop = len(content)
            for back in range(1, min(4, stop) + 1):
                if content[stop - back] & 0xC0 != 0x80:
                    width = content[stop - back]
                    need = 1 + (width >= 0xC0) + (width >= 0xE0) + (width >= 0xF0)
                    stop -= back if need > back else 0
                    break
            content, self._tail = content[:stop], content[stop:]
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            text = content.decode("utf-8", "replace")
            self._report.add_problem("invalid UTF-8 replaced", f"{self._where}:{self._line}", error)
        # An old Mac's line ends; in a string they can only stand as an escape.
        self._buffer = self._buffer[self._at :] + text.replace("\r\n", "\n").replace("\r", "\n")
        self._at = 0


def finish_value(value: object, here: str, report: ReadReport) -> Generator[str]:
    """Yields the document that a field of a record holds.

    Args:
      value: a string, or a list of strings, which are its lines.
      here: how messages call the record.
      report: counts the document, or why there is none.
    """
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = "\n".join(value)
    if not isinstance(value, str):
        report.add_problem("record skipped: its text is not a string", here, type(value).__name__)
        return
    if "\0" in value:
        value = value.replace("\0", "")
        report.add_problem("NUL bytes removed", here)
    try:
        value.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can spell
        value = value.encode("utf-8", "replace").decode()
        report.add_problem("invalid Unicode replaced", here)
    yield from finish_document(_RETURNS.sub("\n", value), here, report)
