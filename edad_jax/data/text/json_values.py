# SPDX-License-Identifier: Apache-2.0
"""Documents from JSON: an object a line, or a file that is one value."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from edad_jax.data.text.reading import (
    MAX_RECORD_BYTES,
    ReadReport,
    decode_line,
    finish_document,
    read_lines,
)

_RETURNS = re.compile("\r++\n|\r")


def read_json(
    blocks: Iterable[bytes], where: str, report: ReadReport, text_key: str
) -> Iterator[str]:
    """Yields the documents of JSON lines."""
    for number, raw in read_lines(blocks, where, report, max_bytes=MAX_RECORD_BYTES, cut=False):
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
        if not isinstance(record, dict) or text_key not in record:
            found = ", ".join(list(record)[:8]) if isinstance(record, dict) else type(record)
            report.add_problem(
                f"line skipped: no {text_key!r} (--config.corpus.text_key=...)", here, found
            )
            continue
        yield from finish_value(record[text_key], here, report)


def finish_value(value: object, here: str, report: ReadReport) -> Iterator[str]:
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
