# SPDX-License-Identifier: Apache-2.0
"""A table's three files, and what becomes of a table that lies in their place."""

import json

import pytest

from reproduction.output import write_table
from reproduction.table import Report

ROWS = ("BERT", "EDAD")


@pytest.fixture
def write(tmp_path):
    """Returns a function that writes a table, and returns the names of the files beside it."""

    def write(scale="small", teacher="bert", rows=ROWS, *, has_picture=True, **more):
        table = {"scale": scale, "teacher": teacher, "rows": [{"name": row} for row in rows]} | more
        draw = (lambda path: path.write_text(str(table))) if has_picture else None
        markdown = f"# {table}\n![scores](table-4.png)\n"
        path = write_table(tmp_path / "out", "table-4", Report(table, [], draw), markdown)
        assert path.read_text() == markdown and path.name == "table-4.md"
        assert json.loads(path.with_suffix(".json").read_text()) == table
        assert path.with_suffix(".png").exists() == has_picture
        return {each.name for each in path.parent.iterdir()}

    return write


def files(*names):
    return {f"{name}.{suffix}" for name in names for suffix in ("md", "png", "json")}


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        ({"scale": "paper"}, {}, "table-4-paper-bert"),
        ({}, {"teacher": "e5-v1.1"}, "table-4-small-bert"),
        ({"teacher": "e5-v1.1"}, {}, "table-4-small-e5-v1.1"),
        ({"data": "nsmc"}, {"data": "news.csv"}, "table-4-small-bert-nsmc"),
        ({"teacher": "", "models": "a-b"}, {"models": "a"}, "table-4-small-a-b"),
        ({"scale": "", "teacher": ""}, {}, "table-4-before"),
        ({}, {"rows": ["EDAD"]}, "table-4-small-bert"),
    ],
)
def test_a_table_that_the_new_one_does_not_stand_for_is_kept_with_its_picture(
    write, tmp_path, first, second, kept
):
    write(**first)
    before = (tmp_path / "out" / "table-4.md").read_text()
    assert write(**second) == files("table-4", kept)
    after = (tmp_path / "out" / f"{kept}.md").read_text()
    assert after == before.replace("](table-4.png)", f"]({kept}.png)") != before


def test_a_table_of_the_same_runs_takes_the_place_of_the_one_before(write):
    write(rows=["EDAD"])
    write()
    assert write(rows=["EDAD", "exBERT"]) == files("table-4")


def test_a_picture_goes_where_there_is_nothing_to_draw(write):
    write()
    assert write(has_picture=False) == files("table-4") - {"table-4.png"}
