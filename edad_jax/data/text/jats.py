# SPDX-License-Identifier: Apache-2.0
"""Articles in JATS XML, the format of PubMed Central's open-access files, as text.

Title, abstract and body, one block (title, paragraph, list item, caption) a line; references,
tables, formulas and footnotes are left out.
"""

from __future__ import annotations

import re

from edad_jax.data.text.citations import CITED, SUP, SUP_END, remove_citations

_KEPT = frozenset({"title-group", "abstract", "body"})
_SKIPPED = frozenset(
    "ref-list table-wrap table-wrap-group table disp-formula disp-formula-group inline-formula "
    "tex-math math fn fn-group alt-title trans-title-group label object-id graphic media "
    "supplementary-material permissions trans-abstract".split()
)
_BLOCKS = frozenset(
    "p title article-title subtitle sec list-item caption disp-quote verse-line def term "
    "abstract body boxed-text".split()
)
# What is left of "(x)" once its formula is gone.
_EMPTY_BRACKETS = re.compile(r"\s?(\[[\s,;–-]*\]|\([\s,;–-]*\)|[［（][\s,;，；、–-]*[］）])")
_APART = frozenset("disp-formula disp-formula-group table-wrap table-wrap-group fn-group".split())
_GAP = "\x04"  # where such an element stood, on lines of its own, perhaps between two words
_BEFORE_STOP = re.compile(rf"\s*{_GAP}\s*(?=[.,;:!?)\]])")
_DOCUMENTS = frozenset({"article", "sub-article", "response"})


class JatsReader:
    """Collects the documents of one article: itself, then each of its sub-articles."""

    def __init__(self) -> None:
        self._documents: list[str] = []
        self._lines: list[str] = []
        self._parts: list[str] = []
        self._kept = 0  # how many enclosing elements are to be kept
        self._skipped = 0  # depth below an element that is to be skipped

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if self._skipped:
            self._skipped += 1
        elif name == "xref" and attributes.get("ref-type") == "bibr":
            self.text(CITED)
            self._skipped = 1
        elif name in _SKIPPED:
            if name in _APART:
                self.text(_GAP)
            self._skipped = 1
        else:
            self._kept += name in _KEPT
            if name in _BLOCKS:
                self._end_line()
            elif name in _DOCUMENTS:
                self._end_document()
            elif name == "break":
                self.text(" ")
            elif name == "sup":
                self.text(SUP)

    def end(self, name: str) -> None:
        if self._skipped:
            self._skipped -= 1
            return
        if name == "sup":
            self.text(SUP_END)
        if name in _BLOCKS:
            self._end_line()
        self._kept -= name in _KEPT
        if name in _DOCUMENTS:
            self._end_document()

    def text(self, text: str) -> None:
        if self._kept and not self._skipped:
            self._parts.append(text)

    def finish(self) -> list[str]:
        """Returns the documents; an article without title, abstract and body has none."""
        self._end_document()
        return self._documents

    def _end_document(self) -> None:
        self._end_line()
        if self._lines:
            self._documents.append("\n".join(self._lines))
        self._lines = []

    def _end_line(self) -> None:
        if self._parts:
            joined = _BEFORE_STOP.sub("", "".join(self._parts)).replace(_GAP, " ")
            line = remove_citations(" ".join(joined.split()))
            self._parts = []
            if line := _EMPTY_BRACKETS.sub("", line).strip():
                self._lines.append(line)
