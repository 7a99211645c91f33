# SPDX-License-Identifier: Apache-2.0
"""Schemes of tags for entities: IOB2, which we use, and those that are read and turned into it.

These are IOB1, IOBES, BILOU, BMES and BMEWO; and the same letters without a type, where there is
one type only.
"""

import re
from collections.abc import Iterable, Sequence

TAG = re.compile(r"O|[BIESLUMW]-\S+")  # of any scheme
BARE = re.compile(r"[BIESLUMW]")  # without a type
_LOWER = re.compile(r"o|[bieslumw]-\S+")  # where a whole file was made lower case
ANY_TAG = re.compile(rf"{TAG.pattern}|{BARE.pattern}|{_LOWER.pattern}")
ONE_TYPE = "Entity"  # of tags that have no type
_ENDS = {"E": "IOBES", "S": "IOBES", "L": "BILOU", "U": "BILOU", "M": "BMES", "W": "BMEWO"}


def are_bare(tags: Iterable[str]) -> bool:
    """Returns whether there are tags without a type, and none with one."""
    seen = set(tags)
    is_typed = any(tag != "O" and TAG.fullmatch(tag) for tag in seen)
    return not is_typed and any(BARE.fullmatch(tag) for tag in seen)


def are_lower(tags: Iterable[str]) -> bool:
    """Returns whether there are tags in lower case, and none in upper case."""
    seen = set(tags)
    return not any(map(TAG.fullmatch, seen)) and any(map(_LOWER.fullmatch, seen))


def with_upper(tag: str) -> str:
    """Returns a tag with its first letter in upper case: O of o, B-drug of b-drug."""
    return tag[0].upper() + tag[1:] if _LOWER.fullmatch(tag) else tag


def with_type(tag: str) -> str:
    """Returns a bare tag with the one type; any other as it is."""
    return f"{tag}-{ONE_TYPE}" if BARE.fullmatch(tag) else tag


def scheme_with_ends(sentences: Sequence[Sequence[str]]) -> str:
    """Returns the name of the scheme that marks where entities end, "" if none does."""
    found = {_ENDS[tag[0]] for tags in sentences for tag in tags if tag[0] in _ENDS}
    if found & {"BMES", "BMEWO"}:  # these have E and S, or W, too
        found = (found - {"IOBES"}) - ({"BMES"} if "BMEWO" in found else set())
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
        elif prefix in "BSUW" or open_type != entity_type:
            fixed.append(f"B-{entity_type}")
            if prefix in "IELM":
                orphans.append(index)
        else:
            fixed.append(f"I-{entity_type}")
        open_type = entity_type if prefix in ("B", "I", "M") else None
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
