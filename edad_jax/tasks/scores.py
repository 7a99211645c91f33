# SPDX-License-Identifier: Apache-2.0
"""Scores of fine-tuned models: of tags, of classes, and the interval over several seeds.

Tags are IOB2 words such as "B-Disease", "I-Disease" and "O", a sequence for each sentence. The
counting is seqeval's and scikit-learn's. Every score lies in [0, 1]; one that has nothing to
divide by is 0.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.metrics.sequence_labeling import precision_recall_fscore_support as score_entities
from sklearn import metrics

RESAMPLES = 1_000  # of a bootstrap
_TAG = re.compile(r"O|[BIES]-.+")  # what seqeval counts without a warning


class Interval(NamedTuple):
    """A mean and how sure it is: with 95% confidence it lies in mean - half ... mean + half."""

    mean: float
    half: float | None  # None where there is one value only
    count: int


def entity_scores(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict:
    """Returns entity-level scores: an entity is found if its words and its type all agree.

    Counts as conlleval does (seqeval's default mode): an I- that continues nothing, or another
    type, begins an entity of its own.

    Args:
      gold: a sequence of tags for each sentence.
      predicted: tags of the same words.

    Returns:
      {"f1", "precision", "recall", "support", "types": {TYPE: the same four}}. The first four are
      micro averages, over all entities of all types; support is the number of gold entities.

    Raises:
      ValueError: if there is no sentence, a sentence's words differ in number, or a tag is none.
    """
    _check_sentences(gold, predicted=predicted)
    for which, sentences in (("gold", gold), ("predicted", predicted)):
        for number, tags in enumerate(sentences, start=1):
            for tag in tags:
                if not _TAG.fullmatch(tag):
                    raise ValueError(
                        f"{which} sentence {number}: got the tag {tag!r}, expected O, B-TYPE or "
                        "I-TYPE"
                    )
    lists = [list(map(list, sentences)) for sentences in (gold, predicted)]
    per_type = score_entities(*lists, average=None, zero_division=0)
    in_all = score_entities(*lists, average="micro", zero_division=0)
    types = sorted({tag[2:] for sentences in lists for tags in sentences for tag in tags} - {""})
    rows = zip(*per_type, strict=True)
    return _score_row(*in_all) | {
        "types": {name: _score_row(*row) for name, row in zip(types, rows, strict=True)}
    }


def entity_counts(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> np.ndarray:
    """Returns int64 [sentences, 3]: entities that were found, that were said, that there are.

    Their sums over any choice of sentences give its micro scores, as `entity_scores` counts.

    Raises:
      ValueError: as `entity_scores`, but that tags are not looked at.
    """
    _check_sentences(gold, predicted=predicted)
    rows = []
    for tags, guesses in zip(gold, predicted, strict=True):
        wanted, said = set(get_entities(list(tags))), set(get_entities(list(guesses)))
        rows.append((len(wanted & said), len(said), len(wanted)))
    return np.array(rows, np.int64)


def counted_f1(counts: np.ndarray) -> np.ndarray:
    """Returns F1, in [0, 1], of [..., 3] counts of `entity_counts` or their sums."""
    found, said, wanted = np.moveaxis(counts, -1, 0)
    return 2 * found / np.maximum(said + wanted, 1)


def resampled_f1(counts_n3: np.ndarray, seed: int = 0) -> np.ndarray:
    """Returns F1 of as many sentences drawn with replacement, RESAMPLES times.

    The bootstrap over test sentences (Efron and Tibshirani 1993, chapter 16). The draws depend on
    the seed and the number of sentences alone, so that differences of two models are paired.
    """
    size = len(counts_n3)
    draws = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), RESAMPLES)
    return counted_f1(draws @ counts_n3)


def paper_metric(
    gold_words: Sequence[Sequence[str]],
    predicted_words: Sequence[Sequence[str]],
    pieces_per_word: Sequence[Sequence[int]],
    labels: Sequence[str],
) -> float:
    """Returns macro F1 over all labels, O among them, counted in word pieces.

    This is how the code of exBERT (Tai et al. 2020) and EDAD scores; it is no entity F1. A word's
    gold and predicted tags count once for each of its pieces (B- stays B-), so that scores of
    models with different vocabularies are not comparable: a long name weighs more where it is cut
    into more pieces.

    What differs from that code: there every piece is trained on and has a prediction of its own,
    where ours are of words; sentences are joined and cut anew at " . ", which drops that full stop
    and its tag; what lies beyond 254 pieces is not counted; and the average is over the labels
    that occur, where ours is over all of `labels` (one that does not occur has F1 0).

    Args:
      gold_words: tags of each sentence's words.
      predicted_words: tags of the same words.
      pieces_per_word: of each sentence's words, how many pieces they have; 0 does not count.
      labels: all tags, with O.

    Raises:
      ValueError: if lengths differ, a tag is not among the labels, or there is no piece at all.
    """
    _check_sentences(gold_words, predicted=predicted_words, pieces=pieces_per_word)
    gold, predicted, pieces = (
        [each for sentence in sentences for each in sentence]
        for sentences in (gold_words, predicted_words, pieces_per_word)
    )
    _check_labels(labels, gold=gold, predicted=predicted)
    if min(pieces, default=0) < 0 or not any(pieces):
        raise ValueError(
            f"pieces_per_word: got {sum(pieces)} pieces, the least {min(pieces, default=0)}, "
            "expected none below 0, and one above"
        )
    return float(
        metrics.f1_score(
            gold,
            predicted,
            labels=list(labels),
            average="macro",
            sample_weight=pieces,
            zero_division=0,
        )
    )


def classification_scores(
    gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]
) -> dict:
    """Returns accuracy, F1 averaged over all labels, and what was taken for what.

    Returns:
      {"accuracy", "macro_f1", "confusion": counts, a row for each gold label and a column for each
      predicted one, in the order of `labels`, "classes": {label: {"f1", "precision", "recall",
      "support"}}}. A label that does not occur has F1 0 and counts in the average.

    Raises:
      ValueError: if there is no example, lengths differ, or a label is not among the labels.
    """
    if not gold or len(gold) != len(predicted):
        raise ValueError(
            f"got {len(gold)} gold and {len(predicted)} predicted labels, expected as many of "
            "both, and one at least"
        )
    _check_labels(labels, gold=gold, predicted=predicted)
    labels = list(labels)
    per_class = metrics.precision_recall_fscore_support(
        gold, predicted, labels=labels, zero_division=0
    )
    rows = zip(*per_class, strict=True)
    classes = {label: _score_row(*row) for label, row in zip(labels, rows, strict=True)}
    return {
        "accuracy": float(metrics.accuracy_score(gold, predicted)),
        "macro_f1": statistics.fmean(row["f1"] for row in classes.values()),
        "confusion": metrics.confusion_matrix(gold, predicted, labels=labels).tolist(),
        "classes": classes,
    }


def mean_interval(values: Sequence[float]) -> Interval:
    """Returns the mean and half the width of its 95% confidence interval, by Student's t.

    The values are one score for each seed. Half is None for a single one, which says nothing of
    its spread.

    Raises:
      ValueError: if there is no value, or one is NaN or infinite.
    """
    values = [float(value) for value in values]
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"got the values {values}, expected one or more finite numbers")
    mean, count = statistics.fmean(values), len(values)
    if count == 1:
        return Interval(mean, None, count)
    standard_error = statistics.stdev(values) / math.sqrt(count)
    return Interval(mean, float(stdtrit(count - 1, 0.975)) * standard_error, count)


def _score_row(precision: float, recall: float, f1: float, support: int) -> dict:
    return {
        "f1": float(f1),
        "precision": float(precision),
        "recall": float(recall),
        "support": int(support),
    }


def _check_sentences(gold: Sequence[Sequence], **others: Sequence[Sequence]) -> None:
    """Raises ValueError unless all have as many sentences, and these as many words."""
    if not gold:
        raise ValueError("got no sentence, expected one or more")
    for name, sentences in others.items():
        if len(sentences) != len(gold):
            raise ValueError(f"{name}: got {len(sentences)} sentences, expected {len(gold)}")
        for number, (expected, got) in enumerate(zip(gold, sentences, strict=True), start=1):
            if len(got) != len(expected):
                raise ValueError(
                    f"{name} sentence {number}: got {len(got)} words, expected {len(expected)} as "
                    "in gold"
                )


def _check_labels(labels: Sequence[str], **named: Iterable[str]) -> None:
    for name, used in named.items():
        if unknown := sorted(set(used) - set(labels)):
            raise ValueError(f"{name}: got {unknown[:5]}, expected labels from {list(labels)}")
