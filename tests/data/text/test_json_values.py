# SPDX-License-Identifier: Apache-2.0
"""JSON that is one value: arrays, {"data": [...]}, records over several lines, and damage."""

import json
import tracemalloc

import pytest

from edad_jax.data.text import json_values
from edad_jax.data.text.corpus import read_documents
from edad_jax.data.text.json_values import read_json
from edad_jax.data.text.reading import ReadReport

TEXTS = ["One. It is.", "뇌는 세포로 이루어져 있다.", 'Three "quoted".\nIts line.']
OBJECTS = [{"id": n, "text": text, "tags": ["a", {"b": 1}]} for n, text in enumerate(TEXTS)]
NO_TEXT = "record skipped: no 'text' (--config.corpus.text_key=...)"


def read(content, block_bytes=None, text_key="text"):
    content = content.encode() if isinstance(content, str) else content
    size = block_bytes or max(1, len(content))
    report = ReadReport()
    blocks = (content[i : i + size] for i in range(0, len(content), size))
    return list(read_json(blocks, "a.json", report, text_key)), report


FORMS = {
    "array": json.dumps(OBJECTS),
    "letters": json.dumps(OBJECTS, ensure_ascii=False),
    "indented": json.dumps(OBJECTS, indent=2, ensure_ascii=False),
    "strings": json.dumps(TEXTS),
    "indented-strings": "\n\n" + json.dumps(TEXTS, indent=1),
    "object-a-line": "[" + ",\n".join(map(json.dumps, OBJECTS)) + "]\n",
    "bracket-alone": "[\n" + ",\n".join(map(json.dumps, OBJECTS)) + "\n]\n",
    "data": json.dumps({"data": OBJECTS}),
    "data-after-facts": json.dumps({"version": 1, "facts": {"n": [1]}, "data": OBJECTS}, indent=1),
    "data-of-strings": json.dumps({"data": TEXTS}),
    "other-key": json.dumps({"rows": OBJECTS, "n": 3}, indent=4),
    "one-after-another": "\n".join(json.dumps(each, indent=2) for each in OBJECTS),
    "lines": "\n".join(map(json.dumps, OBJECTS)),
    "lists-of-lines": json.dumps([{"text": text.split("\n")} for text in TEXTS], indent=1),
}


@pytest.mark.parametrize("block_bytes", [1, 5, 100_000])
@pytest.mark.parametrize("form", list(FORMS))
def test_every_form_gives_the_same_documents(form, block_bytes):
    documents, report = read(FORMS[form], block_bytes)
    assert documents == TEXTS
    assert not report.problems


@pytest.mark.parametrize("form", ["indented", "object-a-line", "one-after-another", "lines"])
@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_every_end_of_a_line_will_do(form, end):
    documents, report = read(FORMS[form].replace("\n", end))
    assert documents == TEXTS and not report.problems


def test_files_of_that_kind_are_read_by_their_names(tmp_path):
    for name, form in (("a.json", "array"), ("b.json", "indented"), ("c.jsonl", "data")):
        (tmp_path / name).write_text(FORMS[form], encoding="utf-8")
    files = sorted(tmp_path.iterdir())
    assert list(read_documents(files, report=ReadReport())) == TEXTS * 3
    (tmp_path / "d.json").write_bytes(FORMS["letters"].encode("utf-16"))
    assert list(read_documents([tmp_path / "d.json"], report=ReadReport())) == TEXTS


def test_large_array_on_one_line_is_read_as_it_comes():
    def blocks():
        yield b"["
        for n in range(300):
            yield (b", " if n else b"") + json.dumps({"text": f"{n} " + "word " * 10_000}).encode()
        yield b"]"

    report = ReadReport()
    tracemalloc.start()
    count = sum(1 for _ in read_json(blocks(), "a.json", report, "text"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 300 and not report.problems
    assert peak < 4 << 20  # of 15 MB


def test_records_without_the_text_are_counted_with_their_line():
    records = [{"text": "One."}, {"body": "Two."}, 3, {"text": "Four."}, {"text": 5}]
    documents, report = read("[" + ",\n".join(map(json.dumps, records)) + "]")
    assert documents == ["One.", "Four."]
    assert report.problems == {NO_TEXT: 2, "record skipped: its text is not a string": 1}
    assert report.messages[0] == f"a.json:2: {NO_TEXT} (body)"
    one_line, report = read(json.dumps(records))
    assert one_line == documents and report.problems[NO_TEXT] == 2
    assert read(json.dumps({"data": records}, indent=1), text_key="body")[0] == ["Two."]


def test_object_without_any_record_names_its_keys():
    documents, report = read(json.dumps({"version": 1, "rows": []}, indent=1))
    assert documents == [] and report.messages == [f"a.json:1: {NO_TEXT} (version, rows)"]


@pytest.mark.parametrize("block_bytes", [1, 100_000])
@pytest.mark.parametrize("bad", ['{"text": "cut},', '{"text" "x"},', '{"text": nope},', "{]},"])
def test_broken_record_costs_itself_and_is_named_with_its_line(bad, block_bytes):
    lines = ["[", '{"text": "One."},', bad, '{"text": "Two."},', '{"text": "Three."}', "]"]
    documents, report = read("\n".join(lines), block_bytes)
    assert documents[0] == "One." and documents[-1] == "Three."
    assert set(documents) <= {"One.", "Two.", "Three."}
    assert report.problems["record skipped: not JSON"] >= 1
    assert report.messages[0].startswith(("a.json:3: ", "a.json:4: "))


def test_value_that_is_cut_short_keeps_its_whole_records():
    documents, report = read(FORMS["indented"][:-80])
    assert documents == TEXTS[:2]
    assert sum(report.problems.values()) >= 1


def test_lines_whose_first_is_broken_are_still_lines():
    documents, report = read('{"text": "broken\n{"text": "One."}\n{"text": "Two."}\n')
    assert documents == ["One.", "Two."]
    assert report.problems == {"line skipped: not JSON": 1}


def test_record_that_is_too_long_is_skipped_and_the_next_is_read(monkeypatch):
    monkeypatch.setattr(json_values, "MAX_RECORD_BYTES", 200_000)
    texts = ["One.", "x" * 1_000_000, "Two."]
    documents, report = read(json.dumps([{"text": text} for text in texts], indent=1))
    assert documents == ["One.", "Two."]
    assert report.problems == {"record skipped: not JSON": 1}
    assert "longer than 200,000 letters" in report.messages[0]


def test_deep_nesting_is_no_crash():
    documents, report = read("[\n" + "[" * 100_000 + '\n{"text": "One."}\n')
    assert sum(report.problems.values()) >= 1
