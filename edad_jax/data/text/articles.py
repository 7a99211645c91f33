# SPDX-License-Identifier: Apache-2.0
"""Articles in XML: JATS, as PubMed Central has them, and the citations of PubMed.

Damage costs the article that it is in: reading goes on at the next one. Several files that were
joined to one are read one after another.
"""

from __future__ import annotations

import codecs
import html
import re
from collections.abc import Generator, Iterable, Iterator
from xml.parsers import expat

from edad_jax.data.text.encodings import check_encoding, recode_blocks
from edad_jax.data.text.jats import JatsReader
from edad_jax.data.text.pubmed import PubmedReader
from edad_jax.data.text.reading import BLOCK_BYTES, ReadReport, finish_document, open_blocks

_READERS = {
    "article": JatsReader,
    "PubmedArticle": PubmedReader,
    "PubmedBookArticle": PubmedReader,
    "MedlineCitation": PubmedReader,
}
_ARTICLE = rb"<(?:[\w.-]+:)?(?:article|Pubmed(?:Book)?Article)(?=[\s>/])"
_NEXT = re.compile(rb"<\?xml\s|<(?:pmc-articleset|Pubmed(?:Book)?ArticleSet)[\s>]|" + _ARTICLE)
_ARTICLES = re.compile(_ARTICLE)
_LONGEST_TAG = 128  # bytes that a match of these may need
_MOST_UNHEARD = 1 << 22  # bytes of one tag or comment, which the parser holds until it ends
_DEEPEST = 10_000  # elements in each other
_DECLARED = re.compile(rb"""<\?xml[^>]{0,100}?encoding\s*=\s*["']([\w.:-]{1,40})["']""")
# Letters that XML cannot hold, and bytes that are not UTF-8 (as surrogates).
_BAD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]+")
_SURROGATES = re.compile("[\ud800-\udfff]")
_BAD_REFERENCE = re.compile(
    "&#(?:0*(?:[0-8]|1[124-9]|2[0-9]|3[01])|"
    "x0*(?:[0-8bcef]|1[0-9a-f]|d[89a-f][0-9a-f]{2}|fff[ef]));",
    re.IGNORECASE,
)


def read_articles(blocks: Iterable[bytes], where: str, report: ReadReport) -> Iterator[str]:
    """Yields the text of each article in an XML file.

    Args:
      blocks: the content of the file.
      where: how messages call the file.
      report: told of the articles that could not be read, with line and reason; of letters that
        were replaced; of XML that has no articles, with the name of its root element.
    """
    source = _Source(_clean_blocks(blocks, where, report))
    line, prolog = 1, b""
    root, has_articles, is_broken = "", False, False
    while True:
        part = _Part(prolog)
        for text in part.read(source):
            yield from finish_document(text, where, report)
        root = root or part.root
        has_articles |= part.has_articles
        if part.error is None:
            break
        here, line = f"{where}:{line + part.lines}", line + part.lines
        if part.is_refused:
            rest = source.count(_ARTICLES)
            detail = f"{part.error}; {rest + part.is_open:,} articles from here on not read"
            report.add_problem("article skipped: broken XML", here, detail)
            is_broken = True
            break
        if part.is_open or not (part.is_complete or prolog):
            report.add_problem("article skipped: broken XML", here, part.error)
            is_broken = True
        is_junk = part.is_complete and not source.starts_with(b"</")  # of a set: goes unsaid
        skipped = source.skip_to(_NEXT, 0 if part.consumed else 1)
        if skipped is None:
            if is_junk:
                report.add_problem("bytes after the end of the XML", here)
            break
        line += skipped
        prolog = b""
        if not source.starts_with(b"<?xml"):
            # The set that it stands in goes on, with its entities that only its DTD explains.
            name = part.root.encode()
            is_set = name and not part.is_complete and part.root_kind not in _READERS
            prolog = b'<!DOCTYPE a PUBLIC "-" "-">' + (b"<" + name + b">" if is_set else b"")
    if root and not has_articles and not is_broken:
        report.add_problem(
            "file skipped: XML without articles",
            where,
            f"its root element is <{root}>, expected JATS (<article>, <pmc-articleset>) or PubMed "
            "(<PubmedArticleSet>)",
        )


class _Source:
    """The bytes of a file, of which those around an error can be read again."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._stream = open_blocks(blocks)
        self._again = b""

    def read(self) -> bytes:
        block, self._again = self._again[:BLOCK_BYTES], self._again[BLOCK_BYTES:]
        return block or self._stream.read(BLOCK_BYTES)

    def push(self, content: bytes) -> None:
        self._again = content + self._again

    def starts_with(self, content: bytes) -> bool:
        return self._again.startswith(content)

    def skip_to(self, pattern: re.Pattern, begin: int) -> int | None:
        """Goes on to the next match, from a byte on; returns the lines before it, or None."""
        lines, window = 0, self._again or self._stream.read(BLOCK_BYTES)
        while True:
            if match := pattern.search(window, begin):
                lines += window.count(b"\n", 0, match.start())
                self._again = window[match.start() :]
                return lines
            cut = max(begin, len(window) - _LONGEST_TAG)
            lines += window.count(b"\n", 0, cut)
            block = self._stream.read(BLOCK_BYTES)
            if not block:
                self._again = b""
                return None
            begin, window = 0, window[cut:] + block

    def count(self, pattern: re.Pattern) -> int:
        """Returns how many matches there are up to the end, which is reached by then."""
        count = 0
        while self.skip_to(pattern, 0) is not None:
            count += 1
            self._again = self._again[1:]
        return count


class _RefusedError(ValueError):
    """The file has what takes memory without an end, such as entities of its own."""


class _Part:
    """One run of the parser: up to the end of the file, or to what it cannot read."""

    def __init__(self, prolog: bytes) -> None:
        self.error: Exception | None = None
        self.root = ""  # its name, prefix and all
        self.has_articles = False
        self.consumed = 0  # bytes before the error
        self.lines = 0  # line ends before the error
        self._prolog = prolog
        self._texts: list[str] = []
        self._reader: JatsReader | PubmedReader | None = None
        self._depth = self._reader_depth = 0
        self._unheard = 0  # bytes since the parser last told of something
        parser = expat.ParserCreate("utf-8", namespace_separator=None)
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.SkippedEntityHandler = self._skipped_entity
        parser.EntityDeclHandler = self._refuse_entity
        self._parser = parser

    @property
    def root_kind(self) -> str:
        return self.root.rpartition(":")[2]

    @property
    def is_open(self) -> bool:
        """Whether the parser stopped inside an article."""
        return self._reader is not None

    @property
    def is_complete(self) -> bool:
        return bool(self.root) and not self._depth

    @property
    def is_refused(self) -> bool:
        return isinstance(self.error, _RefusedError)

    def read(self, source: _Source) -> Generator[str]:
        """Yields the articles; gives back to the source what comes from the error on."""
        self._parser.Parse(self._prolog, False)
        previous, start = b"", len(self._prolog)  # where `previous` starts for the parser
        while self.error is None:
            block = source.read()
            try:
                self._unheard += len(block)
                self._parser.Parse(block, not block)
                if self._unheard > _MOST_UNHEARD:
                    raise _RefusedError(f"a tag or comment of over {_MOST_UNHEARD:,} bytes")
            except (expat.ExpatError, _RefusedError) as error:
                self.error = error.with_traceback(None)  # which would hold all of this
                window = previous + block
                at = min(max(0, self._parser.ErrorByteIndex - start), len(window))
                self.lines = self._parser.ErrorLineNumber - 1
                self.consumed = start + at - len(self._prolog)
                source.push(window[at:])
            texts, self._texts = self._texts, []
            yield from texts
            if not block:
                break
            start, previous = start + len(previous), block
        del self._parser  # it holds this by its handlers

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth, self._unheard = self._depth + 1, 0
        if self._depth > _DEEPEST:
            raise _RefusedError(f"over {_DEEPEST:,} elements in each other")
        self.root = self.root or name
        name = name.rpartition(":")[2]
        if self._reader is None and name in _READERS:
            self._reader, self._reader_depth = _READERS[name](), self._depth
            self.has_articles = True
        if self._reader:
            self._reader.start(name, attributes)

    def _end(self, name: str) -> None:
        if self._reader:
            self._reader.end(name.rpartition(":")[2])
            if self._depth == self._reader_depth:
                self._texts.extend(self._reader.finish())
                self._reader = None
        self._depth, self._unheard = self._depth - 1, 0

    def _text(self, text: str) -> None:
        self._unheard = 0
        if self._reader:
            self._reader.text(text)

    def _skipped_entity(self, name: str, is_parameter: bool) -> None:
        if not is_parameter:
            self._text(html.unescape(f"&{name};"))

    def _refuse_entity(self, name: str, *_: object) -> None:
        raise _RefusedError(f"declares the entity {name!r}: refused")


def _clean_blocks(blocks: Iterable[bytes], where: str, report: ReadReport) -> Iterator[bytes]:
    """Yields XML as UTF-8 without the letters that end a parser's work."""
    blocks = iter(blocks)
    first = b""
    while len(first) < 256 and (block := next(blocks, None)) is not None:
        first += block
    declared = _DECLARED.search(first[:256])
    encoding = declared[1].decode() if declared else "utf-8"
    try:
        check_encoding(encoding)
    except ValueError:
        report.add_problem("unknown encoding in XML: read as utf-8", where, encoding)
        encoding = "utf-8"
    if codecs.lookup(encoding).name.startswith(("utf-16", "utf-32")):
        encoding = "utf-8"  # or its own declaration could not have been read
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    held, line, bad, first_bad = "", 1, 0, 0
    for block in recode_blocks(_chain(first, blocks), encoding, where, report):
        text = held + decoder.decode(block)
        # A reference such as "&#11;" may go on in the next block.
        start = text.rfind("&", max(0, len(text) - 12))
        text, held = (text[:start], text[start:]) if start >= 0 else (text, "")
        if (match := _BAD.search(text)) or "&#" in text:
            before = bad
            text, count = _replace_bad(text)
            bad += count
            text, count = _BAD_REFERENCE.subn("", text)
            bad += count
            if bad > before and not before:
                first_bad = line + (text.count("\n", 0, match.start()) if match else 0)
        line += text.count("\n")
        yield text.encode()
    held += decoder.decode(b"", final=True)
    held, count = _replace_bad(held)
    yield held.encode()
    if bad + count:
        report.add_problem(
            "letters that XML cannot hold removed or replaced",
            f"{where}:{first_bad or line}",
            f"{bad + count:,} times",
        )


def _replace_bad(text: str) -> tuple[str, int]:
    """Returns the text without the letters that XML cannot hold, and how many there were."""
    kept = _CONTROLS.sub("", text)  # in one go: a file may have gigabytes of NUL
    clean, replaced = _SURROGATES.subn("\ufffd", kept)
    return clean, len(text) - len(kept) + replaced


def _chain(first: bytes, blocks: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from blocks
