# SPDX-License-Identifier: Apache-2.0
"""Citations of PubMed's baseline and update files: title and abstract of each."""

from __future__ import annotations

import re

_KEPT = frozenset({"ArticleTitle", "AbstractText"})
_TAGS = re.compile("</?(?:sub|sup|i|b|u|em|strong)>")  # as text, in older files: &lt;sub&gt;
_SKIPPED = frozenset({"math", "OtherAbstract", "CommentsCorrectionsList", "ReferenceList"})


class PubmedReader:
    """Collects the lines of one citation: its title, then each part of its abstract."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._parts: list[str] = []
        self._kept = 0  # depth at and below an element that is kept
        self._skipped = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if self._skipped or name in _SKIPPED:
            self._skipped += 1
        elif self._kept or name in _KEPT:
            self._kept += 1

    def end(self, name: str) -> None:
        if self._skipped:
            self._skipped -= 1
        elif self._kept:
            self._kept -= 1
            if not self._kept:
                if line := " ".join(_TAGS.sub("", "".join(self._parts)).split()):
                    self._lines.append(line)
                self._parts = []

    def text(self, text: str) -> None:
        if self._kept and not self._skipped:
            self._parts.append(text)

    def finish(self) -> list[str]:
        """Returns the document; none if there is neither title nor abstract."""
        return ["\n".join(self._lines)] if self._lines else []
