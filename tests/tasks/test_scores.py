# SPDX-License-Identifier: Apache-2.0
"""Scores agree with counters written for the purpose, and with examples worked by hand."""

import math
import random

import pytest
from seqeval.metrics import f1_score

from edad_jax.tasks.scores import classification_scores, entity_scores, mean_interval, paper_metric


def entities_of(tags):
    """The entities of a sentence as {(type, first word, word after the last)}, as in conlleval."""
    found, first = set(), None
    for place, tag in enumerate([*tags, "O"]):
        before = tags[place - 1] if place else "O"
        goes_on = tag[0] == "I" and before != "O" and before[2:] == tag[2:]
        if first is not None and not goes_on:
            found.add((before[2:], first, place))
            first = None
        if tag != "O" and not goes_on:
            first = place
    return found


def expected_scores(gold, predicted):
    """Micro precision, recall, F1 and support of `entities_of`."""
    pairs = [(entities_of(g), entities_of(p)) for g, p in zip(gold, predicted, strict=True)]
    right = sum(len(g & p) for g, p in pairs)
    in_gold, in_predicted = (sum(len(pair[side]) for pair in pairs) for side in (0, 1))
    precision = right / in_predicted if in_predicted else 0.0
    recall = right / in_gold if in_gold else 0.0
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return precision, recall, f1, in_gold


def random_tagging(rng):
    """Gold and predicted tags of one sentence, well-formed in half of the cases."""
    types = rng.sample(["A", "B", "Gene", "Cell-line"], rng.randint(1, 3))
    tags = ["O"] + [f"{prefix}-{name}" for name in types for prefix in "BI"]
    gold = [rng.choice(tags) for _ in range(rng.randint(0, 12))]
    predicted = [tag if rng.random() < 0.7 else rng.choice(tags) for tag in gold]
    if rng.random() < 0.5:
        gold, predicted = mended(gold), mended(predicted)
    return gold, predicted


def mended(tags):
    """The tags as IOB2: an I- that continues nothing becomes a B-."""
    fine = []
    for before, tag in zip(["O", *tags], tags, strict=False):
        orphan = tag[0] == "I" and before[2:] != tag[2:]
        fine.append("B" + tag[1:] if orphan else tag)
    return fine


def assert_scores(gold, predicted):
    got = entity_scores(gold, predicted)
    precision, recall, f1, support = expected_scores(gold, predicted)
    assert got["support"] == support
    assert got["precision"] == pytest.approx(precision, abs=1e-12)
    assert got["recall"] == pytest.approx(recall, abs=1e-12)
    assert got["f1"] == pytest.approx(f1, abs=1e-12)
    assert got["f1"] == f1_score(gold, predicted, zero_division=0)


def test_entity_scores_equal_an_independent_counter_on_10000_taggings():
    rng = random.Random(0)
    taggings = [random_tagging(rng) for _ in range(10_000)]
    assert sum(mended(gold) != gold for gold, _ in taggings) > 2_000  # with orphans
    for gold, predicted in taggings[:400]:  # each alone,
        assert_scores([gold], [predicted])
    for start in range(0, len(taggings), 100):  # and all as corpora
        gold, predicted = zip(*taggings[start : start + 100], strict=True)
        assert_scores(list(gold), list(predicted))


def test_entity_scores_tell_types_apart():
    gold = [["B-Gene", "I-Gene", "O", "B-Drug"], ["B-Drug", "O"]]
    predicted = [["B-Gene", "I-Gene", "O", "B-Gene"], ["B-Drug", "B-Cell"]]
    got = entity_scores(gold, predicted)
    # Right: one gene, one drug. Given: two genes, a drug and a cell. There are: a gene, two drugs.
    assert (got["precision"], got["recall"], got["support"]) == (2 / 4, 2 / 3, 3)
    assert got["f1"] == pytest.approx(4 / 7)
    assert list(got["types"]) == ["Cell", "Drug", "Gene"]
    assert got["types"]["Cell"] == {"f1": 0, "precision": 0, "recall": 0, "support": 0}
    assert got["types"]["Gene"]["precision"] == 0.5 and got["types"]["Gene"]["recall"] == 1
    assert got["types"]["Drug"]["precision"] == 1 and got["types"]["Drug"]["recall"] == 0.5


def test_an_entity_does_not_reach_into_the_next_sentence():
    got = entity_scores([["B-A"], ["I-A"]], [["B-A"], ["O"]])
    assert (got["precision"], got["recall"], got["support"]) == (1, 0.5, 2)


def test_text_without_entities_has_scores_of_zero():
    got = entity_scores([["O", "O"], []], [["O", "O"], []])
    assert got == {"f1": 0, "precision": 0, "recall": 0, "support": 0, "types": {}}


@pytest.mark.parametrize(
    ("gold", "predicted", "message"),
    [
        ([["O"], ["O", "O"]], [["O"], ["O"]], "predicted sentence 2: got 1 words, expected 2"),
        ([["O"]], [["O"], ["O"]], "predicted: got 2 sentences, expected 1"),
        ([], [], "got no sentence"),
        ([["O"]], [["Gene"]], "predicted sentence 1: got the tag 'Gene', expected O, B-TYPE"),
    ],
)
def test_sentences_that_cannot_be_compared_are_named(gold, predicted, message):
    with pytest.raises(ValueError, match=message):
        entity_scores(gold, predicted)


LABELS = ["B-D", "I-D", "O"]
GOLD = [["B-D", "I-D", "O"], ["O", "B-D"]]
PREDICTED = [["B-D", "O", "O"], ["B-D", "B-D"]]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        # One piece a word. B: 2 right, 3 given, 2 there: 4/5. I: 0. O: 1 right, 2 given, 2: 1/2.
        ([[1, 1, 1], [1, 1]], (4 / 5 + 0 + 1 / 2) / 3),
        # B: 3 + 2 right, 6 given, 5 there: 10/11. I: 0 of 4. O: 1 right, 5 given, 2 there: 2/7.
        ([[3, 4, 1], [1, 2]], (10 / 11 + 0 + 2 / 7) / 3),
        # Words without pieces do not count. B: 1 right, 1 given, 1 there: 1. I: none. O: 1.
        ([[1, 0, 1], [0, 0]], (1 + 0 + 1) / 3),
    ],
)
def test_paper_metric_counts_each_tag_once_per_piece(pieces, expected):
    assert paper_metric(GOLD, PREDICTED, pieces, LABELS) == pytest.approx(expected, abs=1e-12)


def test_paper_metric_is_no_entity_score():
    gold = [["B-D", "I-D", "O", "O"]]
    predicted = [["B-D", "O", "O", "O"]]  # half of the only entity
    assert entity_scores(gold, predicted)["f1"] == 0
    expected = (1 + 0 + 4 / 5) / 3  # B: 1. O: 2 right, 3 given, 2 there.
    assert paper_metric(gold, predicted, [[1, 1, 1, 1]], LABELS) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("pieces", "labels", "message"),
    [
        ([[1, 1, 1], [1]], LABELS, "pieces sentence 2: got 1 words, expected 2"),
        ([[1, 1, -1], [1, 1]], LABELS, "the least -1"),
        ([[0, 0, 0], [0, 0]], LABELS, "got 0 pieces"),
        ([[1, 1, 1], [1, 1]], ["B-D", "O"], r"gold: got \['I-D'\], expected labels from"),
    ],
)
def test_paper_metric_names_what_it_cannot_count(pieces, labels, message):
    with pytest.raises(ValueError, match=message):
        paper_metric(GOLD, PREDICTED, pieces, labels)


def test_classification_scores_of_an_example_worked_by_hand():
    gold = ["yes", "yes", "no", "no", "no"]
    predicted = ["yes", "no", "no", "no", "maybe"]
    got = classification_scores(gold, predicted, ["yes", "no", "maybe"])
    assert got["accuracy"] == 0.6
    assert got["confusion"] == [[1, 1, 0], [0, 2, 1], [0, 0, 0]]  # rows are gold
    # yes: 1 right, 1 given, 2 there: 2/3. no: 2 right, 3 given, 3 there: 2/3. maybe: 0.
    assert got["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert got["classes"]["yes"] == {
        "f1": pytest.approx(2 / 3),
        "precision": 1,
        "recall": 0.5,
        "support": 2,
    }
    assert got["classes"]["maybe"]["support"] == 0


@pytest.mark.parametrize(
    ("gold", "predicted", "message"),
    [
        (["a"], ["a", "b"], "got 1 gold and 2 predicted"),
        ([], [], "got 0 gold"),
        (["a"], ["c"], r"predicted: got \['c'\], expected labels from \['a', 'b'\]"),
    ],
)
def test_classes_that_cannot_be_compared_are_an_error(gold, predicted, message):
    with pytest.raises(ValueError, match=message):
        classification_scores(gold, predicted, ["a", "b"])


@pytest.mark.parametrize(
    ("values", "t"),
    [([0.80, 0.82, 0.87], 4.3027), ([0.7, 0.9, 0.8, 0.75, 0.85], 2.7764), ([0.1, 0.3], 12.7062)],
)
def test_interval_agrees_with_the_table_of_t(values, t):
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    got = mean_interval(values)
    assert got.mean == pytest.approx(mean) and got.count == len(values)
    assert got.half == pytest.approx(t * math.sqrt(variance / len(values)), rel=2e-5)


def test_interval_of_a_hand_computed_example():
    # Mean 0.5, standard deviation 0.1, standard error 0.1 / sqrt(3).
    assert mean_interval([0.4, 0.5, 0.6]).half == pytest.approx(0.24841, abs=1e-5)


def test_one_value_has_no_interval():
    assert mean_interval([0.5]) == (0.5, None, 1)


@pytest.mark.parametrize("values", [[], [0.5, math.nan], [math.inf]])
def test_values_without_a_mean_raise(values):
    with pytest.raises(ValueError, match="expected one or more finite numbers"):
        mean_interval(values)
