# SPDX-License-Identifier: Apache-2.0
"""Documents from plain text, by blank lines or a line each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from edad_jax.data.text.reading import (
    MAX_DOCUMENT_CHARACTERS,
    MAX_LINE_BYTES,
    ReadReport,
    decode_line,
    finish_document,
    is_blank,
    read_lines,
)


def read_text(blocks: Iterable[bytes], where: str, report: ReadReport) -> Iterator[str]:
    """Yields the documents of plain text: a line that shows nothing stands between them."""
    lines: list[str] = []
    size = first = 0
    for number, raw in read_lines(blocks, where, report, max_bytes=MAX_LINE_BYTES, cut=True):
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


def read_each_line(blocks: Iterable[bytes], where: str, report: ReadReport) -> Iterator[str]:
    """Yields every line of plain text that shows something as a document."""
    for number, raw in read_lines(blocks, where, report, max_bytes=MAX_LINE_BYTES, cut=True):
        line = decode_line(raw, where, number, report)
        if not is_blank(line):
            yield from finish_document(line, f"{where}:{number}", report)
