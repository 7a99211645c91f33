# SPDX-License-Identifier: Apache-2.0
"""Tagged sentences: every form that is read, and every way in which a file can be bad."""

import gzip

import datasets
import pytest

from edad_jax.tasks.data.tagged import TaggedSentence, iob2_tags, read_tagged, write_predictions

TRAIN = "Aspirin\tB-Drug\nhelps\tO\n\nA\tO\nbad\tB-Ill\ncold\tI-Ill\n"
OTHER = "Cold\tB-Ill\n"


def write(folder, train=TRAIN, validation=OTHER, test=OTHER, suffix=".tsv"):
    folder.mkdir(exist_ok=True)
    for name, content in (("train", train), ("devel", validation), ("test", test)):
        if content is not None:
            content = content if isinstance(content, bytes) else content.encode()
            (folder / f"{name}{suffix}").write_bytes(content)
    return str(folder)


def has_message(report, *parts):
    return any(all(part in message for part in parts) for message in report.messages)


@pytest.mark.parametrize(
    "content",
    [
        TRAIN,
        TRAIN.rstrip("\n"),
        TRAIN.replace("\n", "\r\n"),
        TRAIN.replace("\t", " "),
        TRAIN.replace("\t", "  ").replace("\n", " \n"),
        TRAIN.replace("\t", " NN x "),
        TRAIN.replace("\t", "\tNN\t"),
        b"\xef\xbb\xbf" + TRAIN.encode(),
        TRAIN.encode("utf-16"),
    ],
    ids="plain no-last-end crlf blank blanks columns tab-columns bom utf16".split(),
)
def test_all_forms_of_a_file_give_the_same_sentences(tmp_path, content):
    splits, report = read_tagged(write(tmp_path / "a", content))
    assert splits["train"] == [
        TaggedSentence(("Aspirin", "helps"), ("B-Drug", "O"), "train.tsv:1"),
        TaggedSentence(("A", "bad", "cold"), ("O", "B-Ill", "I-Ill"), "train.tsv:4"),
    ]
    assert list(splits) == ["train", "validation", "test"]
    assert report.documents == 4 and not report.problems
    assert report.messages[0] == "train: 2 sentences, 5 words, 2 entities; 0 sentences skipped"


@pytest.mark.parametrize("name", ["dev", "valid", "validation", "DEVEL"])
@pytest.mark.parametrize("suffix", [".conll", ".txt", ".iob", ".iob2"])
def test_all_names_of_the_validation_file_are_known(tmp_path, name, suffix):
    folder = write(tmp_path, validation=None, suffix=suffix)
    (tmp_path / f"{name}{suffix}").write_text(OTHER)
    splits, _ = read_tagged(folder)
    assert [each.source for each in splits["validation"]] == [f"{name}{suffix}:1"]


def test_a_compressed_file_is_read_and_a_damaged_one_is_an_error(tmp_path):
    packed = gzip.compress(TRAIN.encode())
    folder = write(tmp_path, packed, suffix=".tsv.gz", validation=None, test=None)
    assert len(read_tagged(folder)[0]["train"]) == 1  # the other is set aside
    (tmp_path / "train.tsv.gz").write_bytes(packed[:-12])
    with pytest.raises(ValueError, match="train.tsv.gz.*damaged or cut short"):
        read_tagged(folder)


def test_a_word_keeps_white_space_that_is_no_blank(tmp_path):
    splits, report = read_tagged(write(tmp_path, TRAIN + "1\u00a0mg O\nx\u2028y O\n"))
    assert splits["train"][1].words == ("A", "bad", "cold", "1\u00a0mg", "x\u2028y")
    assert not report.problems


def test_docstart_and_several_blank_lines_are_no_sentences(tmp_path):
    train = "-DOCSTART- -X- O\n\n\n \n\t\n" + TRAIN + "\n\n\n-DOCSTART-\tO\nend\tO\n\n\n"
    splits, report = read_tagged(write(tmp_path, train))
    assert [each.source for each in splits["train"]] == [
        "train.tsv:6",
        "train.tsv:9",
        "train.tsv:16",
    ]
    assert not report.problems


def test_a_line_that_is_not_utf8_is_read_as_windows_1252(tmp_path):
    train = TRAIN.encode() + "\nnaïve\tO\n뇌\tO\n".encode() + b"caf\xe9\tO\n"
    splits, report = read_tagged(write(tmp_path, train))
    assert splits["train"][-1].words == ("naïve", "뇌", "café")
    assert report.problems == {"line is not UTF-8: read as Windows-1252": 1}
    assert has_message(report, "train.tsv:10: line is not UTF-8")


def test_the_encoding_is_used_and_an_unknown_one_is_an_error(tmp_path):
    folder = write(tmp_path, (TRAIN + "\n뇌\tO\n").encode("cp949"))
    assert read_tagged(folder, encoding="cp949")[0]["train"][-1].words == ("뇌",)
    with pytest.raises(ValueError, match="encoding=cp94900"):
        read_tagged(folder, encoding="cp94900")


@pytest.mark.parametrize(
    ("tags", "iob2", "orphans"),
    [
        ("B-X I-X E-X O S-X S-X", "B-X I-X I-X O B-X B-X", []),
        ("B-X E-X I-X", "B-X I-X B-X", [2]),
        ("S-X E-X", "B-X B-X", [1]),
        ("O I-X I-X I-Y", "O B-X I-X B-Y", [1, 3]),
        ("I-X B-X I-X O I-X", "B-X B-X I-X O B-X", [0, 4]),
        ("B-X I-X L-X O U-X U-X L-X", "B-X I-X I-X O B-X B-X B-X", [6]),
        ("B-a-b I-a-b I-a", "B-a-b I-a-b B-a", [2]),
    ],
)
def test_tags_become_iob2(tags, iob2, orphans):
    assert iob2_tags(tags.split()) == (tuple(iob2.split()), orphans)


def test_an_orphan_is_repaired_and_counted(tmp_path):
    splits, report = read_tagged(write(tmp_path, validation="a\tO\nflu\tI-Ill\nx\tI-Drug\n"))
    assert splits["validation"][0].tags == ("O", "B-Ill", "B-Drug")
    assert report.problems == {"tag that continues no entity: B- instead": 2}
    assert has_message(report, "devel.tsv:2: tag that continues", "I-Ill")
    assert has_message(report, "devel.tsv:3: tag that continues", "I-Drug")


def test_iob1_is_turned_into_iob2_without_a_problem(tmp_path):
    train = "a\tO\nx\tI-P\ny\tI-P\nz\tB-P\n\nx\tI-P\ny\tI-Q\n"
    splits, report = read_tagged(write(tmp_path, train, "x\tI-P\n", "x\tI-Q\n"))
    assert [each.tags for each in splits["train"]] == [("O", "B-P", "I-P", "B-P"), ("B-P", "B-Q")]
    assert splits["test"][0].tags == ("B-Q",)
    assert not report.problems and has_message(report, "IOB1")


@pytest.mark.parametrize(("scheme", "last", "single"), [("IOBES", "E", "S"), ("BILOU", "L", "U")])
def test_schemes_with_ends_are_turned_into_iob2_without_a_problem(tmp_path, scheme, last, single):
    train = f"x\tB-P\ny\t{last}-P\nz\t{single}-Ill\n"
    splits, report = read_tagged(write(tmp_path, train))
    assert splits["train"][0].tags == ("B-P", "I-P", "B-Ill")
    assert not report.problems and has_message(report, f"{scheme}: turned into IOB2")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("word", "a token without a tag"),
        ("word\t", "a token without a tag"),
        ("\tO", "a tag without a token"),
        ("word\tX-Ill", "neither O nor"),
        ("word\tB-", "neither O nor"),
        ("word\tB", "neither O nor"),
        ("word\to", "neither O nor"),
        ("word\tB-two words", "neither O nor"),
        ("word\tNN\tO", "another number of columns"),
        ("a\rb\tO", "carriage return"),
    ],
)
def test_a_bad_line_costs_its_sentence_and_is_counted(tmp_path, line, reason):
    splits, report = read_tagged(write(tmp_path, f"good\tO\n{line}\n\n{TRAIN}"))
    assert [each.source for each in splits["train"]] == ["train.tsv:4", "train.tsv:7"]
    assert has_message(report, "train.tsv:2: sentence skipped: ", reason)
    assert report.problems["train: sentences skipped"] == 1 and len(report.problems) == 2
    assert has_message(report, "train: 2 sentences", "1 sentences skipped")


def test_a_file_without_tags_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"devel.tsv:2: got 'only'.*second column; expected"):
        read_tagged(write(tmp_path, validation="\nonly\nwords\n"))


@pytest.mark.parametrize("content", ["", "\n\n", "a\tb\n"])
def test_a_split_without_sentences_is_an_error(tmp_path, content):
    with pytest.raises(ValueError, match="got 0 sentences to use for validation"):
        read_tagged(write(tmp_path, validation=content))


def test_a_label_unseen_in_training_is_kept_and_counted_once(tmp_path):
    new = "a\tO\nx\tB-New\n\ny\tB-New\n"
    splits, report = read_tagged(write(tmp_path, validation=new, test=new))
    assert splits["validation"][0].tags == ("O", "B-New") and len(splits["test"]) == 2
    assert report.problems == {"label unseen in training": 1}
    assert has_message(report, "devel.tsv:2: label unseen in training (New)")


def test_a_tenth_is_set_aside_where_there_is_no_validation(tmp_path):
    folder = write(tmp_path, "".join(f"w{i}\tB-Ill\n\n" for i in range(40)), validation=None)
    splits, report = read_tagged(folder)
    words = {split: [each.words[0] for each in splits[split]] for split in ("train", "validation")}
    assert len(words["validation"]) == 4
    assert sorted(words["train"] + words["validation"]) == sorted(f"w{i}" for i in range(40))
    assert read_tagged(folder)[0] == splits
    assert has_message(report, "no validation split: 4 of the 40 training sentences set aside")
    assert report.documents == 41


def test_another_seed_sets_other_sentences_aside_and_is_named(tmp_path):
    folder = write(tmp_path, "".join(f"w{i}\tB-Ill\n\n" for i in range(40)), validation=None)
    (one, _), (other, report) = (read_tagged(folder, seed=seed) for seed in (0, 1))
    assert (
        len(one["validation"]) == len(other["validation"])
        and one["validation"] != other["validation"]
    )
    assert has_message(report, "set aside as one, seed 1")


def test_at_least_one_sentence_is_set_aside_if_there_are_two(tmp_path):
    train = "a\tB-Ill\n\nb\tB-Ill\n"
    assert len(read_tagged(write(tmp_path, train, validation=None))[0]["validation"]) == 1
    with pytest.raises(ValueError, match="got 1 sentence to train on and no validation"):
        read_tagged(write(tmp_path, "a\tB-Ill\n", validation=None))


def test_a_missing_test_file_is_said(tmp_path):
    splits, report = read_tagged(write(tmp_path, test=None))
    assert "test" not in splits and has_message(report, "no test split")


def test_a_missing_train_file_is_an_error_that_says_what_is_there(tmp_path):
    with pytest.raises(ValueError, match=r"got devel.tsv, test.tsv, expected.*train.*\.iob2"):
        read_tagged(write(tmp_path, train=None))
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match="got nothing, expected"):
        read_tagged(str(tmp_path / "b"))
    (tmp_path / "b" / "notes.md").touch()
    with pytest.raises(ValueError, match=r"got notes\.md, expected"):
        read_tagged(str(tmp_path / "b"))
    with pytest.raises(ValueError, match=r"got notes\.md, expected"):
        read_tagged(str(tmp_path / "b" / "notes.md"))


def test_two_files_for_one_split_are_an_error(tmp_path):
    folder = write(tmp_path)
    (tmp_path / "dev.txt").write_text(OTHER)
    with pytest.raises(
        ValueError, match=r"got dev.txt and devel.tsv, expected one file for validation"
    ):
        read_tagged(folder)


def test_an_old_copy_of_a_file_is_no_split(tmp_path):
    folder = write(tmp_path)
    (tmp_path / "train.old.tsv").write_text(OTHER)
    assert len(read_tagged(folder)[0]["train"]) == 2


def test_training_on_nothing_but_o_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="got the tag O for every word"):
        read_tagged(write(tmp_path, "a\tO\nb\tO\n"))


@pytest.mark.parametrize("data", ["", "/nowhere/at/all", "./nowhere"])
def test_a_path_to_nothing_is_an_error(data):
    with pytest.raises(ValueError, match=r"give (another )?--config\.data"):
        read_tagged(data)


def test_a_hub_id_without_a_network_says_how_to_give_a_folder():
    with pytest.raises(ValueError, match="hub cannot be reached; give a local file or folder"):
        read_tagged("someone/something")


def save_dataset(path, tags, words=(("a", "cold"), ("b", "c"), ("d",)), names=("O", "B-Ill")):
    feature = datasets.ClassLabel(names=list(names)) if names else datasets.Value("int64")
    features = {"tokens": datasets.Sequence(datasets.Value("string"))}
    features["ner_tags"] = datasets.Sequence(feature)
    rows = datasets.Dataset.from_dict(
        {"tokens": words, "ner_tags": tags}, features=datasets.Features(features)
    )
    other = rows.select([0])
    splits = {"train": rows, "validation": other, "test": other, "unsupervised": other}
    datasets.DatasetDict(splits).save_to_disk(path)
    return str(path)


def test_a_data_set_gives_names_for_numbers(tmp_path):
    splits, report = read_tagged(save_dataset(tmp_path, [[0, 1], [0, 0], [1]]))
    assert splits["train"][0] == TaggedSentence(("a", "cold"), ("O", "B-Ill"), "train:0")
    assert {split: len(each) for split, each in splits.items()} == {
        "train": 3,
        "validation": 1,
        "test": 1,
    }
    assert not report.problems and has_message(report, "unsupervised: split not used")


def test_bad_rows_of_a_data_set_are_counted(tmp_path):
    words = [["a", "b"], ["a", "b"], ["a", ""], ["a", "b"], []]
    tags = [[0, 1], [0], [0, 0], [0, -1], []]
    splits, report = read_tagged(save_dataset(tmp_path, tags, words))
    assert [each.source for each in splits["train"]] == ["train:0"]
    assert report.problems["train: sentences skipped"] == 3
    assert has_message(report, "train:1", "without a tag", "2 words, 1 tags")
    assert has_message(report, "train:2", "without a token")
    assert has_message(report, "train:3", "neither O nor", "-1")


def test_a_data_set_without_the_column_or_names_is_an_error(tmp_path):
    path = save_dataset(tmp_path / "a", [[0, 1], [0, 0], [1]])
    with pytest.raises(
        ValueError, match="got the columns tokens, ner_tags, expected 'words'; give"
    ):
        read_tagged(path, word_key="words")
    with pytest.raises(ValueError, match="a number without a name"):
        read_tagged(save_dataset(tmp_path / "b", [[0, 1], [0, 0], [1]], names=None))


def test_a_damaged_data_set_is_an_error(tmp_path):
    (tmp_path / "dataset_dict.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be loaded"):
        read_tagged(str(tmp_path))


def test_written_predictions_are_read_back(tmp_path):
    splits, _ = read_tagged(write(tmp_path))
    predicted = [("O", "B-Ill"), ("O", "B-Ill", "I-Ill")]
    write_predictions(tmp_path / "train.tsv", splits["train"], predicted)
    assert (tmp_path / "train.tsv").read_text() == (
        "Aspirin\tB-Drug\tO\nhelps\tO\tB-Ill\n\nA\tO\tO\nbad\tB-Ill\tB-Ill\ncold\tI-Ill\tI-Ill\n\n"
    )
    again, _ = read_tagged(str(tmp_path))
    assert [each.words for each in again["train"]] == [each.words for each in splits["train"]]
    assert [each.tags for each in again["train"]] == predicted
    assert not list(tmp_path.glob("*.new"))


def test_a_word_with_a_tab_stays_one_column(tmp_path):
    write_predictions(tmp_path / "a.tsv", [TaggedSentence(("a\tb\n",), ("O",), "x:1")], [["O"]])
    assert (tmp_path / "a.tsv").read_text() == "a b \tO\tO\n\n"


@pytest.mark.parametrize("predicted", [[], [["O", "O"]]])
def test_predictions_that_do_not_fit_are_not_written(tmp_path, predicted):
    with pytest.raises(ValueError, match=r"a\.tsv: got .* expected"):
        write_predictions(tmp_path / "a.tsv", [TaggedSentence(("a",), ("O",), "x:1")], predicted)
    assert not list(tmp_path.iterdir())
