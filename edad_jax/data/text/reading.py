# SPDX-License-Identifier: Apache-2.0
"""Bytes of a file as lines of text: decompression, lines, and the count of what went wrong.

Nothing here holds a whole file, and nothing that is wrong in one file stops the others: a
problem is counted by its reason in a `ReadReport`, and the first ones are kept word for word.
"""

from __future__ import annotations

import bz2
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from edad_jax.data.text.bombs import CountedFile, is_bomb

COMPRESSIONS = (".gz", ".xz", ".bz2", ".zst")
BLOCK_BYTES = 1 << 16  # read at once; a block of .xz may unpack to thousands of times its size
MAX_LINE_BYTES = 1 << 20  # a longer line of plain text is cut at white space
MAX_RECORD_BYTES = 1 << 28  # a longer line of jsonl is skipped: half a record has no meaning
MAX_DOCUMENT_CHARACTERS = 1 << 22  # a longer document is cut into several
KEPT_MESSAGES = 20
_LONE_RETURNS = re.compile(rb"\r++\n?")
# Nothing to the reader, and no space to Python: zero width, fillers of Hangul, a braille blank.
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u115f\u1160\u3164\uffa0\u2800\u180e"


def shown(text: object) -> str:
    r"""Returns a text that any terminal and any UTF-8 file can take.

    What is not UTF-8 in the name of a file becomes `\xe9`, and half a surrogate pair `\ud800`.
    """
    text = str(text)
    if text.isascii():
        return text
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()


def is_blank(line: str) -> bool:
    """Returns whether a line shows nothing: white space of any script, or zero-width letters."""
    return all(letter.isspace() or letter in _INVISIBLE for letter in line)


@dataclass
class ReadReport:
    """What a reader gave and what it could not: counts by reason, and the first messages."""

    documents: int = 0
    text_bytes: int = 0  # UTF-8 bytes of the documents given
    file_bytes: int = 0  # bytes of the files read so far, compressed where they are
    total_file_bytes: int = 0  # bytes of all the files; 0 where this is not known
    problems: dict[str, int] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    left_out: dict[str, list] = field(default_factory=dict)  # why -> [how many files, the first]
    skipped: dict[str, int] = field(default_factory=dict)  # records of labelled data, by split

    def leave_out(self, why: str, name: object) -> None:
        """Counts a file that is not meant to be read: by its ending, or another word for it."""
        found = self.left_out.setdefault(shown(why), [0, shown(name)])
        found[0] += 1

    def add_left_out(self, left_out: dict[str, list]) -> None:
        """Adds what another reader left out."""
        for why, (count, first) in left_out.items():
            self.left_out.setdefault(why, [0, first])[0] += count

    def add_problem(self, reason: str, where: str, detail: object = "") -> None:
        """Counts a problem; keeps 'where: reason (detail)' if it is among the first."""
        self.problems[reason] = self.problems.get(reason, 0) + 1
        if len(self.messages) < KEPT_MESSAGES:
            self.messages.append(shown(f"{where}: {reason}" + (f" ({detail})" if detail else "")))

    def add_document(self, text: str) -> None:
        """Counts a document that was given."""
        self.documents += 1
        self.text_bytes += len(text.encode("utf-8", "replace"))

    def add_report(self, counts: dict) -> None:
        """Adds what `as_dict` gave of a reader that read the files after these."""
        self.documents += counts["documents"]
        self.text_bytes += counts["text_bytes"]
        for reason, count in counts["problems"].items():
            self.problems[reason] = self.problems.get(reason, 0) + count
        self.messages = [*self.messages, *counts["messages"]][:KEPT_MESSAGES]
        self.add_left_out(counts.get("left_out", {}))

    def summary(self) -> str:
        """Returns the counts and the first messages as text, a line each."""
        lines = [f"{self.documents:,} documents, {self.text_bytes / 1e6:,.1f} MB of text"]
        for reason, count in sorted(self.problems.items()):
            lines.append(f"  {count:,} x {reason}")
        lines.extend(f"    {message}" for message in self.messages)
        if sum(self.problems.values()) > len(self.messages):
            lines.append("    ...")
        for why, (count, first) in sorted(self.left_out.items()):
            lines.append(f"  {count:,} x left out: {why} (the first: {first})")
        return "\n".join(lines)

    def as_dict(self) -> dict:
        """Returns the counts and the first messages, ready for JSON."""
        return {
            "documents": self.documents,
            "text_bytes": self.text_bytes,
            "problems": dict(sorted(self.problems.items())),
            "messages": list(self.messages),
        } | ({"left_out": dict(sorted(self.left_out.items()))} if self.left_out else {})


def read_blocks(file: BinaryIO, compression: str, name: str, report: ReadReport) -> Iterator[bytes]:
    """Yields the bytes of an open file, decompressed; what comes before damage is kept.

    Args:
      file: open for reading in binary mode.
      compression: one of `COMPRESSIONS`, anything else for none.
      name: how messages call the file.
      report: told of damage, and of nothing else.
    """
    packed = CountedFile(file)
    try:
        if compression == ".gz":
            blocks = _decompress(packed, lambda: zlib.decompressobj(wbits=31), name, report)
        elif compression == ".xz":
            blocks = _decompress(packed, lzma.LZMADecompressor, name, report)
        elif compression == ".bz2":
            blocks = _decompress(packed, bz2.BZ2Decompressor, name, report)
        elif compression == ".zst":
            blocks = _decompress_zstd(packed)
        else:
            blocks = iter(lambda: packed.read(BLOCK_BYTES), b"")
        unpacked = 0
        for block in blocks:
            unpacked += len(block)
            if is_bomb(packed.size, unpacked, name, report.add_problem):
                return
            yield block
    except (OSError, zlib.error, lzma.LZMAError) as error:
        report.add_problem("file is damaged or cut short: kept what could be read", name, error)


def _decompress(
    file: CountedFile, make_decoder: Callable, name: str, report: ReadReport
) -> Iterator[bytes]:
    """Yields what a chain of compressed members holds, one after another."""
    decoder, members, most = None, 0, ()
    while block := file.read(BLOCK_BYTES):
        while block:
            if decoder is None:
                if members:
                    block = block.lstrip(b"\0")  # gzip and xz allow padding between members
                if not block:
                    break
                decoder = make_decoder()
                # Of these a block may unpack to gigabytes; zlib's to a thousand times its size.
                most = (MAX_LINE_BYTES,) if hasattr(decoder, "needs_input") else ()
            try:
                yield decoder.decompress(block, *most)
                while most and not decoder.needs_input and not decoder.eof:
                    yield decoder.decompress(b"", *most)
            except (zlib.error, lzma.LZMAError, OSError):
                if not members:
                    raise
                report.add_problem("bytes after the end of the compressed data", name)
                return
            block = b""
            if decoder.eof:
                block, decoder, members = decoder.unused_data, None, members + 1
    if decoder is not None:
        if hasattr(decoder, "flush"):
            yield decoder.flush()
        raise OSError("the compressed data ends before its end mark")


def _decompress_zstd(file: CountedFile) -> Iterator[bytes]:
    """Yields what a chain of zstandard frames holds."""
    import pyarrow

    source = pyarrow.PythonFile(file, mode="r")
    stream = pyarrow.CompressedInputStream(source, "zstd")
    while block := stream.read(BLOCK_BYTES):
        yield block


def open_blocks(blocks: Iterable[bytes]) -> io.BufferedReader:
    """Returns blocks of bytes as a file to read from, which holds one of them at a time."""
    return io.BufferedReader(_BlockStream(blocks), BLOCK_BYTES)


class _BlockStream(io.RawIOBase):
    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        while not self._rest and (block := next(self._blocks, None)) is not None:
            self._rest = memoryview(block)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def read_lines(
    blocks: Iterable[bytes],
    name: str,
    report: ReadReport,
    *,
    max_bytes: int,
    cut: bool,
) -> Iterator[tuple[int, bytes]]:
    r"""Yields (number, line) without the line's end; `\n`, `\r\n` and `\r` end a line.

    Memory is bounded by `max_bytes`: a longer line is cut into several at white space
    (`cut=True`), or skipped whole; both are counted, once a line.
    """
    stream = open_blocks(_unify_line_ends(blocks))
    number = 0
    while line := stream.readline(max_bytes + 1):
        number += 1
        if len(line) > max_bytes and not line.endswith(b"\n"):
            reason = f"line longer than {max_bytes:,} bytes {'cut' if cut else 'skipped'}"
            report.add_problem(reason, f"{name}:{number}")
            while len(line) > max_bytes and not line.endswith(b"\n"):
                stop = _cut_position(line, max_bytes) if cut else len(line)
                if cut:
                    yield number, line[:stop]
                line = line[stop:] + stream.readline(max_bytes + 1 - len(line) + stop)
            if not cut or not line.rstrip(b"\n"):
                continue
        yield number, line.removesuffix(b"\n")


def _unify_line_ends(blocks: Iterable[bytes]) -> Iterator[bytes]:
    r"""Yields the blocks with `\n` for every line end.

    Old Macs end lines with `\r`. Several of them before a `\n` are one end: that is what is left
    of a file that was converted twice.
    """
    held = b""  # returns at a block's end: whether a `\n` follows is not known yet
    for block in blocks:
        if held:
            block, held = held + block, b""
        if b"\r" in block:
            body = block.rstrip(b"\r")
            if len(block) - len(body) <= BLOCK_BYTES:  # more are no line ends that were converted
                block, held = body, block[len(body) :]
            block = block.replace(b"\r\n", b"\n")
            if b"\r" in block:
                block = _LONE_RETURNS.sub(_line_ends, block)
        yield block
    yield b"\n" * len(held)


def _line_ends(match: re.Match) -> bytes:
    return b"\n" if match[0].endswith(b"\n") else b"\n" * len(match[0])


def _cut_position(line: bytes, max_bytes: int) -> int:
    """Returns where to cut a longer line: at its last space, else between two letters of UTF-8."""
    stop = line.rfind(b" ", max_bytes // 2, max_bytes)
    if stop < 0:
        stop = max_bytes
        while stop > 1 and line[stop] & 0xC0 == 0x80:
            stop -= 1
    return stop


def decode_line(line: bytes, name: str, number: int, report: ReadReport) -> str:
    """Returns a line as text; '' if it is not text at all. Counts what had to be repaired."""
    try:
        text = line.decode("utf-8")
        bad = 0
    except UnicodeDecodeError as error:
        text = line.decode("utf-8", "replace")
        bad = text.count("\ufffd")
        report.add_problem("invalid UTF-8 replaced", f"{name}:{number}", error)
    if "\0" in text:
        bad += text.count("\0")
        text = text.replace("\0", "")
        report.add_problem("NUL bytes removed", f"{name}:{number}")
    if bad * 4 > len(line):
        report.add_problem(
            "line skipped: over a quarter of it is not text (--config.corpus.encoding=...)",
            f"{name}:{number}",
        )
        return ""
    return text


def finish_document(text: str, where: str, report: ReadReport) -> Iterator[str]:
    """Yields the text, cut in several if it is too long, none if it is blank; counts it."""
    if not text or text.isspace():
        report.add_problem("document without text", where)
        return
    if len(text) > MAX_DOCUMENT_CHARACTERS:
        report.add_problem(
            f"document longer than {MAX_DOCUMENT_CHARACTERS:,} characters cut", where
        )
    while len(text) > MAX_DOCUMENT_CHARACTERS:
        half = MAX_DOCUMENT_CHARACTERS // 2
        stop = text.rfind("\n", half, MAX_DOCUMENT_CHARACTERS)
        stop = stop if stop > 0 else text.rfind(" ", half, MAX_DOCUMENT_CHARACTERS)
        stop = stop if stop > 0 else MAX_DOCUMENT_CHARACTERS
        report.add_document(text[:stop])
        yield text[:stop]
        text = text[stop:]
    report.add_document(text)
    yield text
