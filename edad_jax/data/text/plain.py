# SPDX-License-Identifier: Apache-2.0
"""Documents from plain text: by blank lines, a line each, or as WikiExtractor marks them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

from edad_jax.data.text.encodings import BYTE_ORDER_MARKS, find_wide
from edad_jax.data.text.reading import (
    MAX_DOCUMENT_CHARACTERS,
    MAX_LINE_BYTES,
    ReadReport,
    decode_line,
    finish_document,
    is_blank,
    read_lines,
)

_DOC = re.compile(rb"<doc (id|url|title|docid)=.*>\s*")
_DOC_END = re.compile(rb"</doc>\s*")
_JSON = re.compile(rb'\{\s*"[^"]{1,100}"\s*:|\[\s*(\{\s*"|")')
# What is no plain text, whatever its file is called: how it begins, and what it is.
_OTHERS = (
    (_JSON, "JSON (name it .jsonl or .json)"),
    (re.compile(rb"%PDF-\d"), "PDF (take the text out first)"),
    (re.compile(rb"\{\\rtf\d"), "RTF (take the text out first)"),
    (re.compile(rb"(?i)<(!doctype html|html)\b"), "HTML (take the text out first)"),
)
_XML = (b"<?xml", b"<!DOCTYPE article", b"<article", b"<pmc-articleset", b"<PubmedArticleSet")
_LOOKED_AT = 4096  # bytes at the beginning of a file without an ending
_CONTROLS = bytes({*range(32)} - {*b"\t\n\r\f\v\x1b"})


def guess_format(begin: bytes) -> str:
    """Returns .xml, .jsonl or .txt for the beginning of a file, '' for what is no text."""
    if begin.startswith(BYTE_ORDER_MARKS):
        return ".txt"
    begin = begin[:_LOOKED_AT]
    controls = len(begin) - len(begin.translate(None, _CONTROLS))
    if not find_wide(begin) and controls * 50 > len(begin):
        return ""
    begin = begin.lstrip()
    if begin.startswith(_XML):
        return ".xml"
    return ".jsonl" if _JSON.match(begin) else ".txt"


def read_text(
    blocks: Iterable[bytes], where: str, report: ReadReport, *, lines: bool = False
) -> Iterator[str]:
    """Yields the documents of plain text, between which stand lines that show nothing.

    Args:
      blocks: the content of a file, in UTF-8.
      where: how messages call the file.
      report: counts the documents, and what was repaired.
      lines: whether each line is a document.
    """
    numbered = read_lines(blocks, where, report, max_bytes=MAX_LINE_BYTES, cut=True)
    first = next(((n, raw) for n, raw in numbered if raw and not raw.isspace()), None)
    if first is None:
        return
    numbered = itertools.chain([first], numbered)
    for pattern, kind in _OTHERS:
        if pattern.match(first[1].lstrip()):
            report.add_problem(f"file looks like {kind}: read as plain text all the same", where)
    if _DOC.fullmatch(first[1]):
        yield from _read_docs(numbered, where, report)
    elif lines:
        yield from _read_each_line(numbered, where, report)
    else:
        yield from _read_paragraphs(numbered, where, report)


def _read_docs(
    numbered: Iterable[tuple[int, bytes]], where: str, report: ReadReport
) -> Iterator[str]:
    """Yields the <doc> blocks of a file by WikiExtractor: a title, then paragraphs."""
    lines: list[str] = []
    size = first = 0
    has_title = False
    for number, raw in itertools.chain(numbered, [(0, b"</doc>")]):
        is_border = bool(_DOC.fullmatch(raw) or _DOC_END.fullmatch(raw))
        line = "" if is_border else decode_line(raw, where, number, report)
        if (is_border or size + len(line) > MAX_DOCUMENT_CHARACTERS) and lines:
            if is_border and has_title and len(lines) == 1:
                report.add_problem("document skipped: only a title", f"{where}:{first}")
            else:
                yield from finish_document("\n".join(lines), f"{where}:{first}", report)
            lines, size, has_title = [], 0, False
        has_title = has_title or is_border  # what was cut for its length goes on without one
        if not is_blank(line):
            first = first if lines else number
            lines.append(line)
            size += len(line) + 1


def _read_paragraphs(
    numbered: Iterable[tuple[int, bytes]], where: str, report: ReadReport
) -> Iterator[str]:
    lines: list[str] = []
    size = first = 0
    for number, raw in numbered:
        line = decode_line(raw, where, number, report) if raw else ""
        ends = not raw or (bool(line) and is_blank(line))  # a line that was skipped ends nothing
        if (ends or size + len(line) > MAX_DOCUMENT_CHARACTERS) and lines:
            if not ends:
                report.add_problem(
                    f"document longer than {MAX_DOCUMENT_CHARACTERS:,} characters cut "
                    "(is there a blank line between documents? If each line is one: "
                    "--config.corpus.lines=True)",
                    f"{where}:{first}",
                )
            yield from finish_document("\n".join(lines), f"{where}:{first}", report)
            lines, size = [], 0
        if not is_blank(line):
            first = first if lines else number
            lines.append(line)
            size += len(line) + 1
    if lines:
        yield from finish_document("\n".join(lines), f"{where}:{first}", report)


def _read_each_line(
    numbered: Iterable[tuple[int, bytes]], where: str, report: ReadReport
) -> Iterator[str]:
    for number, raw in numbered:
        line = decode_line(raw, where, number, report)
        if not is_blank(line):
            yield from finish_document(line, f"{where}:{number}", report)
