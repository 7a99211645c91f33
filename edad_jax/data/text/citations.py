# SPDX-License-Identifier: Apache-2.0
"""What is left of a line of an article once the numbers of its references are gone.

"cells [1–3, 7]." becomes "cells." and not "cells [–, ]."; names, figures and other numbers stay.
"""

from __future__ import annotations

import re

# Letters that XML cannot hold, so that no text has them.
CITED, SUP, SUP_END = "\x01", "\x02", "\x03"

_DASHES = r"–—‐‑−\-"
_COMMAS = ",;，；、"  # also as Chinese, Japanese and Korean journals print them
_SEPARATORS = f" {_COMMAS}–—‐‑−-"
_SUPERSCRIPT = re.compile(f"{SUP}([^{SUP}{SUP_END}]*){SUP_END}")
_BRACKETS = re.compile(r"\[([^\[\]()]*)\]|\(([^\[\]()]*)\)|［([^［］（）]*)］|（([^［］（）]*)）")
# Citations with nothing but commas, dashes or "and" between them; "1–3" may have its 3 as text.
_ITEM = rf"{CITED}(?:[{_DASHES}]\d{{1,3}}(?![\w%]|\.\d))?"
_CLUSTER = re.compile(rf"{_ITEM}(?:(?:[\s{_COMMAS}&{_DASHES}]|\b(?:and|or|to)\b)*{_ITEM})*")
_DANGLING = re.compile(rf"[\s{_COMMAS}{_DASHES}]*")
_WORD = re.compile(r"[^\W_]+")
_ONLY_MARKS = re.compile(rf"[\w\s{_COMMAS}:.&/*{_DASHES}{CITED}\[\]()]*")
_LEADS = frozenset(  # words that say nothing where a reference was all that followed
    "see also e g i eg ie cf and or to in by for ref refs reference references review reviews "
    "reviewed from with as therein et al example p pp a an recent details".split()
)


def remove_citations(line: str) -> str:
    """Returns a line without its marks, and without what only held citations together.

    Args:
      line: has `CITED` in place of each citation, superscripts between `SUP` and `SUP_END`.
    """
    if CITED not in line:
        return line.replace(SUP, "").replace(SUP_END, "")
    line = _SUPERSCRIPT.sub(_reduce, line).replace(SUP, "").replace(SUP_END, "")
    for _ in range(2):  # brackets in brackets
        line = _BRACKETS.sub(_reduce, line)
    pieces, begin = [], 0
    for match in _CLUSTER.finditer(line):
        piece, begin = line[begin : match.start()], match.end()
        after = begin
        while line[after : after + 1].isspace():
            after += 1
        following, bare = line[after : after + 1], piece.rstrip()
        if bare.endswith(("(", "[", "（", "［")) or (not bare and not pieces):
            piece, begin = bare, _DANGLING.match(line, begin).end()
        elif following in ",;.:!?)]，；、。：！？）］":  # or the end of the line
            piece, begin = piece.rstrip(_SEPARATORS), after
            begin += following == "." and piece.endswith(".")
        elif len(bare) < len(piece):
            begin = after
        pieces.append(piece)
    return "".join([*pieces, line[begin:]])


def _reduce(match: re.Match) -> str:
    """Returns `CITED` for brackets or a superscript that hold citations and no other word."""
    inner = next(filter(None, match.groups()), "")
    words = _WORD.findall(inner)
    is_nothing = all(word.isdigit() or word.lower() in _LEADS for word in words)
    if CITED in inner and is_nothing and _ONLY_MARKS.fullmatch(inner):
        return CITED
    return inner if match[0].startswith(SUP) else match[0]
