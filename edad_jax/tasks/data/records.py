# SPDX-License-Identifier: Apache-2.0
"""Records of files: JSON lines and tables, each with the number of its line."""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from edad_jax.data.text.reading import MAX_RECORD_BYTES, ReadReport

csv.field_size_limit(MAX_RECORD_BYTES)  # Python's own is 128 kB, less than a long report


class Skipped(NamedTuple):
    """An example, or a record of one, that cannot be used."""

    problems: Sequence[tuple[str, str, object]]  # (reason, where, detail), as `add_problem` takes

    def tell(self, report: ReadReport, kind: str) -> None:
        """Counts each problem, and the example once, among those of a kind: "train: rows"."""
        for problem in self.problems:
            report.add_problem(*problem)
        # Without a message: the problems have theirs.
        total = f"{kind} skipped"
        report.problems[total] = report.problems.get(total, 0) + 1


def skip(reason: str, where: str, detail: object = "") -> Skipped:
    """Returns an example that cannot be used for a single reason."""
    return Skipped(((reason, where, detail),))


class Records(NamedTuple):
    """What a file holds."""

    rows: list[tuple[int, dict[str, Any]]]  # with the number of the line that each begins in
    columns: list[str]  # of all rows together
    skipped: list[Skipped]
    headers: int = 0  # rows that name the columns again, as where tables were joined to one


def json_records(lines: Sequence[str], name: str) -> Records:
    """Returns the objects of JSON lines.

    Args:
      lines: of the file.
      name: of the file, for messages.
    """
    rows, skipped = [], []
    for number, line in enumerate(lines, start=1):
        if not line or line.isspace():
            continue
        here = f"{name}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            skipped.append(skip("row skipped: not JSON", here, error))
            continue
        if isinstance(row, dict):
            rows.append((number, row))
        else:
            skipped.append(skip("row skipped: not a JSON object", here, type(row).__name__))
    return Records(rows, list(dict.fromkeys(key for _, row in rows for key in row)), skipped)


def choose_delimiter(lines: Sequence[str]) -> str:
    """Returns what is between the columns of a .csv: a comma, if its first line has one.

    Else a semicolon, as spreadsheets write where the comma is a decimal point, a tab or a bar.
    """
    head = next((line for line in lines if line.strip()), "")
    return "," if "," in head else next((each for each in ";\t|" if each in head), ",")


def table_records(lines: Sequence[str], name: str, delimiter: str, *, has_header: bool) -> Records:
    """Returns the rows of a table; its columns are named by the header, or by numbers.

    Args:
      lines: of the file.
      name: of the file, for messages.
      delimiter: between columns; of a tab, quotes are letters.
      has_header: whether the first row names the columns.
    """
    parsed = [each for each in _parse_table(lines, delimiter) if each[1]]  # less blank lines
    whole = [fields for _, fields in parsed if isinstance(fields, list)]
    if not whole:
        columns = []
    elif has_header:
        columns = [column.strip() for column in whole[0]]
        parsed.pop(next(i for i, (_, fields) in enumerate(parsed) if fields is whole[0]))
    else:
        width = Counter(len(fields) for fields in whole).most_common(1)[0][0]
        columns = [str(number) for number in range(width)]
    rows, skipped, headers = [], [], 0
    for number, fields in parsed:
        here = f"{name}:{number}"
        if isinstance(fields, csv.Error):
            skipped.append(skip("row skipped: broken quotes", here, fields))
        elif has_header and len(fields) > 1 and [each.strip() for each in fields] == columns:
            headers += 1
        elif len(fields) != len(columns):
            detail = f"{len(fields)}, not {len(columns)}"
            skipped.append(skip("row skipped: number of fields", here, detail))
        else:
            rows.append((number, dict(zip(columns, fields, strict=True))))
    return Records(rows, columns, skipped, headers)


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
