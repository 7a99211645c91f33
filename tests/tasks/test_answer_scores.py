# SPDX-License-Identifier: Apache-2.0
"""Scores of answers: cases counted by hand, as the official scripts would count them."""

import pytest

from edad_jax.tasks.answer_scores import answer_score, answer_scores, normalize


@pytest.mark.parametrize(
    ("predicted", "gold", "exact_match", "f1"),
    [
        ("The Cat!", ["cat"], 1, 1),  # case, punctuation, article
        ("a black cat", ["the cat"], 0, 2 / 3),  # of 2 words and 1 word one is shared
        ("cat cat", ["cat"], 0, 2 / 3),  # shared as often as both have it
        ("in  1990", ["in 1990", "1990"], 1, 1),
        ("year 1990", ["in 1990", "1990"], 0, 2 / 3),  # the better of 1/2 and 2/3
        ("theatre", ["atre"], 0, 0),  # an article is a whole word
        ("U.S.", ["US"], 1, 1),
        ("well-known", ["well known"], 0, 0),  # punctuation leaves no space
        ("", ["cat"], 0, 0),
        ("the", ["a"], 1, 0),  # nothing is left of both: equal, but nothing is shared
        ("1990년 2월", ["1990년"], 0, 2 / 3),
    ],
)
def test_squad_scores(predicted, gold, exact_match, f1):
    score = answer_score(predicted, gold, "squad")
    assert score.exact_match == exact_match
    assert score.f1 == pytest.approx(f1)


@pytest.mark.parametrize(
    ("predicted", "gold", "exact_match", "f1"),
    [
        ("1989년 2월 15일", ["1989년 2월 15일"], 1, 1),
        ("임종석이", ["임종석"], 0, 6 / 7),  # 3 letters of 4 and of 3 are shared
        ("〈노아의 방주〉", ["노아의 방주"], 1, 1),  # Korean brackets
        ("《노아》방주", ["노아 방주"], 1, 1),  # which leave a space
        ("노아의 방주", ["노아의방주"], 0, 1),  # F1 does not see spaces, exact match does
        ("the cat", ["cat"], 0, 6 / 9),  # articles stay
        ("A-b.", ["ab"], 1, 1),
        ("", ["금강산"], 0, 0),
    ],
)
def test_korquad_scores_by_letters(predicted, gold, exact_match, f1):
    score = answer_score(predicted, gold, "korquad")
    assert score.exact_match == exact_match
    assert score.f1 == pytest.approx(f1)


def test_exact_match_and_f1_are_each_of_their_best_gold_answer():
    assert answer_score("the a", ["an", "b"], "squad") == (1, 0)


def test_means_are_over_questions():
    scores = answer_scores(["cat", "dog", ""], [["cat"], ["a big dog"], ["x"]], "squad")
    assert scores == {
        "exact_match": pytest.approx(1 / 3),
        "f1": pytest.approx((1 + 2 / 3) / 3),
        "questions": 3,
    }


def test_normalized_answers():
    assert normalize("  An (odd) 'thing',\tthe end. ", "squad") == "odd thing end"
    assert normalize("An (odd) ‘thing’", "korquad") == "an odd thing"


def test_what_cannot_be_scored_is_an_error():
    with pytest.raises(ValueError, match="got 1 answers to 2 questions"):
        answer_scores(["a"], [["a"], ["b"]], "squad")
    with pytest.raises(ValueError, match="got 0 answers to 0 questions"):
        answer_scores([], [], "squad")
    with pytest.raises(ValueError, match="no gold answer"):
        answer_score("a", [], "squad")
    with pytest.raises(ValueError, match="config.scoring='bleu' is not one of squad, korquad"):
        answer_score("a", ["a"], "bleu")
