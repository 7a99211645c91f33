# SPDX-License-Identifier: Apache-2.0
"""Readers: every format, and every way in which a file can be bad."""

import gzip
import io
import json
import lzma
import random
import tarfile

import pyarrow as pa
import pyarrow.parquet
import pytest

from edad_jax.data.text import corpus, json_values, plain, reading
from edad_jax.data.text.corpus import read_dataset, read_documents
from edad_jax.data.text.files import list_files
from edad_jax.data.text.reading import ReadReport

DOCUMENTS = ["First line.\nSecond line.", "뇌는 세포로 이루어져 있다.", "Third: é."]
TEXT = "\n\n".join(DOCUMENTS).encode()


def read(*paths, **options):
    report = ReadReport()
    return list(read_documents(paths, report=report, **options)), report


def zstd(content):
    return pa.compress(content, codec="zstd", asbytes=True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", TEXT),
        ("a.txt", TEXT.replace(b"\n", b"\r\n") + b"\r\n"),
        ("a.txt", b"\xef\xbb\xbf\n\n" + TEXT + b"\n\n\n \n"),
        ("a.txt", TEXT.decode().encode("utf-16")),
        ("a.txt.gz", gzip.compress(TEXT)),
        ("a.txt.gz", gzip.compress(TEXT[:20]) + gzip.compress(TEXT[20:]) + b"\0" * 512),
        ("a.txt.xz", lzma.compress(TEXT)),
        ("a.txt.xz", lzma.compress(TEXT[:20]) + lzma.compress(TEXT[20:])),
        ("a.txt.zst", zstd(TEXT)),
        ("a.txt.zst", zstd(TEXT[:20]) + zstd(TEXT[20:])),
    ],
    ids="plain crlf bom utf16 gz two-gz xz two-xz zst two-zst".split(),
)
def test_plain_and_compressed_text_give_the_same_documents(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    documents, report = read(tmp_path / name)
    assert documents == DOCUMENTS
    assert report.documents == 3 and not report.problems
    assert report.text_bytes == sum(len(text.encode()) for text in DOCUMENTS)
    assert report.file_bytes == report.total_file_bytes == len(content)


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".zst"])
def test_json_lines_give_the_text_under_the_key(tmp_path, suffix):
    lines = [json.dumps({"body": text, "id": 1}).encode() for text in DOCUMENTS[:2]]
    lines.append(json.dumps({"body": ["Third:", "é."]}).encode())
    pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstd}[suffix]
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(pack(b"\n".join(lines)))
    assert read(path, text_key="body")[0] == [*DOCUMENTS[:2], "Third:\né."]


def test_parquet_whose_text_is_not_utf8_is_repaired_and_counted(tmp_path):
    """Found by benchmarks/fuzz_campaign.py: a byte of a string is wrong, and all ended there."""
    path = tmp_path / "a.parquet"
    for kind, value in ((pa.string(), "bad"), (pa.list_(pa.string()), ["one", "bad"])):
        good = "good" if kind == pa.string() else ["good"]
        column = pa.array([good, value, good, None], kind)
        pa.parquet.write_table(pa.table({"text": column}), path, compression="none")
        content = path.read_bytes().replace(b"bad", b"b\xffd")
        path.write_bytes(content)
        documents, report = read(path)
        assert documents == ["good", "b\ufffdd" if kind == pa.string() else "one\nb\ufffdd", "good"]
        assert report.problems["invalid UTF-8 replaced"] == 1
        assert f"{path}:2: invalid UTF-8" in report.messages[0]


def test_parquet_gives_the_column(tmp_path):
    path = tmp_path / "a.parquet"
    table = pa.table({"text": [*DOCUMENTS, None, " "], "id": list(range(5))})
    pa.parquet.write_table(table, path, row_group_size=2)
    documents, report = read(path)
    assert documents == DOCUMENTS
    assert report.problems == {
        "record skipped: its text is not a string": 1,
        "document without text": 1,
    }


ARTICLE = """<?xml version="1.0"?>
<!DOCTYPE article PUBLIC "-//NLM//DTD JATS v1.2//EN" "JATS-archivearticle1.dtd">
<article xmlns:mml="http://www.w3.org/1998/Math/MathML"><front><journal-meta>
<journal-title>Journal</journal-title></journal-meta><article-meta>
<title-group><article-title>On the <italic>brain</italic></article-title></title-group>
<abstract><title>Aim</title><p>We looked&#160;at it&nbsp;well.</p></abstract></article-meta></front>
<body><sec><label>1</label><title>Methods</title><p>Mice <xref ref-type="fig">Fig. 1</xref> ran
[<xref ref-type="bibr">1</xref>, <xref ref-type="bibr">2</xref>] far.
<disp-formula><mml:math><mml:mi>x</mml:mi></mml:math></disp-formula></p>
<table-wrap><table><tr><td>7</td></tr></table></table-wrap>
<fig><caption><p>A mouse.</p></caption></fig></sec></body>
<back><ack><p>Thanks.</p></ack><ref-list><ref><article-title>Other</article-title></ref></ref-list>
</back></article>"""
ARTICLE_TEXT = "On the brain\nAim\nWe looked at it well.\nMethods\nMice Fig. 1 ran far.\nA mouse."


def tar_of(files, mode="w:gz"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_articles_are_title_abstract_and_body(tmp_path):
    (tmp_path / "one.nxml").write_text(ARTICLE)
    (tmp_path / "two.xml.gz").write_bytes(gzip.compress(ARTICLE.encode()))
    files = {"PMC1/a.nxml": ARTICLE.encode(), "PMC1/a.jpg": b"\xff", "b.txt": TEXT}
    (tmp_path / "three.tar.gz").write_bytes(tar_of(files))
    (tmp_path / "four.tar.xz").write_bytes(lzma.compress(tar_of(files, "w")))
    documents, report = read(*list_files(str(tmp_path)))
    assert documents.count(ARTICLE_TEXT) == 4
    assert documents.count(DOCUMENTS[0]) == 2
    assert len(documents) == 10 and not report.problems


def test_entity_bomb_and_broken_article_are_skipped(tmp_path):
    bomb = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><article>&y;</article>'
    files = {"bomb.xml": bomb, "broken.nxml": ARTICLE[:700], "good.nxml": ARTICLE}
    content = {name: text.encode() for name, text in files.items()}
    (tmp_path / "a.tar.gz").write_bytes(tar_of(content))
    documents, report = read(tmp_path / "a.tar.gz")
    assert documents == [ARTICLE_TEXT]
    assert report.problems == {"article skipped: broken XML": 2}
    assert "a.tar.gz:bomb.xml:1: article skipped" in report.messages[0]
    assert "declares the entity 'x': refused" in report.messages[0]


def test_invalid_utf8_is_replaced_with_file_and_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"Good line.\nA b\xffd line with more text.\n\nNext document.")
    documents, report = read(path)
    assert documents == ["Good line.\nA b\ufffdd line with more text.", "Next document."]
    assert report.problems == {"invalid UTF-8 replaced": 1}
    assert f"{path}:2: invalid UTF-8 replaced" in report.messages[0]


def test_nul_bytes_are_removed_and_binary_lines_skipped(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"A line\0 with a NUL.\n" + bytes(range(128, 256)) * 3 + b"\nAnother.")
    documents, report = read(path)
    assert documents == ["A line with a NUL.\nAnother."]
    assert report.problems["NUL bytes removed"] == 1
    reason = "line skipped: over a quarter of it is not text (--config.corpus.encoding=...)"
    assert report.problems[reason] == 1
    assert any(message.startswith(f"{path}:2: line skipped") for message in report.messages)


def test_line_of_ten_megabytes_is_cut_at_white_space(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"Before.\n" + b"word " * 2_000_000 + b"\nAfter.\n\nNext.")
    documents, report = read(path)
    assert max(map(len, documents)) <= reading.MAX_DOCUMENT_CHARACTERS
    words = " ".join(documents).split()
    assert words == ["Before.", *["word"] * 2_000_000, "After.", "Next."]
    assert report.problems["line longer than 1,048,576 bytes cut"] == 1
    assert documents[-1] == "Next."


def test_long_line_without_white_space_keeps_every_letter(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("뇌" * 1_000_000 + "\n\nNext.", encoding="utf-8")
    documents, report = read(path)
    assert "".join(documents).replace("\n", "") == "뇌" * 1_000_000 + "Next."
    assert "invalid UTF-8 replaced" not in report.problems


def test_too_long_json_line_is_skipped_and_the_next_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(json_values, "MAX_RECORD_BYTES", 200_000)
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"text": text}) for text in ("One.", "x" * 3_000_000, "Two.")]
    path.write_text("\n".join(lines))
    documents, report = read(path)
    assert documents == ["One.", "Two."]
    assert report.problems == {"line longer than 200,000 bytes skipped": 1}
    assert f"{path}:2: line longer" in report.messages[0]


def test_broken_json_line_and_missing_key_are_skipped_with_file_and_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "One."}\n{"text": "cut\n{"body": 1}\n[1]\n{"text": 5}\n"x"\n\n')
    documents, report = read(path)
    assert documents == ["One."]
    assert report.problems["line skipped: not JSON"] == 1
    assert report.problems["line skipped: no 'text' (--config.corpus.text_key=...)"] == 3
    assert report.problems["record skipped: its text is not a string"] == 1
    assert any(f"{path}:2: line skipped: not JSON" in message for message in report.messages)


def test_half_a_surrogate_pair_in_json_is_replaced(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a \\ud800 b"}\n')
    documents, report = read(path)
    assert documents == ["a ? b"]
    assert report.problems == {"invalid Unicode replaced": 1}


@pytest.mark.parametrize(
    ("name", "pack"),
    [("a.txt.gz", gzip.compress), ("a.txt.xz", lzma.compress), ("a.txt.zst", zstd)],
    ids="gz xz zst".split(),
)
def test_truncated_or_corrupt_compressed_file_keeps_what_could_be_read(tmp_path, name, pack):
    generator = random.Random(0)  # incompressible, so that half the file is half the text
    documents = [generator.randbytes(1000).hex() for _ in range(300)]
    content = pack("\n\n".join(documents).encode())
    good = tmp_path / "z.txt"
    good.write_bytes(TEXT)
    path = tmp_path / name
    path.write_bytes(content[: len(content) // 2])
    found, report = read(path, good)
    assert found[-3:] == DOCUMENTS
    assert found[:100] == documents[:100]
    assert report.problems == {"file is damaged or cut short: kept what could be read": 1}
    assert str(path) in report.messages[0]
    broken = bytearray(content)
    broken[len(content) // 2 : len(content) // 2 + 64] = b"\xff" * 64
    path.write_bytes(broken)
    found, report = read(path, good)
    assert found[-3:] == DOCUMENTS
    assert found[:100] == documents[:100]
    if pack is not zstd:  # pyarrow writes no checksum, so letters may change unnoticed
        assert "file is damaged or cut short: kept what could be read" in report.problems


def test_file_that_is_not_what_its_name_says_is_reported(tmp_path):
    names = ("a.txt.gz", "a.jsonl.xz", "a.txt.zst", "a.parquet", "a.tar.gz", "a.tar", "a.nxml")
    for name in names:
        (tmp_path / name).write_bytes(b"not at all " * 100)
    (tmp_path / "z.txt").write_bytes(TEXT)
    documents, report = read(*list_files(tmp_path))
    assert documents == DOCUMENTS
    for name in names:
        assert any(f"{tmp_path / name}" in message for message in report.messages), name


def test_truncated_archive_keeps_its_first_articles(tmp_path):
    noise = random.Random(0).randbytes(40_000)
    files = {"a.nxml": ARTICLE.encode(), "b.jpg": noise, "c.nxml": ARTICLE.encode()}
    content = tar_of(files)
    (tmp_path / "a.tar.gz").write_bytes(content[:20_000])
    documents, report = read(tmp_path / "a.tar.gz")
    assert documents == [ARTICLE_TEXT]
    assert sum("cut short" in problem for problem in report.problems) >= 1


def test_bytes_after_the_compressed_data_are_reported(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(TEXT) + b"garbage")
    documents, report = read(path)
    assert documents == DOCUMENTS
    assert report.problems == {"bytes after the end of the compressed data": 1}


def test_file_that_vanishes_between_listing_and_reading_is_reported(tmp_path):
    for name in ("a.txt", "b.txt", "c.parquet"):
        (tmp_path / name).write_bytes(TEXT)
    files = list_files(tmp_path)
    (tmp_path / "a.txt").unlink()
    (tmp_path / "c.parquet").unlink()
    documents, report = read(*files)
    assert documents == DOCUMENTS
    assert report.problems == {"file cannot be read": 2}
    assert "a.txt: file cannot be read (No such file" in report.messages[0]


def test_empty_file_is_reported_and_empty_corpus_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"")
    (tmp_path / "b.txt").write_bytes(b"\n \n\n")
    report = ReadReport()
    with pytest.raises(ValueError, match="got 0 documents from 2 files.*--config.corpus.files"):
        list(read_documents(list_files(tmp_path), report=report))
    assert report.problems == {"empty file": 1, "no document in the file": 1}


def test_text_without_blank_lines_is_cut_into_documents(tmp_path, monkeypatch):
    monkeypatch.setattr(plain, "MAX_DOCUMENT_CHARACTERS", 1000)
    path = tmp_path / "a.txt"
    path.write_text("A line of text.\n" * 200)
    documents, report = read(path)
    assert len(documents) == 4 and max(map(len, documents)) <= 1000
    assert sum(document.count("A line") for document in documents) == 200
    assert any("is there a blank line" in problem for problem in report.problems)


def test_listing_expands_globs_and_folders_once_each(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.txt", "a.jsonl", "sub/c.txt.gz", "sub/readme.md"):
        (tmp_path / name).write_bytes(TEXT)
    names = [path.name for path in list_files([str(tmp_path / "*.txt"), tmp_path])]
    assert names == ["b.txt", "a.jsonl", "c.txt.gz"]
    assert [p.name for p in list_files(str(tmp_path / "**/*.gz"))] == ["c.txt.gz"]


def test_nothing_listed_is_an_error_that_names_the_option(tmp_path):
    for patterns in (str(tmp_path / "*.txt"), [tmp_path], [], str(tmp_path / "gone.txt")):
        with pytest.raises(ValueError, match="--config.corpus.files"):
            list_files(patterns)


def test_unknown_format_and_unknown_column_are_reported(tmp_path):
    (tmp_path / "a.docx").write_bytes(b"x")
    pa.parquet.write_table(pa.table({"body": ["x"]}), tmp_path / "b.parquet")
    (tmp_path / "c.txt").write_bytes(TEXT)
    documents, report = read(*sorted(tmp_path.iterdir()))
    assert documents == DOCUMENTS
    assert any("a.docx: file skipped: not one of .txt" in message for message in report.messages)
    assert any("no column 'text'" in message for message in report.messages)


def test_other_encodings_are_read(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\n\n".join(DOCUMENTS[1:2]).encode("euc-kr"))
    assert read(path, encoding="euc-kr")[0] == DOCUMENTS[1:2]


def test_korean_in_its_old_encoding_is_skipped_and_the_option_is_named(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("뇌는 세포로 이루어져 있다.\n세포는 작다.".encode("cp949"))
    with pytest.raises(
        ValueError, match=r"2 x line skipped: .*\(--config.corpus.encoding=\.\.\.\)"
    ):
        read(path)
    assert read(path, encoding="cp949")[0] == ["뇌는 세포로 이루어져 있다.\n세포는 작다."]


NEWS = ["Rates rise.", "뇌는 세포로 이루어져 있다.", "One. Two."]
LINES = "\n".join([NEWS[0], "", *NEWS[1:], " ", ""]).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", LINES),
        ("a.txt", LINES.replace(b"\n", b"\r\n").rstrip()),
        ("a.txt.gz", gzip.compress(LINES)),
        ("a.txt.xz", lzma.compress(LINES)),
        ("a.txt.zst", zstd(LINES)),
        ("a.tar.gz", tar_of({"b.txt": LINES})),
    ],
    ids="plain crlf gz xz zst tar".split(),
)
def test_every_line_may_be_a_document(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    documents, report = read(tmp_path / name, lines=True)
    assert documents == NEWS
    assert report.documents == 3 and not report.problems


def test_lines_are_documents_in_text_files_alone(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": DOCUMENTS[0]}))
    assert read(path, lines=True)[0] == DOCUMENTS[:1]


def test_report_keeps_the_first_messages_only(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("broken\n" * 500 + '{"text": "One."}')
    _, report = read(path)
    assert report.problems["line skipped: not JSON"] == 500
    assert len(report.messages) == reading.KEPT_MESSAGES
    assert "500 x line skipped: not JSON" in report.summary()


def test_data_set_on_disk_and_folder_of_files_are_read(tmp_path):
    import datasets

    data = datasets.Dataset.from_dict({"text": [*DOCUMENTS, None]})
    data.save_to_disk(tmp_path / "saved")
    report = ReadReport()
    assert list(read_dataset(str(tmp_path / "saved"), report=report)) == DOCUMENTS
    assert report.problems == {"record skipped: its text is not a string": 1}
    (tmp_path / "files").mkdir()
    data.to_json(tmp_path / "files" / "train.jsonl")
    report = ReadReport()
    assert list(read_dataset(str(tmp_path / "files"), report=report)) == DOCUMENTS
    with pytest.raises(ValueError, match="expected 'body'"):
        list(read_dataset(str(tmp_path / "saved"), text_key="body", report=report))


def test_unreachable_hub_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(corpus, "is_hub_reachable", lambda: False)
    with pytest.raises(ValueError, match="cannot be reached; give a local folder, or files: --con"):
        list(read_dataset("some-owner/some-data", report=ReadReport()))
