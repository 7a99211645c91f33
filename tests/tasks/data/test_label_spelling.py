# SPDX-License-Identifier: Apache-2.0
"""Labels that are written in several ways, and files that keep theirs secret."""

import json

import datasets
import pytest

from edad_jax.tasks.data.label_spelling import class_names, spelling
from edad_jax.tasks.data.labelled import read_labelled
from edad_jax.tasks.data.tagged import read_tagged


def table(labels):
    return "text,label\n" + "".join(f"text {n},{label}\n" for n, label in enumerate(labels))


def write(folder, **files):
    for name, content in files.items():
        (folder / f"{name}.csv").write_text(content, encoding="utf-8")
    return str(folder)


def labels_of(splits):
    return {split: sorted({each.label for each in texts}) for split, texts in splits.items()}


@pytest.mark.parametrize(
    ("label", "seen"),
    [
        ("1.0", "1"),
        ("-1.00", "-1"),
        ("-0.0", "0"),
        ("1e+16", "10000000000000000"),
        ("01", "01"),
        ("01.0", "01.0"),
        ("1.5", "1.5"),
        ("1.", "1"),
        ("+1", "1"),
        ("1e0", "1"),
        ("1,0", "1"),
        ("1,5", "1,5"),
        ("\uff11", "1"),
        ("v1.0", "v1.0"),
        ("Pos", "Pos"),
        ("\ufeffpos", "pos"),
        ("p\u200bo\u200ds", "pos"),
        ("\u3000pos \u200b", "pos"),
        ("very\u00a0 good", "very good"),
        ("\u200b", ""),
    ],
)
def test_a_label_is_what_is_seen_of_it(label, seen):
    assert spelling(label) == seen


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        ("1 1.0 0", "1 1 0"),
        ("1 True 0 False", "1 1 0 0"),
        ("1.0 TRUE", "1 1"),
        ("True true TRUE False", "True True True False"),
        ("True False", "True False"),
        ("1.0 2.0", "1.0 2.0"),
        ("1 01 001", "1 01 001"),
        ("Pos pos", "Pos pos"),
        ("tRue True", "tRue True"),
        ("pos pos\u200b", "pos pos"),
        ("\u2764\ufe0f \u2764", "\u2764 \u2764"),
        ("\U0001f469\u200d\U0001f52c x", "\U0001f469\u200d\U0001f52c x"),
        ("\U0001f3f4\U000e0067 \U0001f3f4\U000e0073", "\U0001f3f4\U000e0067 \U0001f3f4\U000e0073"),
    ],
)
def test_labels_of_one_class_have_one_name(labels, classes):
    names = class_names(labels.split(" "))
    assert [names[label] for label in labels.split(" ")] == classes.split(" ")


def test_floats_in_one_split_and_integers_in_another_are_the_same_classes(tmp_path):
    folder = write(
        tmp_path, train=table(["0.0", "1.0"] * 5), dev=table("0101"), test=table(["True", "False"])
    )
    splits, report = read_labelled(folder)
    assert labels_of(splits) == dict.fromkeys(("train", "validation", "test"), ["0", "1"])
    assert report.problems == {"label written in another way: read as its class": 12}
    assert "train.csv:2: label '0.0' is read as '0', here and in 4 other places" in report.messages


def test_numbers_strings_and_truth_values_of_json_are_the_same_classes(tmp_path):
    labels = [1, 1.0, "1", True, 0, 0.0, "0", False]
    rows = [json.dumps({"text": f"t{n}", "label": label}) for n, label in enumerate(labels * 4)]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    splits, report = read_labelled(str(tmp_path / "a.jsonl"))
    assert labels_of(splits)["train"] == ["0", "1"]
    assert report.problems["label written in another way: read as its class"] == 16


def test_a_letter_without_width_makes_no_class_and_is_shown(tmp_path):
    folder = write(tmp_path, all=table(["pos", "neg", "pos\u200b", "\ufeffneg"] * 5))
    splits, report = read_labelled(folder)
    assert labels_of(splits)["train"] == ["neg", "pos"]
    assert any("label 'pos\\u200b' is read as 'pos'" in message for message in report.messages)


def test_labels_that_differ_by_case_or_a_hyphen_are_told_and_stay_two(tmp_path):
    labels = ["Pos", "neg", "pos", "very good", "very_good"] * 6
    splits, report = read_labelled(write(tmp_path, train=table(labels)))
    assert labels_of(splits)["train"] == sorted(set(labels))
    told = "train: labels that differ hardly, and are classes of their own: "
    assert {f"{told}Pos, pos", f"{told}very good, very_good"} <= set(report.messages)


def test_one_class_in_two_spellings_is_one_class(tmp_path):
    with pytest.raises(ValueError, match="got only the label '1' to train on"):
        read_labelled(write(tmp_path, train=table(["1", "1.0"]), dev=table("1"), test=table("1")))


@pytest.mark.parametrize(
    "test", ["text\na\nb\n", "text,label\na,\nb,\n", "text,label\na,-1\nb,-1\n", "id,text\n1,a\n"]
)
def test_a_test_file_without_labels_is_left_out_with_a_word(tmp_path, test):
    folder = write(tmp_path, train=table("xy" * 10), dev=table("xy"), test=test)
    splits, report = read_labelled(folder)
    assert all(each.source.startswith("train.csv") for each in splits["test"])
    assert any("split not used, since it has no labels" in each for each in report.messages)
    assert not any(reason.startswith("test: ") for reason in report.problems)


def test_a_test_split_of_a_data_set_without_the_column_is_left_out_with_a_word(tmp_path):
    rows = datasets.Dataset.from_dict({"text": list("abcd") * 5, "label": list("xyxy") * 5})
    saved = datasets.DatasetDict(train=rows, validation=rows, test=rows.remove_columns("label"))
    saved.save_to_disk(str(tmp_path))
    splits, report = read_labelled(str(tmp_path))
    assert len(splits["test"]) == 2 and len(splits["train"]) == 18
    assert "test: split not used, since it has no labels" in report.messages


def test_the_other_splits_must_have_labels(tmp_path):
    folder = write(tmp_path, train=table("xy"), dev="text\na\n", test=table("xy"))
    with pytest.raises(ValueError, match=r"dev.csv: got the columns text, expected label"):
        read_labelled(folder)


@pytest.mark.parametrize("row", ["a,\n", ",x\n", "a,b,c\n"])
def test_a_row_dropped_from_the_test_split_is_an_error_unless_allowed(tmp_path, row):
    folder = write(tmp_path, train=table("xy"), dev=table("xy"), test=table("xyx") + row)
    with pytest.raises(ValueError, match=r"1 of the 4 rows of test.*--config.allow_skipped_test"):
        read_labelled(folder)
    splits, report = read_labelled(folder, allow_skipped_test=True)
    assert len(splits["test"]) == 3 and report.problems["test: rows skipped"] == 1


def test_lines_may_end_with_cr_alone(tmp_path):
    (tmp_path / "a.csv").write_bytes(table("xy" * 10).replace("\n", "\r").encode())
    splits, report = read_labelled(str(tmp_path / "a.csv"))
    assert sum(map(len, splits.values())) == 20
    assert report.problems == {"lines end with CR alone: read as lines": 1}


def test_labels_that_are_no_classes_are_not_called_too_few_texts(tmp_path):
    (tmp_path / "a.csv").write_text(table(f"name {number}" for number in range(300)))
    with pytest.raises(ValueError, match=r"got 300 labels for 300 texts, too many to split"):
        read_labelled(str(tmp_path / "a.csv"))


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("Disease\u200b", r"test.tsv:1: type 'Disease\u200b' is read as 'Disease', here and in 1"),
        ("\u1107\u1167\u11bc", "type '\\u1107\\u1167\\u11bc' is read as '병'"),  # 병 in parts
    ],
)
def test_types_of_entities_that_differ_by_what_is_not_seen_are_one(tmp_path, written, told):
    plain = spelling(written)
    for split, kind in (("train", plain), ("dev", plain), ("test", written)):
        sentence = f"colon\tB-{kind}\ncancer\tI-{kind}\n,\tO\n\n"
        (tmp_path / f"{split}.tsv").write_text(sentence * 2, encoding="utf-8")
    splits, report = read_tagged(str(tmp_path))
    tags = {tag for each in splits["test"] for tag in each.tags}
    assert tags == {f"B-{plain}", f"I-{plain}", "O"}
    assert any(told in message for message in report.messages)
