# SPDX-License-Identifier: Apache-2.0
"""Tables line up, so that they can be read on a terminal too."""

from edad_jax.report.tables import markdown_table


def test_markdown_table_aligns_numbers_and_shows_what_is_missing():
    rows = [
        {"model": "a|b", "parameters": 15_000_000, "accuracy": 0.123456},
        {"model": "student", "parameters": 3},
    ]
    assert markdown_table(rows, ["model", "parameters", "accuracy"]).split("\n") == [
        "| model   | parameters | accuracy |",
        "| ------- | ---------: | -------: |",
        "| a\\|b    | 15,000,000 |   0.1235 |",
        "| student |          3 |        – |",
    ]
