# SPDX-License-Identifier: Apache-2.0
"""Folders and archives: what is read by name or content, and what is left out by name and count."""

import bz2
import io
import json
import lzma
import tarfile
import tracemalloc
import zipfile

import pytest
from ml_collections import ConfigDict

from edad_jax.data.text.corpus import read_dataset, read_documents
from edad_jax.data.text.files import HIDDEN, list_files, why_left_out
from edad_jax.data.text.reading import ReadReport, read_blocks
from edad_jax.data.text.source import cut_text, describe_source, read_text

TEXT = b"First words. Second ones.\nThird line.\n\nOther doc begins. It ends.\n"
DOCUMENTS = ["First words. Second ones.\nThird line.", "Other doc begins. It ends."]
WIKI = b"""<doc id="12" url="https://x.example/wiki?curid=12" title="Anarch">
Anarch

Anarch is a made up thing. It has two sentences.

A second paragraph follows.

</doc>
<doc id="13" url="https://x.example/wiki?curid=13" title="Redirect">
Redirect



</doc>
<doc id="14" url="https://x.example/wiki?curid=14" title="Last">
Last

Last page.
"""
PAGES = [
    "Anarch\nAnarch is a made up thing. It has two sentences.\nA second paragraph follows.",
    "Last\nLast page.",
]


def read(folder, **options):
    report = ReadReport()
    return list(read_documents(list_files(folder, report), report=report, **options)), report


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def zip_of(files, compression=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_of(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


HIDDEN_FILES = {
    ".git/logs/HEAD": b"commit. message.",
    ".git/a.txt": b"commit. message.",
    "sub/.ipynb_checkpoints/a-checkpoint.txt": TEXT,
    ".~lock.a.txt": b"lock. x.",
    ".~lock.a.txt#": b"lock. x.",
    "~$a.txt": b"owner. x.",
    "__MACOSX/._a.txt": b"\0\5\x16\7\0\2\0\0Mac OS X",
    ".hidden.txt": b"Hidden. Text.",
}


def test_hidden_files_and_locks_are_left_out_and_counted(tmp_path):
    write(tmp_path, {"a.txt": TEXT, "README.txt": b"Read me.", **HIDDEN_FILES})
    documents, report = read(tmp_path)
    assert documents == ["Read me.", *DOCUMENTS] and not report.problems
    assert report.left_out[HIDDEN][0] == len(HIDDEN_FILES)
    assert f"{len(HIDDEN_FILES)} x left out: hidden file (the first: " in report.summary()


def test_a_member_without_a_name_costs_itself(tmp_path):
    whole = zip_of({"a.txt": TEXT, "b.txt": b"Lost."}, zipfile.ZIP_STORED)
    name = whole.rindex(b"b.txt")  # in the directory; its length stands 18 bytes before, and is
    # 5; that of a comment, which follows, 14 before. So the name becomes the comment.
    damaged = whole[: name - 18] + b"\0\0\0\0\5\0" + whole[name - 12 :]
    (tmp_path / "a.zip").write_bytes(damaged)
    (tmp_path / "b.tar").write_bytes(tar_of({"a.txt": TEXT, "": b"Lost."}))
    documents, report = read(tmp_path)
    assert documents == DOCUMENTS * 2 and not report.problems
    assert report.left_out["file without a name"][0] == 2


def test_a_zip_member_whose_second_name_is_damaged_costs_itself(tmp_path):
    whole = zip_of({"a.txt": TEXT, "b-\u00e9.txt": b"Lost."}, zipfile.ZIP_STORED)
    name = whole.index(b"b-")
    (tmp_path / "a.zip").write_bytes(whole[: name + 2] + b"\xff\xff" + whole[name + 4 :])
    documents, report = read(tmp_path)
    assert documents == DOCUMENTS
    assert report.problems["archive is damaged or cut short: kept what could be read"] == 1


def test_a_zip_archive_of_an_unknown_version_is_told(tmp_path):
    whole = zip_of({"a.txt": TEXT})
    entry = whole.rindex(b"PK\x01\x02")  # 6 bytes on: the version that is needed
    (tmp_path / "a.zip").write_bytes(whole[: entry + 6] + b"\x63" + whole[entry + 7 :])
    (tmp_path / "b.txt").write_bytes(TEXT)
    documents, report = read(tmp_path)
    assert documents == DOCUMENTS
    assert report.problems["archive is damaged or cut short: kept what could be read"] == 1


@pytest.mark.parametrize(("ending", "pack"), [(".zip", zip_of), (".tar", tar_of)])
def test_archives_leave_out_what_folders_do(tmp_path, ending, pack):
    files = {"a.txt": TEXT, "b/wiki_00": WIKI, "c.jpg": b"\xff", "d.pdf": b"x", "e.jpg": b"\xff"}
    files |= HIDDEN_FILES | {"inner.zip": zip_of({"a.txt": TEXT})}
    (tmp_path / f"a{ending}").write_bytes(pack(files))
    documents, report = read(tmp_path)
    assert documents == [*DOCUMENTS, *PAGES]
    assert {why: count for why, (count, _) in report.left_out.items()} == {
        HIDDEN: len(HIDDEN_FILES),
        ".jpg": 2,
        ".pdf": 1,
        ".zip in an archive": 1,
    }
    assert report.left_out[".jpg"][1] == f"{tmp_path / f'a{ending}'}:c.jpg"


def test_folder_that_is_itself_below_a_hidden_one_is_read(tmp_path):
    write(tmp_path, {".cache/text/a.txt": TEXT})
    assert read(tmp_path / ".cache" / "text")[0] == DOCUMENTS
    assert read(tmp_path / ".cache" / "text" / "a.txt")[0] == DOCUMENTS


def test_what_is_left_out_is_named_by_its_ending_and_counted(tmp_path):
    files = {f"{n}.md": TEXT for n in range(3)} | {
        "x.docx": b"x",
        "LICENSE": TEXT,
        "a.txt.lock": b"",
    }
    write(tmp_path, files)
    with pytest.raises(ValueError, match=r"left out: 3 x \.md \(.*0\.md\), 1 x") as caught:
        list_files(tmp_path)
    for each in (".docx", ".lock", "LICENSE", "--config.corpus.files"):
        assert each in str(caught.value)
    write(tmp_path, {"a.txt": TEXT})
    documents, report = read(tmp_path)
    assert documents == DOCUMENTS
    assert report.left_out[".md"] == [3, str(tmp_path / "0.md")]
    assert report.as_dict()["left_out"] == dict(sorted(report.left_out.items()))
    assert "left_out" not in ReadReport().as_dict()


@pytest.mark.parametrize("name", ["wiki_00", "wiki_00.txt", "AA/wiki_00.bz2", "wiki_00.xz"])
def test_blocks_of_wikiextractor_are_documents_without_their_tags(tmp_path, name):
    pack = {"bz2": bz2.compress, ".xz": lzma.compress}.get(name[-3:], bytes)
    write(tmp_path, {name: pack(WIKI)})
    for lines in (False, True):
        documents, report = read(tmp_path, lines=lines)
        assert documents == PAGES
        assert report.problems == {"document skipped: only a title": 1}
        assert report.messages[0].startswith(f"{tmp_path / name}:10: ")


def test_tags_in_the_middle_of_ordinary_text_are_text(tmp_path):
    write(tmp_path, {"a.txt": b'Before.\n\n<doc id="1">\nInside.\n'})
    assert read(tmp_path)[0] == ["Before.", '<doc id="1">\nInside.']


def test_content_tells_what_a_file_without_an_ending_is(tmp_path):
    article = b"<?xml version='1.0'?><article><body><p>Body.</p></body></article>"
    lines = b"".join(json.dumps({"id": n, "text": f"Page {n}."}).encode() + b"\n" for n in (1, 2))
    files = {
        "a": TEXT,
        "b": article,
        "c": lines,
        "d": TEXT.decode().encode("utf-16"),
        "e": b"\0\1\2" * 99,
    }
    write(tmp_path, files)
    documents, report = read(tmp_path)
    assert documents == [*DOCUMENTS, "Body.", "Page 1.", "Page 2.", *DOCUMENTS]
    assert report.problems["file skipped: no ending, and not text"] == 1
    assert report.messages[0].startswith(f"{tmp_path / 'e'}: file skipped")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt.bz2", bz2.compress(TEXT)),
        ("a.txt.bz2", bz2.compress(TEXT[:20]) + bz2.compress(TEXT[20:])),
        ("a.tar.bz2", bz2.compress(tar_of({"a.txt": TEXT}))),
        ("a.tbz2", bz2.compress(tar_of({"a.txt": TEXT}))),
        ("a.zip", zip_of({"x/": b"", "x/a.txt": TEXT})),
        ("a.zip", zip_of({"a.txt.bz2": bz2.compress(TEXT)}, zipfile.ZIP_BZIP2)),
    ],
)
def test_bz2_and_zip_give_the_same_documents(tmp_path, name, content):
    write(tmp_path, {name: content})
    documents, report = read(tmp_path)
    assert documents == DOCUMENTS and not report.problems


def test_damaged_zip_and_bz2_are_named_and_the_rest_is_read(tmp_path):
    noise = zip_of({"a.txt": TEXT, "b.txt": TEXT * 50}, zipfile.ZIP_STORED)
    broken = noise.replace(b"Third", b"Thurd", 1)  # another checksum
    files = {"a.zip": b"not at all", "b.zip": broken, "c.txt.bz2": bz2.compress(TEXT)[:-9]}
    write(tmp_path, {**files, "d.txt": TEXT})
    documents, report = read(tmp_path)
    assert documents[-2:] == DOCUMENTS and len(documents) >= 50
    for name in ("a.zip: ", "b.zip:a.txt: ", "c.txt.bz2: "):
        assert any(f"{tmp_path / name}"[:-1] in message for message in report.messages), name


@pytest.mark.parametrize(
    ("compression", "pack"), [(".bz2", bz2.compress), (".xz", lzma.compress), ("", zip_of)]
)
def test_bombs_unpack_within_bounded_memory(compression, pack):
    content = b"\n" * (100 << 20) + b"The end."
    file = io.BytesIO(pack(content) if compression else pack({"a.txt": content}))
    del content
    report = ReadReport()
    tracemalloc.start()
    opened = file if compression else zipfile.ZipFile(file).open("a.txt")
    size = sum(map(len, read_blocks(opened, compression, "a", report)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size == (100 << 20) + 8 and not report.problems
    assert peak < 16 << 20


def test_left_out_files_are_counted_once_for_the_whole_corpus(tmp_path):
    write(tmp_path, {"a.txt": TEXT, "b.txt": TEXT, "c.md": TEXT})
    corpus = ConfigDict(
        dict(files=str(tmp_path), dataset="", packages=(), text_key="text", encoding="utf-8")
    )
    corpus.lines = False
    report = ReadReport()
    assert list(read_text(corpus, report)) == DOCUMENTS * 2
    joined = ReadReport()
    for piece in cut_text(corpus, 2):
        each = ReadReport()
        list(piece(each))
        joined.add_report(each.as_dict())
    assert joined.left_out == report.left_out == {".md": [1, str(tmp_path / "c.md")]}
    corpus.encoding = "utf9"
    with pytest.raises(ValueError, match="got --config.corpus.encoding=utf9, expected"):
        describe_source(corpus)


def test_data_set_with_a_broken_row_is_one_line_that_says_what_to_do(tmp_path):
    rows = [json.dumps({"text": f"Doc {n} has words. And more."}) for n in range(20)]
    write(tmp_path, {"train.jsonl": "\n".join([*rows, '{"text": "broken', *rows]).encode()})
    with pytest.raises(ValueError, match="cannot be read after .* --config.corpus.files") as caught:
        list(read_dataset(str(tmp_path), report=ReadReport()))
    assert "\n" not in str(caught.value)


def test_names_say_what_is_no_text():
    for name in ("a.txt", "b/wiki_00", "b/c.txt.gz", "../a.txt", "c.json.bz2", "d.zip"):
        assert why_left_out(name) == ""
    assert why_left_out("b/.c/d.txt") == HIDDEN and why_left_out("b/c.PDF") == ".pdf"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ('{"text": "Some words."}\n', "JSON"),
        ("%PDF-1.4\nSome words.\n", "PDF"),
        ("{\\rtf1\\ansi Some words.}\n", "RTF"),
        ("\n<!DOCTYPE html><p>Some words.\n", "HTML"),
        ("<p>Some words. {\\rtf}\n", ""),
    ],
)
def test_what_only_its_name_calls_plain_text_is_told(tmp_path, content, kind):
    (tmp_path / "a.txt").write_text(content, encoding="utf-8")
    report = ReadReport()
    assert len(list(read_documents([tmp_path / "a.txt"], report=report))) == 1
    told = [each for each in report.problems if each.startswith(f"file looks like {kind} (")]
    assert len(told) == len(report.problems) == bool(kind)
