# SPDX-License-Identifier: Apache-2.0
"""Schemes of tags for entities: IOB2, which we use, and IOB1, IOBES and BILOU, which are read."""

import re
from collections.abc import Sequence

TAG = re.compile(r"O|[BIESLU]-\S+")  # of any scheme
_ENDS = {"E": "IOBES", "S": "IOBES", "L": "BILOU", "U": "BILOU"}


def scheme_with_ends(sentences: Sequence[Sequence[str]]) -> str:
    """Returns the name of the scheme that marks where entities end, "" if none does."""
    found = {_ENDS[tag[0]] for tags in sentences for tag in tags if tag[0] in _ENDS}
    return " and ".join(sorted(found))


def iob2_tags(tags: Sequence[str]) -> tuple[tuple[str, ...], list[int]]:
    """Returns the tags in IOB2, and the positions of those that continue nothing.

    B-X I-X I-Y O E-X S-X   becomes   B-X I-X B-Y O B-X B-X,   with [2, 4].
    """
    fixed, orphans = [], []
    open_type = None  # of the entity that the next tag may continue
    for index, tag in enumerate(tags):
        prefix, _, entity_type = tag.partition("-")
        if prefix == "O":
            fixed.append("O")
        elif prefix in "BSU" or open_type != entity_type:
            fixed.append(f"B-{entity_type}")
            if prefix in "IEL":
                orphans.append(index)
        else:
            fixed.append(f"I-{entity_type}")
        open_type = entity_type if prefix in ("B", "I") else None
    return tuple(fixed), orphans


def is_iob1(sentences: Sequence[Sequence[str]]) -> bool:
    """Returns whether I- begins entities, and B- only those that touch another of their type."""
    begins = False
    for tags in sentences:
        before = "O"
        for tag in tags:
            if tag[0] in _ENDS or (tag[0] == "B" and before[2:] != tag[2:]):
                return False
            begins = begins or (tag[0] == "I" and before[2:] != tag[2:])
            before = tag
    return begins
