# SPDX-License-Identifier: Apache-2.0
"""Questions on contexts: every form that is read, every way to be bad, and the split."""

import gzip
import json
import unicodedata
from pathlib import Path

import datasets
import pytest

from edad_jax.tasks.data.questions import GoldAnswer, read_questions
from edad_jax.tasks.data.splits import split_by_group

CONTEXT = "The cat sat. A dog ran after the cat, and the cat hid."


def entry(number=0, question="Who sat?", answers=(("The cat", 0),), **changes):
    answers = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": f"q{number}", "question": question, "answers": answers} | changes


def article(entries, title="Cats", context=CONTEXT):
    return {"title": title, "paragraphs": [{"context": context, "qas": entries}]}


def articles(count, first=0, questions=2):
    """Returns articles that each have a context of their own."""
    return [
        article(
            [entry(10 * number + each) for each in range(questions)],
            title=f"Cats {number}",
            context=f"{CONTEXT} {number}",
        )
        for number in range(first, first + count)
    ]


def write(path: Path, data) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": "1.1", "data": data}), encoding="utf-8")
    return str(path.parent)


def read_train(tmp_path, *entries, **article_changes):
    """Returns the questions to train on, and the report, of a file with these entries and more."""
    write(tmp_path / "train.json", [article(list(entries), **article_changes)])
    write(tmp_path / "dev.json", articles(2, first=5))
    write(tmp_path / "test.json", articles(2, first=7))
    splits, report = read_questions(str(tmp_path))
    return splits["train"], report


def test_a_question_has_all_its_gold_answers(tmp_path):
    answers = (("cat", 4), ("The cat", 0), ("cat", 4))
    (question,), report = read_train(tmp_path, entry(answers=answers))
    assert question.answers == tuple(GoldAnswer(*answer) for answer in answers)
    assert question.gold_texts == ("cat", "The cat", "cat")
    assert (question.id, question.document, question.source) == ("q0", "Cats", "train.json:1")
    assert not report.problems


@pytest.mark.parametrize(
    "names",
    [
        ("train.json", "dev.json", "test.json"),
        ("train-v1.1.json", "dev-v1.1.json", "test-v1.1.json"),
        ("KorQuAD_v1.0_train.json", "KorQuAD_v1.0_valid.json", "KorQuAD_v1.0_test.json"),
    ],
)
def test_split_files_are_found_by_the_words_in_their_names(tmp_path, names):
    for number, name in enumerate(names):
        write(tmp_path / name, articles(number + 1, first=10 * number))
    splits, report = read_questions(str(tmp_path))
    assert {split: len(each) for split, each in splits.items()} == {
        "train": 2,
        "validation": 4,
        "test": 6,
    }
    assert not any("split by" in message for message in report.messages)


def test_compressed_files_and_byte_order_marks_are_read(tmp_path):
    text = json.dumps({"data": articles(12)})
    (tmp_path / "train.json.gz").write_bytes(gzip.compress(b"\xef\xbb\xbf" + text.encode()))
    splits, _ = read_questions(str(tmp_path / "train.json.gz"))
    assert sum(map(len, splits.values())) == 24


def test_train_and_dev_alone_make_dev_the_test_set_and_say_so(tmp_path):
    write(tmp_path / "train.json", articles(20))
    write(tmp_path / "dev.json", articles(3, first=30))
    splits, report = read_questions(str(tmp_path))
    assert [len(splits[split]) for split in ("train", "validation", "test")] == [36, 4, 6]
    assert all(question.source.startswith("dev.json") for question in splits["test"])
    documents = [{q.document for q in splits[split]} for split in ("train", "validation")]
    assert not documents[0] & documents[1]
    assert "train and dev are given, no test: dev is the test set, scored once" in report.messages
    assert any("no validation split: train split by document" in each for each in report.messages)
    again, _ = read_questions(str(tmp_path))
    other, _ = read_questions(str(tmp_path), seed=1)
    assert again == splits and other["validation"] != splits["validation"]


def test_one_file_is_split_in_three_by_context_where_it_has_one_document(tmp_path):
    paragraphs = [each["paragraphs"][0] for each in articles(10)]
    write(tmp_path / "any.json", [{"title": "One", "paragraphs": paragraphs}])
    splits, report = read_questions(str(tmp_path / "any.json"))
    assert [len(splits[split]) for split in ("train", "validation", "test")] == [16, 2, 2]
    assert any("split by context" in each for each in report.messages)
    assert read_questions(str(tmp_path))[0] == splits  # the only file of a folder


def test_an_offset_that_does_not_match_is_repaired_by_the_nearest_occurrence(tmp_path):
    near = (("the cat", 44), ("cat", 31), ("dog", -3), ("dog", 14.0), ("dog", "16"))
    (question,), report = read_train(tmp_path, entry(answers=near))
    assert [answer.start for answer in question.answers] == [42, 33, 15, 15, 15]
    assert report.problems == {"answer is not at its offset: nearest occurrence taken": 5}


def test_an_answer_that_is_not_in_the_context_is_counted_and_not_learnt(tmp_path):
    train, report = read_train(
        tmp_path,
        entry(0, answers=(("a bird", 3),)),
        entry(1, answers=(("a bird", 3), ("cat", 4))),
    )
    assert [question.id for question in train] == ["q1"]
    assert train[0].answers == (GoldAnswer("a bird", None), GoldAnswer("cat", 4))
    assert report.problems == {
        "answer is not in the context": 2,
        "question skipped: its answers are not in the context": 1,
        "train: questions skipped": 1,
    }


def test_a_test_question_whose_answer_is_not_in_the_context_still_counts(tmp_path):
    write(tmp_path / "train.json", articles(4))
    write(tmp_path / "dev.json", [article([entry(answers=(("a bird", 3),))])])
    splits, report = read_questions(str(tmp_path))
    assert splits["test"][0].gold_texts == ("a bird",)
    assert report.problems == {"answer is not in the context": 1}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"question": " "}, "question skipped: no text"),
        ({"question": None}, "question skipped: no text"),
        ({"answers": []}, "question skipped: no answers"),
        ({"answers": "cat"}, "question skipped: no answers"),
        ({"answers": [{"text": "", "answer_start": 0}]}, "question skipped: no answer with a text"),
    ],
)
def test_a_question_that_cannot_be_used_is_skipped_and_counted(tmp_path, changes, reason):
    train, report = read_train(tmp_path, entry(), entry(1) | changes)
    assert [question.id for question in train] == ["q0"]
    assert report.problems[reason] == report.problems["train: questions skipped"] == 1
    assert f"train.json:2: {reason}" in report.messages


@pytest.mark.parametrize("context", ["", " \n", None, 3])
def test_an_empty_context_costs_its_questions(tmp_path, context):
    write(tmp_path / "train.json", [*articles(3), article([entry(77), entry(78)], context=context)])
    splits, report = read_questions(str(tmp_path / "train.json"))
    assert sum(map(len, splits.values())) == 6
    assert report.problems == {
        "question skipped: no context": 2,
        "train: questions skipped": 2,
    }


def test_ids_are_made_and_kept_apart(tmp_path):
    train, report = read_train(tmp_path, entry(id=7), entry(id=7), entry(id=None))
    assert [question.id for question in train] == ["7", "7 train.json:2", "train.json:3"]
    assert report.problems == {"id given twice: place added": 1}


def test_half_characters_are_replaced_and_offsets_stay(tmp_path):
    (question,), report = read_train(tmp_path, entry(), context="The cat \ud83d sat.")
    assert question.context == "The cat ? sat."
    assert report.problems == {"invalid Unicode replaced": 1}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"data": [{"title": "Cats", "par', "is not JSON, or was cut short"),
        ("", "is not JSON, or was cut short"),
        (b'{"data": "\xff\xfe"}', "got text that is no UTF-8 .*--config.encoding=cp949"),
        ("[1, 2]", 'got article 0 without "paragraphs"'),
        ('{"rows": []}', "got NoneType, expected SQuAD's form"),
        ('{"data": []}', "got no articles, expected SQuAD's form"),
        ('{"data": [{"title": "Cats"}]}', 'got article 0 without "paragraphs"'),
        ('{"data": [{"title": "Cats", "paragraphs": [{"context": "a"}]}]}', 'Cats: got no "qas"'),
        ('{"data": [{"paragraphs": []}]}', "got 0 questions to use for train"),
    ],
)
def test_a_file_in_another_form_is_named_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "train.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=reason) as error:
        read_questions(str(path))
    assert "train.json" in str(error.value)


def test_korean_in_its_old_encoding_is_an_error_that_names_the_option(tmp_path):
    korean = article([entry(answers=[("고양이", 0)])], context="고양이가 앉았다.")
    text = json.dumps({"data": [korean, *articles(11, first=1)]}, ensure_ascii=False)
    (tmp_path / "train.json").write_bytes(text.encode("cp949"))
    with pytest.raises(ValueError, match=r"train.json: got text that .* --config.encoding=cp949"):
        read_questions(str(tmp_path / "train.json"))
    splits, _ = read_questions(str(tmp_path / "train.json"), encoding="cp949")
    assert "고양이" in {text for each in splits.values() for q in each for text in q.gold_texts}


def test_a_damaged_archive_and_an_unknown_encoding_are_errors(tmp_path):
    packed = gzip.compress(json.dumps({"data": articles(9)}).encode())
    (tmp_path / "train.json.gz").write_bytes(packed[:-20])
    with pytest.raises(ValueError, match="give a whole file"):
        read_questions(str(tmp_path / "train.json.gz"))
    with pytest.raises(ValueError, match="got --config.encoding=utf-9"):
        read_questions(str(tmp_path / "train.json.gz"), encoding="utf-9")


def test_two_files_for_a_split_no_training_file_and_too_few_contexts_are_errors(tmp_path):
    write(tmp_path / "two" / "train.json", articles(3))
    write(tmp_path / "two" / "train-more.json", articles(3))
    with pytest.raises(ValueError, match="expected one file for train"):
        read_questions(str(tmp_path / "two"))
    write(tmp_path / "none" / "dev.json", articles(3))
    with pytest.raises(ValueError, match="expected a training split"):
        read_questions(str(tmp_path / "none"))
    write(tmp_path / "few" / "train.json", articles(2))
    with pytest.raises(ValueError, match="got 2 contexts, too few"):
        read_questions(str(tmp_path / "few"))
    with pytest.raises(ValueError, match="no such file or folder"):
        read_questions(str(tmp_path / "nowhere"))


def test_a_data_set_is_read_as_a_file_is(tmp_path):
    def rows(first):
        for one in articles(8, first=first):
            (paragraph,) = one["paragraphs"]
            for qa in paragraph["qas"]:
                answers = {"text": ["The cat"], "answer_start": [0]}
                yield {
                    "id": qa["id"],
                    "title": one["title"],
                    "context": paragraph["context"],
                    "question": qa["question"],
                    "answers": answers,
                }

    saved = datasets.DatasetDict(
        train=datasets.Dataset.from_list(list(rows(0))),
        validation=datasets.Dataset.from_list(list(rows(8))),
    )
    saved.save_to_disk(str(tmp_path / "saved"))
    from_saved, report = read_questions(str(tmp_path / "saved"))
    assert [len(from_saved[split]) for split in ("train", "validation", "test")] == [14, 2, 16]
    assert "train and dev are given, no test: dev is the test set, scored once" in report.messages
    write(tmp_path / "files" / "train.json", articles(8))
    write(tmp_path / "files" / "dev.json", articles(8, first=8))
    from_files, _ = read_questions(str(tmp_path / "files"))
    for split, questions in from_files.items():
        assert [(q.id, q.answers) for q in questions] == [
            (q.id, q.answers) for q in from_saved[split]
        ]
    saved["train"] = saved["train"].remove_columns("answers")
    saved.save_to_disk(str(tmp_path / "other"))
    with pytest.raises(ValueError, match="expected SQuAD's: question, context, answers"):
        read_questions(str(tmp_path / "other"))


@pytest.mark.parametrize(
    ("sizes", "shares", "expected"),
    [
        ([10] * 10, (8, 1, 1), [80, 10, 10]),
        ([90, 5, 5], (8, 1, 1), [90, 5, 5]),
        ([50, 50], (9, 1), [50, 50]),
        ([30, 7, 20, 3, 40], (9, 1), [90, 10]),
    ],
)
def test_groups_are_whole_and_no_share_is_empty(sizes, shares, expected):
    groups = [str(number) for number, size in enumerate(sizes) for _ in range(size)]
    for seed in range(5):
        parts = split_by_group(groups, shares, seed=seed)
        assert [len(part) for part in parts] == expected
        assert sorted(place for part in parts for place in part) == list(range(len(groups)))
        names = [{groups[place] for place in part} for part in parts]
        assert sum(map(len, names)) == len(sizes)


@pytest.mark.parametrize("start", [33, 33.0, "33", [33]])
def test_offsets_may_be_numbers_of_any_kind(tmp_path, start):
    answers = {"text": "cat", "answer_start": start}  # not in a list, as exports of tables have it
    (question,), report = read_train(tmp_path, entry() | {"answers": answers})
    assert question.answers == (GoldAnswer("cat", 33),) and not report.problems


@pytest.mark.parametrize("start", [None, "here", True, float("nan"), []])
def test_an_answer_without_an_offset_is_its_first_occurrence(tmp_path, start):
    answers = {"text": ["cat"], "answer_start": [start]}
    (question,), report = read_train(tmp_path, entry() | {"answers": answers})
    assert question.answers == (GoldAnswer("cat", 4),)
    assert report.problems == {"answer has no offset: first occurrence taken": 1}


def test_an_answer_in_the_other_form_of_hangul_is_found(tmp_path):
    """A Mac writes syllables in parts (NFD), and the answers come from elsewhere."""
    context = unicodedata.normalize("NFD", "고양이가 앉았다. 개가 달렸다.")
    asked = entry(answers=(("개가", 10),))
    (question,), _ = read_train(tmp_path, asked, context=context)
    (answer,) = question.answers
    assert answer.start == context.index(answer.text) > 0
    assert unicodedata.normalize("NFC", answer.text) == "개가"


@pytest.mark.parametrize("mark", [True, "true", 1, "True"])
def test_a_question_marked_impossible_is_not_scored_as_answerable(tmp_path, mark):
    """SQuAD 2 marks it, and what is plausible may stand among its answers."""
    train, report = read_train(tmp_path, entry(0), entry(1, is_impossible=mark))
    assert [question.id for question in train] == ["q0"]
    reason = "question skipped: is_impossible, and yet it has answers"
    assert report.problems == {reason: 1, "train: questions skipped": 1}
    assert f"train.json:2: {reason}" in report.messages


@pytest.mark.parametrize(
    "marks",
    [{"isImpossible": True}, {"unanswerable": "t"}, {"answerable": False}, {"has_answer": "no"}],
)
def test_the_mark_may_have_another_name(tmp_path, marks):
    train, report = read_train(tmp_path, entry(0), entry(1, **marks), entry(2, has_answer=True))
    assert [question.id for question in train] == ["q0", "q2"]
    assert report.problems[f"question skipped: {next(iter(marks))}, and yet it has answers"] == 1


@pytest.mark.parametrize("mark", [False, "false", 0, None, ""])
def test_a_question_that_is_not_marked_impossible_is_kept(tmp_path, mark):
    train, report = read_train(tmp_path, entry(0), entry(1, is_impossible=mark))
    assert len(train) == 2 and not report.problems


@pytest.mark.parametrize("name", ["dev", "test"])  # dev alone is the test set
def test_a_question_dropped_from_the_test_split_is_an_error_unless_allowed(tmp_path, name):
    write(tmp_path / "train.json", articles(8))
    bad = article([entry(50), entry(51, is_impossible=True), entry(52, answers=())])
    write(tmp_path / f"{name}.json", [bad])
    with pytest.raises(ValueError, match=r"2 of the 3 questions of .*allow_skipped_test=True"):
        read_questions(str(tmp_path))
    splits, report = read_questions(str(tmp_path), allow_skipped_test=True)
    assert [question.id for question in splits["test"]] == ["q50"]
    assert report.problems["test: questions skipped"] == 2


def test_a_test_file_without_answers_is_left_out_with_a_word(tmp_path):
    write(tmp_path / "train.json", articles(8))
    write(tmp_path / "dev.json", articles(2, first=10))
    write(tmp_path / "test.json", [article([entry(50, answers=()), entry(51, answers=())])])
    splits, report = read_questions(str(tmp_path))
    assert {question.source.split(":")[0] for question in splits["test"]} == {"dev.json"}
    assert "test.json: split not used, since it has no answers" in report.messages
