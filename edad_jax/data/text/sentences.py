# SPDX-License-Identifier: Apache-2.0
"""Sentences of a text, by rule: any script, lower-case text too, no model and no language switch.

A line's end always ends a sentence. A full stop ends one unless it belongs to an abbreviation, an
initial or a number, or is followed by a small letter in a text that has capitals as well.
"""

from __future__ import annotations

import re

_CLOSING = "\"')\\]}»›”’"
_STOPS = ".!?…؟۔।॥։።"
_BOUNDARY = re.compile(
    r"\n"
    # These need white space after them. The look-behind and the possessive `++` keep a row of a
    # million full stops (it exists) from taking a million times a million steps.
    rf"|(?<![{_STOPS}])[{_STOPS}]++[{_CLOSING}]*+(?=\s)"
    r"|[。！？｡]+[」』”’）】]*"  # these do not
)
_ABBREVIATIONS = frozenset(
    # Latin and general
    "al approx bzw ca cf cp dept ed eds eg eq eqs esp est et etc ex excl ext fig figs ff "
    "ibid ie incl no nos nr par pp pt ref refs resp sec sect sp spp ssp subsp suppl syn tab "
    "temp var viz vol vols vs wt z.b zb "
    # titles and names
    "capt col dr drs gen gov hon jr lt mlle mme mr mrs ms mt prof rep rev sen sgt sr st "
    # firms, places, months
    "ave bros co corp inc ltd univ jan feb apr jun jul aug sept oct nov dec "
    # units and dosage
    "conc dil hr hrs i.m i.p i.v im ip iv max min mol p.o s.c wk wks yr yrs".split()
)


def split_sentences(text: str) -> list[str]:
    """Returns the sentences of a text, stripped; together they hold all but its white space.

    Example:
      >>> split_sentences("Smith et al. saw it (Fig. 2). It grew 1.5 mm.")
      ['Smith et al. saw it (Fig. 2).', 'It grew 1.5 mm.']
    """
    sentences = []
    start = 0
    has_capitals = not text.islower()
    for match in _BOUNDARY.finditer(text):
        stop = match.end()
        mark = text[match.start()]
        if mark in ".!?…" and not _ends_sentence(text, start, match.start(), stop, has_capitals):
            continue
        if sentence := text[start:stop].strip():
            sentences.append(sentence)
        start = stop
    if sentence := text[start:].strip():
        sentences.append(sentence)
    return sentences


def _ends_sentence(text: str, start: int, mark: int, stop: int, has_capitals: bool) -> bool:
    """Returns whether the mark at `mark` ends the sentence that began at `start`."""
    following = text[stop + 1 : stop + 2]
    if has_capitals and following.islower():
        return False
    if text[mark] != "." or stop - mark > 1:
        return True
    word = text[max(start, mark - 24) : mark].rpartition(" ")[2].lstrip("(['\"“‘")
    if not word:
        return True
    if word.lower() in _ABBREVIATIONS:
        # "no." and "fig." are abbreviations before a number only, where they are words as well.
        return word.lower() in {"no", "max", "min", "ed", "par"} and not following.isdigit()
    if len(word) == 1:
        return not (word.isupper() or word.islower())  # an initial, or "p." before a page
    if "." in word and all(len(part) == 1 and part.isalpha() for part in word.split(".")):
        return False  # "e.g.", "U.S."
    # "1." or "2.3." at the beginning of a sentence is the number of what follows.
    is_number = word.replace(".", "").isdigit()
    return not (is_number and not text[start : mark - len(word)].strip())
