# SPDX-License-Identifier: Apache-2.0
"""Whether the labels of the splits are those of one task: what no score would tell."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

_SHOWN = 6  # labels in a message
_MOST_UNSEEN = 0.5  # of a split; with more its score is not of what was learned
_MANY = 10  # examples of a split, from which on a single label is no chance


def check_label_sets(
    data: str,
    splits: Mapping[str, Sequence[Any]],
    labels_of: Callable[[Any], Iterable[str]],
    *,
    labelled: str,
) -> Iterator[str]:
    """Yields what is to be said of the labels of the validation and the test split.

    Args:
      data: what messages call the data.
      splits: examples of each.
      labels_of: of an example; none where there are no classes.
      labelled: what has a label: texts, entities.

    Raises:
      ValueError: a split without labels, or mostly with labels that the training split lacks: no
        answer could be right, and a score or a best epoch of it would mean nothing.
    """

    def count(split):
        return Counter(itertools.chain.from_iterable(map(labels_of, splits[split])))

    known = count("train")
    for split in ("validation", "test"):
        if not known or split not in splits:
            continue
        found = count(split)
        total = found.total()
        if not total:
            raise ValueError(
                f"{data}: got no {labelled} in the {split} split ({len(splits[split]):,} "
                "examples), expected some, or its score means nothing; give another split, or none "
                "(validation is then taken of the training data, and test is not scored); where it "
                f"was chosen at random, a larger --config.max_{split} or another "
                "--config.split_seed"
            )
        unseen = Counter({label: n for label, n in found.items() if label not in known})
        if unseen.total() > _MOST_UNSEEN * total:
            raise ValueError(
                f"{data}: got {unseen.total():,} of {total:,} {labelled} of the {split} split with "
                f"labels that the training split has not ({_shown(unseen)}), expected its labels "
                f"({_shown(known)}); spell them alike in all splits, or give other data"
            )
        if unseen:
            yield (
                f"{split}: {unseen.total():,} of {total:,} {labelled} have a label unseen in "
                f"training, and no answer to them can be right ({_shown(unseen)})"
            )
        if len(found) == 1 and len(known) > 1 and total >= _MANY:
            yield (
                f"{split}: all {total:,} {labelled} have one label ({_shown(found)}), of "
                f"{len(known):,} in training: does it stand for none?"
            )


def _shown(counts: Mapping[str, int]) -> str:
    """Returns the first labels with their counts."""
    parts = [f"{label} {count:,}" for label, count in list(counts.items())[:_SHOWN]]
    return ", ".join(parts) + (", ..." if len(counts) > _SHOWN else "")
