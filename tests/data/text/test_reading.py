# SPDX-License-Identifier: Apache-2.0
"""Lines out of blocks, wherever the blocks end and however long the lines are."""

import pytest

from edad_jax.data.text.reading import ReadReport, read_lines

CUT = {"line longer than 8 bytes cut": 1}
SKIPPED = {"line longer than 8 bytes skipped": 1}
BRAIN = "뇌".encode()  # three bytes


@pytest.mark.parametrize("block_bytes", [1, 3, 7, 100])
@pytest.mark.parametrize(
    ("content", "cut", "expected", "problems"),
    [
        (b"", True, [], {}),
        (b"a\n\r\nb\r\n\n", True, [(1, b"a"), (2, b""), (3, b"b"), (4, b"")], {}),
        (b"12345678\n12345678", False, [(1, b"12345678"), (2, b"12345678")], {}),
        (b"a\nabcd ef ghi\r\nb", True, [(1, b"a"), (2, b"abcd ef"), (2, b" ghi"), (3, b"b")], CUT),
        (b"one\n123456789\n\ntwo", False, [(1, b"one"), (3, b""), (4, b"two")], SKIPPED),
        (BRAIN * 5 + b"\n", True, [(1, BRAIN * 2), (1, BRAIN * 2), (1, BRAIN)], CUT),
        (b"1" * 50, True, [(1, b"1" * 8)] * 6 + [(1, b"11")], CUT),
        (b"one\n" + b"1" * 50, False, [(1, b"one")], SKIPPED),
        (b"one\n123456789", False, [(1, b"one")], SKIPPED),
        (b"12345678\r\ntwo", True, [(1, b"12345678"), (2, b"two")], {}),
        (b"a\r\rb\rc", True, [(1, b"a"), (2, b""), (3, b"b"), (4, b"c")], {}),
        (b"a\r\r\nb\nc\r", True, [(1, b"a"), (2, b"b"), (3, b"c")], {}),
    ],
    ids=(
        "empty ends limit cut skipped letters long-cut long-skipped last-skipped crlf "
        "old-mac twice-converted"
    ).split(),
)
def test_lines_do_not_depend_on_where_blocks_end(content, cut, expected, problems, block_bytes):
    blocks = [content[i : i + block_bytes] for i in range(0, len(content), block_bytes)]
    report = ReadReport()
    assert list(read_lines(blocks, "f", report, max_bytes=8, cut=cut)) == expected
    assert report.problems == problems
