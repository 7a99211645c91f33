# SPDX-License-Identifier: Apache-2.0
"""Articles in XML: sets, sub-articles, PubMed, files joined to one, and damage to each."""

import gzip
import tracemalloc

import pytest

from edad_jax.data.text.articles import read_articles
from edad_jax.data.text.corpus import read_documents
from edad_jax.data.text.reading import ReadReport

BROKEN = "article skipped: broken XML"


def read(content, block_bytes=None):
    content = content.encode() if isinstance(content, str) else content
    size = block_bytes or max(1, len(content))
    blocks = (content[i : i + size] for i in range(0, len(content), size))
    report = ReadReport()
    return list(read_articles(blocks, "a.xml", report)), report


def article(number, body=None):
    body = body or f"<p>Body {number}.</p>"
    title = f"<title-group><article-title>T{number}</article-title></title-group>"
    return f"<article>\n<front>{title}</front><body>{body}</body></article>\n"


def text(*numbers):
    return [f"T{number}\nBody {number}." for number in numbers]


def set_of(*articles):
    return f"<?xml version='1.0'?>\n<pmc-articleset>\n{''.join(articles)}</pmc-articleset>\n"


def test_translation_review_and_reply_are_documents_of_their_own():
    sub = (
        '<sub-article article-type="translation"><front-stub><title-group><article-title>Titulo'
        "</article-title></title-group></front-stub><body><p>Corpo.</p></body></sub-article>"
        "<sub-article><body><p>Review.</p></body><response><body><p>Reply.</p></body></response>"
        "</sub-article><response><body><p>Second reply.</p></body></response>"
    )
    documents, report = read(article(1).replace("</article>\n", sub + "</article>"))
    assert documents == [*text(1), "Titulo\nCorpo.", "Review.", "Reply.", "Second reply."]
    assert not report.problems


def test_break_is_a_space():
    title = "<title-group><article-title>On<break/>cells</article-title></title-group>"
    content = f"<article><front>{title}</front><body><p>One<break/>two.</p></body></article>"
    assert read(content)[0] == ["On cells\nOne two."]


@pytest.mark.parametrize("block_bytes", [1, 7, 64, 100_000])
@pytest.mark.parametrize(
    ("bad", "good"),
    [
        (b"Bo\x0bdy", "Body"),
        (b"Bo\x00dy", "Body"),
        (b"Bo&#11;dy", "Body"),
        (b"Bo&#x1F;dy", "Body"),
        (b"Bo&#xFFFE;dy", "Body"),
        (b"Bo\xef\xbf\xbfdy", "Body"),
        (b"Bo\xe9dy", "Bo\ufffddy"),
    ],
)
def test_letter_that_xml_cannot_hold_costs_itself(bad, good, block_bytes):
    content = set_of(article(0), article(1, "<p>XX 1.</p>"), article(2)).encode()
    documents, report = read(content.replace(b"XX", bad), block_bytes)
    assert documents == [*text(0), f"T1\n{good} 1.", *text(2)]
    assert report.problems == {"letters that XML cannot hold removed or replaced": 1}
    assert report.messages[0].startswith("a.xml:") and "(1 times)" in report.messages[0]


@pytest.mark.parametrize("block_bytes", [1, 50, 100_000])
@pytest.mark.parametrize(
    "bad", ["a & b", "p < 0.05", "</i>", "<p>", "&undefined;", "<a b=c>", "]]>", "<x y='1' y='2'/>"]
)
def test_broken_article_of_a_set_costs_itself_and_is_named_with_its_line(bad, block_bytes):
    broken = article(3, f"\n<p>Bad {bad} here.</p>")
    content = set_of(*map(article, range(3)), broken, *map(article, range(4, 20)))
    documents, report = read(content, block_bytes)
    assert documents == text(*range(3), *range(4, 20))
    assert report.problems == {BROKEN: 1}
    line = 1 + content[: content.index("Bad")].count("\n")
    assert report.messages[0].startswith((f"a.xml:{line}: ", f"a.xml:{line + 1}: "))


def test_several_broken_articles_are_each_counted():
    bodies = {n: f"<p>{n} & </p>" for n in (0, 7, 8, 19)}
    content = set_of(*(article(n, bodies.get(n)) for n in range(20)))
    documents, report = read(content, 300)
    assert documents == text(*(n for n in range(20) if n not in bodies))
    assert report.problems == {BROKEN: 4}


def test_entities_of_the_doctype_are_known_after_damage():
    doctype = '<!DOCTYPE pmc-articleset PUBLIC "-//NLM" "x.dtd">\n<pmc-articleset>'
    articles = [article(0), article(1, "<p>&</p>"), article(2, "<p>A&nbsp;b.</p>")]
    content = set_of(*articles).replace("<pmc-articleset>", doctype)
    assert read(content)[0] == [*text(0), "T2\nA b."]


def test_set_that_is_cut_short_keeps_its_whole_articles():
    documents, report = read(set_of(*map(article, range(5)))[:-60])
    assert documents == text(0, 1, 2, 3)
    assert report.problems == {BROKEN: 1}


@pytest.mark.parametrize("block_bytes", [1, 40, 100_000])
@pytest.mark.parametrize(
    "declaration",
    [
        "",
        "<?xml version='1.0'?>\n",
        '\ufeff<?xml version="1.0"?>',
        '<?xml version="1.0"?>\n<!DOCTYPE article PUBLIC "-//NLM//DTD" "a.dtd">\n',
    ],
    ids=["bare", "xml", "bom", "doctype"],
)
def test_files_joined_to_one_are_all_read(declaration, block_bytes):
    documents, report = read("".join(declaration + article(n) for n in range(5)), block_bytes)
    assert documents == text(*range(5)) and not report.problems
    documents, report = read(declaration + set_of(article(5))[22:] + set_of(*map(article, (6, 7))))
    assert documents == text(5, 6, 7) and not report.problems


def test_file_that_is_cut_short_before_another_costs_its_own_article():
    content = "<?xml version='1.0'?>" + article(0)[:60] + "<?xml version='1.0'?>" + article(1)
    documents, report = read(content)
    assert documents == text(1) and report.problems == {BROKEN: 1}


def test_what_follows_the_last_article_is_named():
    documents, report = read(article(0) + "garbage, no XML")
    assert documents == text(0)
    assert report.problems == {"bytes after the end of the XML": 1}


def test_articles_of_an_archive_interface_are_read_after_damage():
    records = "".join(
        f"<record><metadata>{article(n, '<p>&</p>' * (n == 1) or None)}</metadata></record>"
        for n in range(4)
    )
    documents, report = read(f"<OAI-PMH><ListRecords>{records}</ListRecords></OAI-PMH>")
    assert documents == text(0, 2, 3) and report.problems == {BROKEN: 1}


PUBMED = """<PubmedArticle><MedlineCitation><PMID>{n}</PMID><Article><Journal><Title>J</Title>
</Journal><ArticleTitle>Title <i>E. coli</i> {n}.</ArticleTitle><Abstract>
<AbstractText Label="AIM">We asked {n}.</AbstractText>
<AbstractText>We <b>found</b> H&lt;sub&gt;2&lt;/sub&gt;O.</AbstractText>
<CopyrightInformation>C</CopyrightInformation></Abstract></Article><OtherAbstract><AbstractText>Nous.
</AbstractText></OtherAbstract></MedlineCitation></PubmedArticle>
"""


def pubmed(*numbers):
    body = "".join(PUBMED.replace("{n}", str(n)) for n in numbers)
    prolog = '<?xml version="1.0"?>\n<!DOCTYPE x SYSTEM "x.dtd">\n'
    return f"{prolog}<PubmedArticleSet>{body}</PubmedArticleSet>"


def test_pubmed_gives_title_and_abstract_of_each_citation(tmp_path):
    path = tmp_path / "pubmed24n0001.xml.gz"
    path.write_bytes(gzip.compress(pubmed(0, 1, 2).encode()))
    report = ReadReport()
    documents = list(read_documents([path], report=report))
    assert documents == [f"Title E. coli {n}.\nWe asked {n}.\nWe found H2O." for n in range(3)]
    assert not report.problems


def test_pubmed_goes_on_after_a_broken_citation_and_in_files_joined_to_one():
    content = pubmed(0, 1, 2).replace("asked 1", "asked & 1") + pubmed(3) + pubmed(4)[22:]
    documents, report = read(content, 100)
    assert [each[14:16] for each in documents] == ["0.", "2.", "3.", "4."]
    assert report.problems == {BROKEN: 1}


def test_other_xml_is_named_by_its_root_element():
    documents, report = read("<?xml version='1.0'?><tei:TEI xmlns:tei='x'><p>a</p></tei:TEI>")
    assert documents == []
    assert report.problems == {"file skipped: XML without articles": 1}
    assert "its root element is <tei:TEI>, expected JATS" in report.messages[0]


def test_entities_of_its_own_end_a_file_and_what_is_lost_is_counted():
    bomb = "<!DOCTYPE a [<!ENTITY x 'ha'>]><pmc-articleset>" + "".join(map(article, range(3)))
    documents, report = read(bomb + "</pmc-articleset>")
    assert documents == []
    assert "declares the entity 'x': refused; 3 articles from here on not" in report.messages[0]


@pytest.mark.parametrize("encoding", ["utf-16", "iso-8859-1", "windows-1252", "euc-kr"])
def test_declared_encoding_is_read(encoding):
    word = "뇌" if encoding in ("euc-kr", "utf-16") else "é"
    content = f'<?xml version="1.0" encoding="{encoding}"?>' + article(0, f"<p>{word} b.</p>")
    documents, report = read(content.encode(encoding))
    assert documents == [f"T0\n{word} b."] and not report.problems


def test_encoding_that_is_false_or_unknown_does_not_lose_the_article():
    for encoding in ("UTF-16", "x-none"):
        content = f'<?xml version="1.0" encoding="{encoding}"?>' + article(0)
        assert read(content)[0] == text(0)


def test_memory_does_not_grow_with_the_file_or_its_damage():
    def blocks():
        yield b"<pmc-articleset>"
        for n in range(900):
            yield article(n, "<p>" + "word " * 2000 + "&" * (n % 3 == 0) + "</p>").encode()

    report = ReadReport()
    tracemalloc.start()
    count = sum(1 for _ in read_articles(blocks(), "a.xml", report))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 600 and report.problems == {BROKEN: 300}
    assert peak < 3 << 20  # of 9 MB
