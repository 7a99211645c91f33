# SPDX-License-Identifier: Apache-2.0
"""Labels that are written in several ways and mean one class: 1, 1.0 and True, or "pos" twice.

A class takes another name than its labels have only where they differ, so that what is written in
one way throughout stays as it is.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

# 1.0, +1, and 1,0 of a decimal comma; not 01.0, which is no number's name.
_WHOLE = re.compile(r"\+?(-?(?:0|[1-9][0-9]*))(?:\.0*|,0)?")
_EXPONENT = re.compile(r"[0-9](\.[0-9]+)?[eE][+-]?[0-9]{1,2}")  # as programs write a float
_TRUTH = {"true": "1", "false": "0"}
_CASES = (str.lower, str.upper, str.capitalize)  # true (JSON), TRUE (R, Excel), True (Python)


def spelling(label: str) -> str:
    """Returns a label as it looks, "" if there is nothing to see.

    Letters without width (a byte order mark, U+200B, a joiner) go, white space becomes single
    blanks within and none around; a number is whole where its decimals are noughts, has no plus
    and no digits of double width; Hangul in parts (NFD) becomes syllables. "01" is no number here,
    and case is kept.
    """
    seen = "".join(
        letter for letter in unicodedata.normalize("NFC", label) if not _is_invisible(letter)
    )
    seen = " ".join(unicodedata.normalize("NFC", seen).split())
    number = unicodedata.normalize("NFKC", seen)
    if whole := _WHOLE.fullmatch(number):
        seen = whole[1]
    elif _EXPONENT.fullmatch(number) and float(number).is_integer():
        seen = str(int(float(number)))
    return "0" if seen == "-0" else seen


def class_names(labels: Iterable[str]) -> dict[str, str]:
    """Returns the name of the class of each label.

    True and False are 1 and 0 where there are numbers too; where every label of a class is written
    in one way, that is its name.

    Args:
      labels: of all splits.
    """
    classes: dict[str, set[str]] = defaultdict(set)
    for label in labels:
        seen = spelling(label)
        classes[_truth(seen) or seen].add(label)
    names = {}
    for key, written in classes.items():
        seen = {spelling(label) for label in written}
        if len(written) == 1:
            name = next(iter(written))
        elif len(seen) == 1:  # they differ by what is not seen
            name = seen.pop()
        elif key in seen:
            name = key
        else:  # True, true and TRUE, and no number
            name = {"1": "True", "0": "False"}[key]
        names |= dict.fromkeys(written, name)
    return names


def look_alike(labels: Iterable[str]) -> list[tuple[str, ...]]:
    """Returns the classes that differ by case, width or a hyphen only, as mistakes of spelling do.

    They stay classes of their own: "IT" and "it" may be two.
    """
    alike: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        key = unicodedata.normalize("NFKC", label).casefold()
        alike[re.sub(r"[\s_-]+", " ", key)].append(label)
    return [tuple(sorted(group)) for group in alike.values() if len(group) > 1]


def _truth(seen: str) -> str:
    """Returns 1 or 0 for a truth value as programs write it, "" for anything else."""
    value = _TRUTH.get(seen.lower(), "")
    return value if value and seen in [case(seen) for case in _CASES] else ""


def _is_invisible(letter: str) -> bool:
    """Returns whether a letter has no width: formats (Cf), and the selectors of variants.

    Not the tag letters, by which alone the flags of England and Scotland differ.
    """
    is_format = unicodedata.category(letter) == "Cf" and letter < "\U000e0020"
    return is_format or "\ufe00" <= letter <= "\ufe0f"
