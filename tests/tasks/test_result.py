# SPDX-License-Identifier: Apache-2.0
"""What a run says of its scores."""

from edad_jax.tasks.result import describe


def test_a_score_says_of_how_many_examples_it_is_and_how_many_there_were():
    scores = {"f1": 0.5}
    text = describe(
        {
            "means": {"test/f1": {"mean": 0.5, "half": None}},
            "seeds": {"0": {"failed": False, "validation": scores, "test": scores}},
            "examples": {"train": 9, "validation": 12, "test": 1118},
            "notes": {"skipped": {"train": 1, "test": 2}},
            "time_cost": {"train/seconds": 60.0},
        }
    )
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert ["split", "seed", "examples", "f1"] in lines
    assert ["validation", "0", "12", "50.00"] in lines
    assert ["test", "0", "1,118 of 1,120", "50.00"] in lines
