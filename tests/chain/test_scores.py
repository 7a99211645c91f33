# SPDX-License-Identifier: Apache-2.0
"""Scores of a pipeline: F1 as the literature counts it, intervals, the same draws for all."""

import pytest

from chain.scores import Tagged, agreement, best_seed, read_predictions, score_models
from edad_jax.tasks.scores import entity_scores
from tests.tiny_story import RIGHT, SOME


def repeated(tagged, times=30):
    return Tagged(*(column * times for column in tagged))


def test_f1_is_that_of_the_literature_and_lies_in_its_interval():
    scored = score_models({"base": [repeated(SOME)], "int8": [repeated(RIGHT)]}, "base")
    expected = entity_scores(SOME.gold, SOME.predicted)
    for name in ("f1", "precision", "recall"):
        assert scored["base"][name] == pytest.approx(expected[name])
    assert scored["base"]["low"] < scored["base"]["f1"] < scored["base"]["high"]
    assert scored["int8"]["f1"] == scored["int8"]["low"] == scored["int8"]["high"] == 1
    difference = scored["int8"]["difference"]
    assert difference["f1"] == pytest.approx(1 - expected["f1"])
    assert 0 < difference["low"] < difference["f1"] < difference["high"]


def test_a_model_does_not_differ_from_itself_and_seeds_are_averaged():
    scored = score_models({"base": [SOME], "same": [SOME], "two": [SOME, RIGHT]}, "base")
    assert scored["same"]["difference"] == {"f1": 0, "low": 0, "high": 0}
    assert scored["two"]["f1"] == pytest.approx((scored["base"]["f1"] + 1) / 2)
    assert scored["two"]["seeds"] == 2


def test_models_that_were_scored_on_other_sentences_are_refused():
    with pytest.raises(ValueError, match=r"got scores of \[2, 4\] sentences"):
        score_models({"base": [SOME], "other": [repeated(SOME, 2)]}, "base")


def test_models_agree_as_far_as_they_find_the_same():
    nothing = Tagged(SOME.words, SOME.gold, [["O"] * len(words) for words in SOME.words])
    assert agreement(SOME, SOME) == agreement(nothing, nothing) == 1
    assert agreement(SOME, nothing) == 0
    assert agreement(RIGHT, SOME) == pytest.approx(entity_scores(RIGHT.gold, SOME.predicted)["f1"])


def test_predictions_are_read_as_they_were_written(tmp_path):
    (tmp_path / "p.tsv").write_text("a\tO\tB-X\nb\tB-X\tO\n\nc\tO\tO\n\n")
    read = read_predictions(tmp_path / "p.tsv")
    assert read == Tagged([["a", "b"], ["c"]], [["O", "B-X"], ["O"]], [["B-X", "O"], ["O"]])
    (tmp_path / "p.tsv").write_text("a\tO\n")
    with pytest.raises(ValueError, match=r"p.tsv:1: got 'a\\tO', expected a word and two tags"):
        read_predictions(tmp_path / "p.tsv")


def test_the_kept_seed_is_the_best_on_validation_that_did_not_fail():
    seeds = {
        "0": {"failed": False, "validation": {"f1": 0.5}},
        "1": {"failed": True},
        "2": {"failed": False, "validation": {"f1": 0.7}},
    }
    assert best_seed({"seeds": seeds, "headline": "f1"}) == "2"
