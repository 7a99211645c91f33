# SPDX-License-Identifier: Apache-2.0
"""Labelled texts: every form that is read, every way to be bad, and the split by class."""

import csv
import gzip
import json
import unicodedata
from collections import Counter

import datasets
import pyarrow as pa
import pytest

from edad_jax.tasks.data.labelled import LabelledText, read_labelled, write_predictions
from edad_jax.tasks.data.splits import split_by_class

ROWS = [("good, very", "yes"), ('a "bad"\nthing', "no"), ("뇌 é", "yes")]
OTHER = "text,label\nfine,yes\n"


def as_csv(rows, header=("text", "label"), delimiter=","):
    lines = []

    class Sink:
        write = staticmethod(lines.append)

    csv.writer(Sink, delimiter=delimiter, lineterminator="\n").writerows([header, *rows])
    return "".join(lines)


def as_jsonl(rows):
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)


def write(folder, train, validation=OTHER, test=OTHER, suffix=".csv"):
    """Writes train with the suffix, the others as csv; returns the folder."""
    folder.mkdir(exist_ok=True)
    content = train if isinstance(train, bytes) else train.encode()
    (folder / f"train{suffix}").write_bytes(content)
    for name, content in (("dev", validation), ("test", test)):
        if content is not None:
            (folder / f"{name}.csv").write_text(content)
    return str(folder)


def has_message(report, *parts):
    return any(all(part in message for part in parts) for message in report.messages)


def pairs(texts):
    return [(each.text, each.label) for each in texts]


CSV = as_csv(ROWS)


@pytest.mark.parametrize(
    ("content", "suffix"),
    [
        (CSV, ".csv"),
        (CSV.rstrip("\n"), ".csv"),
        (CSV.replace("\n", "\r\n"), ".csv"),
        (CSV.replace("\nfine", "\n\n\nfine"), ".CSV"),
        (b"\xef\xbb\xbf" + CSV.encode(), ".csv"),
        (CSV.encode("utf-16"), ".csv"),
        (gzip.compress(CSV.encode()), ".csv.gz"),
        (pa.compress(CSV.encode(), codec="zstd", asbytes=True), ".csv.zst"),
        (as_csv(ROWS, delimiter="\t"), ".tsv"),
        (as_jsonl(ROWS), ".jsonl"),
        ("\n" + as_jsonl(ROWS).replace("\n", "\r\n\r\n"), ".jsonl"),
    ],
    ids="csv no-last-end crlf blank bom utf16 gz zst tsv jsonl jsonl-crlf".split(),
)
def test_all_forms_of_a_file_give_the_same_texts(tmp_path, content, suffix):
    splits, report = read_labelled(write(tmp_path, content, suffix=suffix))
    assert pairs(splits["train"]) == ROWS
    assert list(splits) == ["train", "validation", "test"]
    assert report.documents == 5 and not report.problems
    assert has_message(report, "train: 3 texts; 0 rows skipped")


def test_a_source_is_the_line_in_which_the_row_begins(tmp_path):
    splits, _ = read_labelled(write(tmp_path, CSV))
    assert [each.source for each in splits["train"]] == [
        "train.csv:2",
        "train.csv:3",
        "train.csv:5",
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",yes", "no text"),
        ('"  ",yes', "no text"),
        ("word,", "no label"),
        ("word, ", "no label"),
        ("word", "number of fields"),
        ("a,b,yes", "number of fields"),
        ('"word"s,yes', "broken quotes"),
        ('"never closed,yes', "broken quotes"),
    ],
)
def test_a_bad_row_of_a_table_is_skipped_and_counted(tmp_path, row, reason):
    content = f"text,label\nfirst,yes\n{row}\nsecond,no\n" + '"third",no\n'
    splits, report = read_labelled(write(tmp_path, content))
    assert pairs(splits["train"]) == [("first", "yes"), ("second", "no"), ("third", "no")]
    assert has_message(report, "train.csv:3: row skipped: ", reason)
    assert report.problems["train: rows skipped"] == 1 and len(report.problems) == 2
    assert has_message(report, "train: 3 texts; 1 rows skipped")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{'text': 1}", "not JSON"),
        ('{"text": "cut', "not JSON"),
        ('["word", "yes"]', "not a JSON object"),
        ('{"label": "yes"}', "no text"),
        ('{"text": " ", "label": "yes"}', "no text"),
        ('{"text": 3, "label": "yes"}', "its text is not a string"),
        ('{"text": "word"}', "no label"),
        ('{"text": "word", "label": null}', "no label"),
        ('{"text": "word", "label": NaN}', "no label"),
        ('{"text": "word", "label": ["yes"]}', "its label is not"),
    ],
)
def test_a_bad_line_of_json_is_skipped_and_counted(tmp_path, line, reason):
    content = as_jsonl(ROWS[:1]) + line + "\n" + as_jsonl(ROWS[1:])
    splits, report = read_labelled(write(tmp_path, content, suffix=".jsonl"))
    assert pairs(splits["train"]) == ROWS
    assert has_message(report, "train.jsonl:2: row skipped: ", reason)
    assert report.problems["train: rows skipped"] == 1 and len(report.problems) == 2


def test_half_a_surrogate_pair_is_replaced_and_counted(tmp_path):
    content = as_jsonl([("a \ud83d b", "no"), *ROWS])
    splits, report = read_labelled(write(tmp_path, content, suffix=".jsonl"))
    assert splits["train"][0].text == "a ? b"
    assert report.problems == {"invalid Unicode replaced": 1}


def test_numbers_and_words_are_labels(tmp_path):
    content = (
        '{"text": "a", "label": 0}\n{"text": "b", "label": 1}\n{"text": "c", "label": " x "}\n'
    )
    splits, _ = read_labelled(write(tmp_path, content, suffix=".jsonl"))
    assert [each.label for each in splits["train"]] == ["0", "1", "x"]


def test_a_label_of_hangul_in_parts_is_the_same_class(tmp_path):
    whole, parts = (unicodedata.normalize(form, "부정") for form in ("NFC", "NFD"))
    content = as_csv([("a", whole), ("b", parts), ("c", "긍정")])
    splits, _ = read_labelled(write(tmp_path, content))
    assert [each.label for each in splits["train"]] == [whole, whole, "긍정"]


def test_a_long_report_is_a_text(tmp_path):
    report = "word " * 100_000  # Python's csv alone stops at 131,072 characters
    splits, found = read_labelled(write(tmp_path, as_csv([(report, "no"), *ROWS])))
    assert len(splits["train"][0].text) == len(report) and not found.problems


def test_quotes_in_a_tsv_are_letters_where_they_quote_nothing(tmp_path):
    lines = ['"So" he said\tyes', '"open\tno', "plain\tno", 'close"\tyes', '"whole\nquoted"\tno']
    content = "text\tlabel\n" + "\n".join(lines) + "\n"
    splits, report = read_labelled(write(tmp_path, content, suffix=".tsv"))
    assert pairs(splits["train"]) == [
        ('"So" he said', "yes"),
        ('"open', "no"),
        ("plain", "no"),
        ('close"', "yes"),
        ("whole\nquoted", "no"),
    ]
    assert not report.problems


def test_a_line_that_is_not_utf8_is_read_as_windows_1252(tmp_path):
    splits, report = read_labelled(write(tmp_path, CSV.encode() + b"caf\xe9,no\n"))
    assert splits["train"][-1].text == "café"
    assert report.problems == {"line is not UTF-8: read as Windows-1252": 1}
    assert has_message(report, "train.csv:6: line is not UTF-8")


def test_nul_bytes_are_removed_and_counted(tmp_path):
    splits, report = read_labelled(write(tmp_path, CSV.encode() + b"a\0b,no\n"))
    assert splits["train"][-1].text == "ab"
    assert report.problems == {"NUL bytes removed": 1}


@pytest.mark.parametrize("text", ["text", "sentence", "Review", "document", "content"])
@pytest.mark.parametrize("label", ["label", "labels", "class", "Sentiment", "category"])
def test_the_obvious_columns_are_found(tmp_path, text, label):
    content = f"id,{label}, {text} ,note\n1,yes,a,x\n2,no,b,y\n"
    splits, report = read_labelled(write(tmp_path, content))
    assert pairs(splits["train"]) == [("a", "yes"), ("b", "no")]
    assert has_message(report, f"train.csv: text from {text!r}, label from {label!r}")


def test_the_keys_choose_the_columns(tmp_path):
    content = "text,label,korean,topic\na,x,b,yes\nc,x,d,no\n"
    other = "korean,topic\nb,yes\n"
    folder = write(tmp_path, content, other, other)
    splits, _ = read_labelled(folder, text_key="korean", label_key="topic")
    assert pairs(splits["train"]) == [("b", "yes"), ("d", "no")]


def test_numbers_for_both_columns_mean_no_header(tmp_path):
    folder = write(tmp_path, "yes,1,a\nno,2,b\nno,2\n", "yes,1,c\n", "yes,1,d\n")
    splits, report = read_labelled(folder, text_key="2", label_key="0")
    assert pairs(splits["train"]) == [("a", "yes"), ("b", "no")]
    assert has_message(report, "train.csv:3: row skipped: number of fields (2, not 3)")
    with pytest.raises(ValueError, match="got the columns 0, 1, 2, expected 7; give"):
        read_labelled(folder, text_key="7", label_key="0")


@pytest.mark.parametrize(
    ("content", "suffix", "keys", "expected"),
    [
        ("a,label\nb,yes\n", ".csv", {}, "columns a, label, expected text or sentence"),
        ("text,b\nb,yes\n", ".csv", {}, "columns text, b, expected label or labels"),
        ('{"a": "b"}\n', ".jsonl", {}, "columns a, expected text or sentence"),
        ("text,label\nb,yes\n", ".csv", {"text_key": "x"}, "columns text, label, expected x; give"),
    ],
)
def test_an_unknown_column_is_an_error_that_lists_the_columns(
    tmp_path, content, suffix, keys, expected
):
    with pytest.raises(ValueError, match=f"train{suffix}: got the {expected}"):
        read_labelled(write(tmp_path, content, suffix=suffix), **keys)


@pytest.mark.parametrize("content", ["", "\n", "text,label\n", "text,label\n,yes\n"])
def test_a_split_without_texts_is_an_error(tmp_path, content):
    with pytest.raises(ValueError, match="got 0 texts to use for validation"):
        read_labelled(write(tmp_path, CSV, validation=content))


def test_one_class_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="got only the label 'yes' to train on"):
        read_labelled(write(tmp_path, "text,label\na,yes\nb,yes\n"))


def test_a_label_unseen_in_training_is_kept_and_counted_once(tmp_path):
    new = "text,label\na,yes\nb,new\nc,new\n"
    splits, report = read_labelled(write(tmp_path, CSV, new, new))
    assert [each.label for each in splits["validation"]] == ["yes", "new", "new"]
    assert report.problems == {"label unseen in training": 1}
    assert has_message(report, "dev.csv:3: label unseen in training (new)")


def many(**counts):
    return as_csv((f"{label} {i}", label) for label, count in counts.items() for i in range(count))


def count_labels(texts):
    return dict(Counter(each.label for each in texts))


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_single_file_is_split_by_class(tmp_path, as_folder):
    path = tmp_path / "reviews.csv"
    path.write_text(many(yes=100, no=50, maybe=10))
    data = str(tmp_path if as_folder else path)
    splits, report = read_labelled(data)
    assert count_labels(splits["train"]) == {"yes": 80, "no": 40, "maybe": 8}
    assert count_labels(splits["validation"]) == {"yes": 10, "no": 5, "maybe": 1}
    assert count_labels(splits["test"]) == {"yes": 10, "no": 5, "maybe": 1}
    sources = [each.source for split in splits.values() for each in split]
    assert len(set(sources)) == len(sources) == 160 == report.documents
    assert read_labelled(data)[0] == splits
    assert read_labelled(data, seed=1)[0]["test"] != splits["test"]
    assert has_message(
        report, "no validation and no test split: ", "train 128, validation 16, test 16"
    )


def test_only_the_missing_split_is_taken_from_train(tmp_path):
    splits, report = read_labelled(write(tmp_path / "a", many(yes=90, no=90), test=None))
    assert pairs(splits["validation"]) == [("fine", "yes")]
    assert count_labels(splits["train"]) == {"yes": 80, "no": 80}
    assert count_labels(splits["test"]) == {"yes": 10, "no": 10}
    assert has_message(report, "no test split: train split by class")
    splits, report = read_labelled(write(tmp_path / "b", many(yes=90, no=90), validation=None))
    assert pairs(splits["test"]) == [("fine", "yes")] and len(splits["validation"]) == 20
    assert has_message(report, "no validation split: train split by class")


def test_shares_may_ask_for_no_test_split(tmp_path):
    folder = write(tmp_path, many(yes=8, no=8), None, None)
    splits, report = read_labelled(folder, shares=(3, 1, 0))
    assert {split: len(each) for split, each in splits.items()} == {"train": 12, "validation": 4}
    assert has_message(report, "no test split: there will be no test score")
    for shares in ((8, 1), (0, 1, 1), (8, 0, 1), (8, 1, -1)):
        with pytest.raises(ValueError, match="got shares"):
            read_labelled(folder, shares=shares)


def test_too_few_texts_to_split_are_an_error(tmp_path):
    with pytest.raises(
        ValueError, match="got 2 texts, too few to split into train, validation, test"
    ):
        read_labelled(write(tmp_path, many(yes=1, no=1), None, None))


def test_split_by_class_rounds_each_class_by_less_than_one():
    labels = [f"class {size}" for size in range(1, 30) for _ in range(size)]
    parts = split_by_class(labels, (8, 1, 1), seed=3)
    assert sorted(place for part in parts for place in part) == list(range(len(labels)))
    for size in range(1, 30):
        for part, share in zip(parts, (8, 1, 1), strict=True):
            got = sum(labels[place] == f"class {size}" for place in part)
            assert abs(got - size * share / 10) < 1


def test_classes_of_five_are_shared_between_validation_and_test():
    labels = [f"class {number}" for number in range(10) for _ in range(5)]
    assert [len(part) for part in split_by_class(labels, (8, 1, 1), seed=0)] == [40, 5, 5]


def test_missing_data_is_an_error(tmp_path):
    for data in ("", "/nowhere/a.csv", "./nowhere"):
        with pytest.raises(ValueError, match=r"give (another )?--config\.data"):
            read_labelled(data)
    (tmp_path / "a.xls").touch()
    for data in (tmp_path, tmp_path / "a.xls"):
        with pytest.raises(ValueError, match=r"got a\.xls, expected a training split"):
            read_labelled(str(data))
    (tmp_path / "test.csv").write_text(OTHER)
    with pytest.raises(ValueError, match=r"got a\.xls, test\.csv, expected a training split"):
        read_labelled(str(tmp_path))


def test_a_hub_id_without_a_network_says_how_to_give_a_file():
    with pytest.raises(ValueError, match="hub cannot be reached; give a local file or folder"):
        read_labelled("someone/something")


def test_a_data_set_gives_names_for_numbers_and_may_keep_test_labels_secret(tmp_path):
    features = {"review": datasets.Value("string")}
    features["label"] = datasets.ClassLabel(names=["no", "yes"])

    def rows(count, labels):
        texts = [f"text {number}" for number in range(count - 1)] + [None]
        return datasets.Dataset.from_dict(
            {"review": texts, "label": labels}, features=datasets.Features(features)
        )

    datasets.DatasetDict(
        train=rows(21, [0, 1] * 10 + [0]), validation=rows(2, [1, 1]), test=rows(3, [-1] * 3)
    ).save_to_disk(tmp_path)
    splits, report = read_labelled(str(tmp_path))
    assert count_labels(splits["train"]) == {"no": 9, "yes": 9}
    assert splits["validation"] == [LabelledText("text 0", "yes", "validation:0")]
    assert len(splits["test"]) == 2 and has_message(report, "test: split not used")
    assert report.problems["train: rows skipped"] == 1
    assert report.problems["row skipped: no label"] == 2


def test_a_folder_of_parquet_is_a_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    folder.mkdir()
    rows = datasets.Dataset.from_dict({"text": ["a", "b"] * 10, "label": ["x", "y"] * 10})
    rows.to_parquet(folder / "train.parquet")
    splits, _ = read_labelled(str(folder))
    assert {split: len(each) for split, each in splits.items()} == {
        "train": 16,
        "validation": 2,
        "test": 2,
    }


def test_written_predictions_are_read_back(tmp_path):
    texts = [LabelledText(text, label, "x:1") for text, label in ROWS]
    write_predictions(tmp_path / "train.tsv", texts, ["no", "no", "yes"])
    first = (tmp_path / "train.tsv").read_text().splitlines()[:2]
    assert first == ["text\tgold\tpredicted", "good, very\tyes\tno"]
    for name in ("dev", "test"):
        (tmp_path / f"{name}.tsv").write_text("text\tgold\tpredicted\na\tyes\tno\n")
    splits, _ = read_labelled(str(tmp_path), label_key="gold")
    assert pairs(splits["train"]) == ROWS
    splits, _ = read_labelled(str(tmp_path), label_key="predicted")
    assert [each.label for each in splits["train"]] == ["no", "no", "yes"]
    assert not list(tmp_path.glob("*.new"))


def test_predictions_that_do_not_fit_are_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"a\.tsv: got 0 labels, expected 1"):
        write_predictions(tmp_path / "a.tsv", [LabelledText("a", "b", "x:1")], [])
    assert not list(tmp_path.iterdir())


def test_labels_are_counted_and_one_that_may_be_mistyped_is_named(tmp_path):
    labels = ["positive"] * 4 + ["negative"] * 3 + ["postive", "negtive", "negtive"]
    other = OTHER.replace("yes", "positive")
    content = as_csv([("a", label) for label in labels])
    _, report = read_labelled(write(tmp_path, content, other, other))
    rare = "label seen only {} in training, a typing error? ({})"
    for expected in (
        "train: 10 texts; 0 rows skipped",
        "train: labels positive 4, negative 3, negtive 2, postive 1",
        "train.csv:9: " + rare.format("once", "postive"),
        "train.csv:10: " + rare.format("twice", "negtive"),
    ):
        assert expected in report.messages
    assert not any("(negative)" in message for message in report.messages)


def test_a_column_of_texts_that_is_taken_for_labels_does_not_flood_the_notes(tmp_path):
    rows = [(f"text {number}", f"name {number}") for number in range(300)]
    content = as_csv(rows)
    _, report = read_labelled(write(tmp_path, content, content, content))
    assert has_message(report, "train: labels name 0 1, name 1 1", " and 200 others")
    assert sum("a typing error?" in message for message in report.messages) == 20


def test_korean_in_its_old_encoding_is_an_error_that_names_the_option(tmp_path):
    lines = [
        "text,label",
        *(f"영화가 정말 재미있다 {n},{'긍정' if n % 2 else '부정'}" for n in range(40)),
    ]
    path = tmp_path / "films.csv"
    path.write_bytes("\n".join(lines).encode("cp949"))
    with pytest.raises(ValueError, match=r"films.csv:2: got 40 lines .* --config.encoding=cp949"):
        read_labelled(str(path))
    splits, _ = read_labelled(str(path), encoding="cp949")
    assert "재미있다" in splits["train"][0].text
    mixed = "\n".join(lines[:30]).encode() + b"\n" + "\n".join(lines[30:]).encode("cp949")
    path.write_bytes(mixed)
    with pytest.raises(ValueError, match="films.csv:31: got 11 lines"):
        read_labelled(str(path))


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_a_csv_may_have_another_delimiter_where_its_first_line_has_no_comma(tmp_path, delimiter):
    """Spreadsheets write semicolons wherever the comma is a decimal point."""
    rows = [["text", "label"]] + [[f"one, two {n}", f"{n % 2},0"] for n in range(20)]
    content = "".join(f"{delimiter.join(row)}\n" for row in rows)
    (tmp_path / "train.csv").write_text(content, encoding="utf-8")
    splits, report = read_labelled(str(tmp_path))
    assert {each.label for each in splits["train"]} == {"0,0", "1,0"}
    assert splits["train"][0].text.startswith("one, two ")
    assert any(f"columns between {delimiter!r}, not commas" in said for said in report.messages)


def test_a_header_within_a_file_is_no_row_and_a_name_given_twice_is_an_error(tmp_path):
    table = "text,label\n" + "".join(f"text {n},{n % 2}\n" for n in range(20))
    for split in ("train", "test"):
        (tmp_path / f"{split}.csv").write_text(table * 2, encoding="utf-8")  # joined with cat
    splits, report = read_labelled(str(tmp_path))
    assert {each.label for each in splits["train"]} == {"0", "1"}
    assert len(splits["test"]) == 40 and not report.problems
    assert any("test.csv: 1 rows name the columns again" in said for said in report.messages)
    (tmp_path / "test.csv").unlink()
    table = "text,label,label\n" + "".join(f"text {n},{n % 2},{n % 3}\n" for n in range(20))
    (tmp_path / "train.csv").write_text(table, encoding="utf-8")
    with pytest.raises(ValueError, match="got 2 columns 'label', expected one"):
        read_labelled(str(tmp_path))
