# SPDX-License-Identifier: Apache-2.0
"""Encodings: what a mark, NUL bytes or the option say, and names that are no encoding."""

import codecs

import pytest

from edad_jax.data.text.corpus import read_documents
from edad_jax.data.text.encodings import check_encoding
from edad_jax.data.text.reading import ReadReport

LATIN = ["First words here. Second ones.", "Another document."]
KOREAN = ["뇌는 세포로 이루어져 있다.\n세포는 작다.", "다른 문서가 여기 있다. 끝."]


def read(path, **options):
    report = ReadReport()
    return list(read_documents([path], report=report, **options)), report


@pytest.mark.parametrize(
    "name",
    ["utf9", "", "hex", "rot13", "undefined", "idna", "a\0b", "punycode", "raw-unicode-escape"],
)
def test_name_that_is_no_encoding_is_one_line_before_anything_is_read(tmp_path, name):
    with pytest.raises(ValueError, match="--config.corpus.encoding=.*give utf-8") as caught:
        read(tmp_path / "never-opened.txt", encoding=name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["utf-8", "UTF8", "utf-16", "cp949", "euc_kr", "latin-1", "utf-7"])
def test_names_of_encodings_are_taken(name):
    check_encoding(name)


@pytest.mark.parametrize("texts", [LATIN, KOREAN], ids=["latin", "korean"])
@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("utf-8", codecs.BOM_UTF8),
        ("utf-16-le", codecs.BOM_UTF16_LE),
        ("utf-16-be", codecs.BOM_UTF16_BE),
        ("utf-32-le", codecs.BOM_UTF32_LE),
        ("utf-32-be", codecs.BOM_UTF32_BE),
    ],
)
def test_byte_order_mark_decides_over_the_option(tmp_path, encoding, mark, texts):
    path = tmp_path / "a.txt"
    path.write_bytes(mark + "\n\n".join(texts).encode(encoding))
    for option in ("utf-8", "utf-16", "cp949"):
        documents, report = read(path, encoding=option)
        assert documents == texts
        assert not report.problems


@pytest.mark.parametrize("texts", [LATIN, KOREAN], ids=["latin", "korean"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_wide_text_without_a_mark_is_known_by_its_nul_bytes(tmp_path, encoding, texts):
    path = tmp_path / "a.txt"
    path.write_bytes("\n\n".join(texts).encode(encoding))
    for option in ("utf-8", encoding[:6]):
        documents, report = read(path, encoding=option)
        assert documents == texts
        assert report.messages == [
            f"{path}: no byte order mark: read as {encoding} (--config.corpus.encoding=...)"
        ]


@pytest.mark.parametrize("option", ["utf-16", "utf-32"])
def test_wide_encoding_that_a_file_is_not_in_skips_the_file_and_names_it(tmp_path, option):
    (tmp_path / "a.txt").write_text("\n\n".join(LATIN), encoding="utf-8")
    good = tmp_path / "b.txt"
    good.write_text("\n\n".join(LATIN), encoding=option)
    report = ReadReport()
    files = [tmp_path / "a.txt", good]
    assert list(read_documents(files, report=report, encoding=option)) == LATIN
    assert any(
        message.startswith(f"{tmp_path / 'a.txt'}: file skipped: no byte order mark")
        and "--config.corpus.encoding=utf-8" in message
        for message in report.messages
    )


def test_nul_bytes_in_ordinary_text_do_not_make_it_wide(tmp_path):
    path = tmp_path / "a.txt"
    for text in ("A line\0 with\0 one\0 or two\0.", "뇌는\0 세포로\0 이루어져\0 있다.\0"):
        content = text.encode()
        path.write_bytes(content)
        documents, report = read(path)
        assert documents == [content.replace(b"\0", b"").decode()]
        assert report.problems == {"NUL bytes removed": 1}
