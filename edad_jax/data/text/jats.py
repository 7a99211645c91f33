# SPDX-License-Identifier: Apache-2.0
"""Articles in JATS XML, the format of PubMed Central's open-access files, as text.

Title, abstract and body, one block (title, paragraph, list item, caption) a line; references,
tables, formulas and footnotes are left out.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from xml.parsers import expat

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
# What is left of "[12, 13]" once its references are gone.
_EMPTY_BRACKETS = re.compile(r"\s?(\[[\s,;–-]*\]|\([\s,;–-]*\))")


def read_articles(blocks: Iterable[bytes]) -> Iterator[str]:
    """Yields the text of each article in an XML file, given in blocks of bytes.

    Raises:
      ValueError: the file is not well-formed XML, or declares entities of its own, which is how
        a small file can unfold to gigabytes; articles before the damage have been given.
    """
    reader = _Reader()
    parser = expat.ParserCreate(namespace_separator=None)
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.SkippedEntityHandler = reader.skipped_entity
    parser.EntityDeclHandler = _refuse_entities
    try:
        for block in blocks:
            parser.Parse(block, False)
            yield from reader.take()
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        yield from reader.take()
        raise ValueError(f"not well-formed XML: {error}") from error
    yield from reader.take()


def _refuse_entities(name: str, *_: object) -> None:
    raise ValueError(f"declares the entity {name!r}: refused")


class _Reader:
    """Collects the lines of the article that is being read."""

    def __init__(self) -> None:
        self._articles: list[str] = []
        self._lines: list[str] = []
        self._parts: list[str] = []
        self._kept = 0  # how many enclosing elements are to be kept
        self._skipped = 0  # depth below an element that is to be skipped

    def take(self) -> list[str]:
        """Returns the articles that are complete, once."""
        articles, self._articles = self._articles, []
        return articles

    def start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rpartition(":")[2]
        if self._skipped:
            self._skipped += 1
        elif name in _SKIPPED or (name == "xref" and attributes.get("ref-type") == "bibr"):
            self._skipped = 1
        else:
            self._kept += name in _KEPT
            if name in _BLOCKS:
                self._end_line()

    def end(self, name: str) -> None:
        name = name.rpartition(":")[2]
        if self._skipped:
            self._skipped -= 1
            return
        if name in _BLOCKS:
            self._end_line()
        self._kept -= name in _KEPT
        if name in ("article", "sub-article", "response"):
            self._end_line()
            if self._lines:
                self._articles.append("\n".join(self._lines))
            self._lines = []

    def text(self, text: str) -> None:
        if self._kept and not self._skipped:
            self._parts.append(text)

    def skipped_entity(self, name: str, is_parameter: bool) -> None:
        if not is_parameter:
            self.text(html.unescape(f"&{name};"))

    def _end_line(self) -> None:
        if self._parts:
            line = " ".join("".join(self._parts).split())
            self._parts = []
            if line := _EMPTY_BRACKETS.sub("", line).strip():
                self._lines.append(line)
