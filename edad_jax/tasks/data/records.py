# SPDX-License-Identifier: Apache-2.0
"""Records of files: JSON lines and tables, each with the number of its line."""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from edad_jax.data.text.reading import MAX_RECORD_BYTES, ReadReport

csv.field_size_limit(MAX_RECORD_BYTES)  # Python's own is 128 kB, less than a long report


def json_records(
    lines: Sequence[str], name: str, split: str, report: ReadReport
) -> list[tuple[int, dict[str, Any]]]:
    """Returns [(line number, object)] of JSON lines; a line that is none is counted and skipped.

    Args:
      lines: of the file.
      name: of the file, for messages.
      split: that the lines are of.
      report: counts what is skipped.
    """
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line or line.isspace():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            skip_record("row skipped: not JSON", f"{name}:{number}", error, split, report)
            continue
        if isinstance(row, dict):
            rows.append((number, row))
        else:
            kind = type(row).__name__
            skip_record("row skipped: not a JSON object", f"{name}:{number}", kind, split, report)
    return rows


def table_records(
    lines: Sequence[str],
    name: str,
    split: str,
    delimiter: str,
    has_header: bool,
    report: ReadReport,
) -> tuple[list[tuple[int, dict[str, Any]]], list[str]]:
    """Returns [(line number, row)] and the names of the columns: of the header, or numbers.

    Args:
      lines: of the file.
      name: of the file, for messages.
      split: that the lines are of.
      delimiter: between columns; of a tab, quotes are letters.
      has_header: whether the first row names the columns.
      report: counts what is skipped.
    """
    parsed = [each for each in _parse_table(lines, delimiter) if each[1]]  # less blank lines
    whole = [fields for _, fields in parsed if isinstance(fields, list)]
    if not whole:
        names = []
    elif has_header:
        names = [column.strip() for column in whole[0]]
        parsed.pop(next(i for i, (_, fields) in enumerate(parsed) if fields is whole[0]))
    else:
        width = Counter(len(fields) for fields in whole).most_common(1)[0][0]
        names = [str(number) for number in range(width)]
    rows = []
    for number, fields in parsed:
        if isinstance(fields, csv.Error):
            skip_record("row skipped: broken quotes", f"{name}:{number}", fields, split, report)
        elif len(fields) != len(names):
            detail = f"{len(fields)}, not {len(names)}"
            skip_record("row skipped: number of fields", f"{name}:{number}", detail, split, report)
        else:
            rows.append((number, dict(zip(names, fields, strict=True))))
    return rows, names


def _parse_table(
    lines: Sequence[str], delimiter: str
) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Yields (line number, fields) of each row; an error costs the line that it begins in.

    A quote that is never closed would swallow the rows after it, so reading goes on at the next
    line. In a .tsv most quotes are letters: there a row of several lines is taken for one only
    if its first and last are not rows by themselves.
    """
    start, width = 0, 0
    while start < len(lines):
        reader = csv.reader(
            (f"{lines[number]}\n" for number in range(start, len(lines))),
            delimiter=delimiter,
            strict=True,
        )
        begin = start
        try:
            for fields in reader:
                end = begin + reader.line_num
                alone = [line.split("\t") for line in lines[start:end]] if end - start > 1 else []
                if delimiter == "\t" and alone and len(alone[0]) == len(alone[-1]) == width:
                    yield from enumerate(alone, start=start + 1)
                else:
                    width = width or len(fields)
                    yield start + 1, fields
                start = end
        except csv.Error as error:
            yield start + 1, lines[start].split("\t") if delimiter == "\t" else error
            start += 1


def skip_record(reason: str, here: str, detail: object, split: str, report: ReadReport) -> None:
    """Counts a record that is skipped, for its reason and for its split."""
    report.add_problem(reason, here, detail)
    total = f"{split}: rows skipped"
    report.problems[total] = report.problems.get(total, 0) + 1
