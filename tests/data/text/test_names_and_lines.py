# SPDX-License-Identifier: Apache-2.0
"""Names of files that are not UTF-8, ends of lines of old Macs, lines that show nothing."""

import io
import json
import os
import tarfile

import pytest
from ml_collections import ConfigDict

from edad_jax.data.text.corpus import read_documents
from edad_jax.data.text.files import list_files
from edad_jax.data.text.reading import ReadReport, shown
from edad_jax.data.text.source import describe_source

TEXT = "First words. Second ones.\nThird line.\n\nOther doc begins. It ends.\n"
DOCUMENTS = ["First words. Second ones.\nThird line.", "Other doc begins. It ends."]


def read(*paths, **options):
    report = ReadReport()
    return list(read_documents(paths, report=report, **options)), report


def test_file_whose_name_is_not_utf8_is_read_and_named_in_any_message(tmp_path):
    name = os.path.join(os.fsencode(tmp_path), b"caf\xe9.txt")
    try:
        with open(name, "wb") as file:
            file.write(TEXT.encode() + b"\nA b\xffd letter.\n")
    except OSError:
        pytest.skip("this file system takes no such name")
    documents, report = read(*list_files(tmp_path))
    assert documents == [*DOCUMENTS, "A b\ufffdd letter."]
    assert "caf\\xe9.txt:6: invalid UTF-8 replaced" in report.messages[0]
    report.summary().encode()
    json.dumps(report.as_dict(), ensure_ascii=False).encode()
    corpus = ConfigDict(dict(files=str(tmp_path), dataset="", packages=(), text_key="text"))
    corpus.update(encoding="utf-8", lines=False)
    described = json.dumps(describe_source(corpus), ensure_ascii=False)
    assert "caf\\\\xe9.txt" in described and described.encode()


def test_surrogates_are_shown_and_ordinary_names_stay():
    assert shown("b\udcb0\udca1.txt") == "b\\xb0\\xa1.txt"
    assert shown("half \ud800 pair") == "half \\ud800 pair"
    assert shown("뇌 é.txt") == "뇌 é.txt"


def test_members_of_an_archive_in_cp949_are_read_and_named(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="cp949") as archive:
        for name, content in (("뇌/가.txt", TEXT), ("뇌/나.jsonl", "broken\n")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content.encode()))
    documents, report = read(path)
    assert documents == DOCUMENTS
    assert report.problems == {"line skipped: not JSON": 1}
    assert report.messages[0].startswith(f"{path}:\\xb3\\xfa/\\xb3\\xaa.jsonl:1: line skipped")
    report.summary().encode()


@pytest.mark.parametrize("end", ["\r", "\r\n", "\r\r\n", "\n"])
def test_every_end_of_a_line_gives_the_same_documents(tmp_path, end):
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT.replace("\n", end).encode())
    documents, report = read(path)
    assert documents == DOCUMENTS and not report.problems
    lines = tmp_path / "a.jsonl"
    lines.write_bytes(end.join(json.dumps({"text": text}) for text in DOCUMENTS).encode())
    assert read(lines)[0] == DOCUMENTS


def test_forty_documents_of_an_old_mac_are_forty(tmp_path):
    path = tmp_path / "a.txt"
    texts = [f"Document {n}. It ends.\nIts line." for n in range(40)]
    path.write_bytes("\n\n".join(texts).replace("\n", "\r").encode())
    assert read(path)[0] == texts


def test_hundreds_of_thousands_of_returns_take_no_time_and_end_lines(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"One." + b"\r" * 300_000 + b"Two.")
    assert read(path)[0] == ["One.", "Two."]


def test_ends_of_lines_inside_a_record_are_one_kind(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "One.\rTwo.\r\nThree.\r\r\nFour."}))
    assert read(path)[0] == ["One.\nTwo.\nThree.\nFour."]


@pytest.mark.parametrize(
    "blank",
    ["\u3000", "\u00a0", "\u2003 \t", "\u200b", "\ufeff", "\u00a0\u200b\u3000", "\u3164", "\u2800"],
)
def test_line_that_shows_nothing_stands_between_documents(tmp_path, blank):
    path = tmp_path / "a.txt"
    path.write_text(f"One.\nMore.\n{blank}\nTwo.\n{blank}\n", encoding="utf-8")
    documents, report = read(path)
    assert documents == ["One.\nMore.", "Two."] and not report.problems
    assert read(path, lines=True)[0] == ["One.", "More.", "Two."]


def test_line_that_is_skipped_is_no_end_of_a_document(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"One.\n" + b"\xff" * 20 + b"\nTwo.")
    assert read(path)[0] == ["One.\nTwo."]
