# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.tasks import rows as task_rows
from edad_jax.tasks.data.splits import choose
from edad_jax.tasks.rows import NO_LABEL
from tests.tiny_text import DOMAIN_WORDS, make_documents, write_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(write_tokenizer(tmp_path_factory.mktemp("rows") / "tokenizer"))


@pytest.fixture(scope="module")
def sentences():
    text = make_documents(1, seed=0, sentences=40)[0]
    return [tuple(line.split()) for line in text.split(".") if line.split()]


def tagging(sentences, tokenizer, max_length=16):
    labels = [[index % 3 for index, _ in enumerate(words)] for words in sentences]
    return labels, task_rows.tagging_rows(sentences, labels, tokenizer, max_length=max_length)


def test_the_first_piece_carries_the_label_and_no_word_is_lost(sentences, tokenizer):
    labels, rows = tagging(sentences, tokenizer)
    found = task_rows.gather_words(rows, rows.labels, -7)
    assert [list(each) for each in found] == labels
    for ids, row_labels, words in zip(rows.ids, rows.labels, rows.words, strict=True):
        assert ids[0] == tokenizer.cls_token_id and ids[-1] == tokenizer.sep_token_id
        assert len(ids) == len(row_labels) == len(words) <= 16
        assert ((words >= 0) == (row_labels >= 0)).all()


def test_the_pieces_of_a_row_are_those_of_its_words(sentences, tokenizer):
    _, rows = tagging(sentences, tokenizer, max_length=64)
    for number, ids in enumerate(rows.ids):
        words = sentences[rows.example[number]]
        expected = tokenizer(list(words), is_split_into_words=True, add_special_tokens=False)
        if len(expected["input_ids"]) <= 62:
            assert list(ids[1:-1]) == expected["input_ids"]


def test_a_long_sentence_becomes_several_rows(tokenizer, sentences):
    long = tuple(word for words in sentences[:8] for word in words)
    _, rows = tagging([long], tokenizer)
    assert len(rows) > 3 and set(rows.example) == {0}
    assert rows.notes["sentences cut into several rows"] == 1


@pytest.mark.parametrize("word", ["\u200b", " ", "\u3000", "\u00a0"])
def test_a_word_that_the_tokenizer_maps_to_nothing_is_unknown_and_keeps_its_label(tokenizer, word):
    _, rows = tagging([(word, word)], tokenizer)
    assert list(rows.ids[0][1:-1]) == [tokenizer.unk_token_id] * 2
    assert list(rows.labels[0]) == [NO_LABEL, 0, 1, NO_LABEL]
    assert rows.notes["words without pieces: [UNK] instead"] == 2


def test_a_word_longer_than_a_row_is_cut_and_counted(tokenizer, sentences):
    word = "".join(sentences[0]) * 3
    assert len(tokenizer(word[:90])["input_ids"]) > 12
    _, rows = tagging([(word[:90],)], tokenizer, max_length=8)
    assert len(rows.ids[0]) <= 8
    assert list(rows.labels[0])[1] == 0


def test_a_text_that_is_too_long_is_cut_and_counted(tokenizer, sentences):
    texts = [" ".join(sentences[0]), " ".join(word for words in sentences for word in words), ""]
    rows = task_rows.classification_rows(texts, [1, 0, 1], tokenizer, max_length=16)
    assert [len(ids) for ids in rows.ids][1:] == [16, 3]
    assert [list(each) for each in rows.labels] == [[1], [0], [1]]
    assert rows.notes == {
        "texts longer than a row: cut": 1 + (len(tokenizer(texts[0])["input_ids"]) > 16),
        "texts without pieces: [UNK] instead": 1,
    }


def test_an_epoch_holds_every_row_once_for_each_seed(sentences, tokenizer):
    _, rows = tagging(sentences, tokenizer)
    seen = [[], []]
    for batch in task_rows.epoch_batches(rows, batch_size=4, max_length=16, seeds=(5, 6), epoch=0):
        assert batch.ids_bt.shape[:2] == (4, 2)
        for seed in range(2):
            for ids, mask in zip(batch.ids_bt[:, seed], batch.mask_bt[:, seed], strict=True):
                seen[seed].append(tuple(ids[mask]))
    expected = sorted(tuple(ids) for ids in rows.ids)
    for each in seen:
        assert sorted(row for row in each if row) == expected
    assert seen[0] != seen[1]
    assert len(seen[0]) == 4 * task_rows.count_batches(rows, 4)


def test_a_seed_sees_the_same_batches_whichever_other_seeds_there_are(sentences, tokenizer):
    _, rows = tagging(sentences, tokenizer)
    settings = {"batch_size": 4, "max_length": 16, "epoch": 3}
    together = list(task_rows.epoch_batches(rows, seeds=(1, 2, 3), **settings))
    alone = list(task_rows.epoch_batches(rows, seeds=(2,), **settings))
    rest = list(task_rows.epoch_batches(rows, seeds=(2,), first=2, **settings))
    assert len(rest) == len(alone) - 2 > 0
    for one, other in zip(rest, alone[2:], strict=True):
        np.testing.assert_array_equal(one.ids_bt, other.ids_bt)
    assert len(together) == len(alone)
    for many, one in zip(together, alone, strict=True):
        np.testing.assert_array_equal(many.ids_bt[:, 1:2], one.ids_bt)
        np.testing.assert_array_equal(many.labels_bn[:, 1:2], one.labels_bn)


def test_a_batch_has_a_teachers_logits_at_the_words_that_they_are_of(sentences, tokenizer):
    _, rows = tagging(sentences, tokenizer)
    logits = [np.arange(2.0 * len(ids)).reshape(-1, 2) + 1 for ids in rows.ids]
    taught = task_rows.teach_words(rows, rows, logits, (0, 1))
    for given, words, soft in zip(logits, rows.words, taught.soft, strict=True):
        np.testing.assert_array_equal(soft, np.where((words >= 0)[:, None], given, 0.0))
    (batch, *_) = task_rows.epoch_batches(taught, batch_size=4, max_length=16, seeds=(0,), epoch=0)
    assert batch.teacher_bnc.shape == (*batch.labels_bn.shape, 2)
    assert ((batch.teacher_bnc == 0).all(-1) == (batch.labels_bn < 0)).all()


def test_a_teacher_that_cuts_words_and_counts_labels_otherwise_teaches_the_same_words(
    sentences, tokenizer, tmp_path
):
    folder = write_tokenizer(tmp_path / "teacher")
    with open(folder / "vocab.txt", "a", encoding="utf-8") as file:
        file.writelines(f"{word}\n" for word in DOMAIN_WORDS)
    labels, order = ("O", "B", "I"), (2, 0, 1)
    theirs = [labels[order.index(number)] for number in range(3)]  # B, I, O
    _, rows = tagging(sentences, tokenizer)
    _, teacher_rows = tagging(sentences, load_tokenizer(folder))
    assert len(rows) > len(teacher_rows)
    # What the teacher says of a word tells which word of which sentence it is, and which label.
    logits = []
    for number, words in zip(teacher_rows.example, teacher_rows.words, strict=True):
        said = np.full((len(words), 3), np.nan, np.float32)  # of the other pieces nothing is asked
        for place in np.flatnonzero(words >= 0):
            said[place] = [mark(number, words[place], label) for label in theirs]
        logits.append(said)
    taught = task_rows.teach_words(rows, teacher_rows, logits, order)
    for number, ids, words, soft in zip(
        rows.example, rows.ids, rows.words, taught.soft, strict=True
    ):
        expected = [
            [mark(number, word, label) if word >= 0 else 0.0 for label in labels] for word in words
        ]
        np.testing.assert_array_equal(soft, expected)
        assert len(soft) == len(ids)


def mark(sentence, word, label):
    return 1000 * sentence + 10 * word + "OBI".index(label)


def test_at_most_so_many_examples_are_drawn_and_keep_their_order():
    examples = [f"text {number:02}" for number in range(20)]
    few = choose(examples, 5, np.random.default_rng(0))
    assert len(set(few)) == 5 and few == sorted(few) and set(few) < set(examples)
    assert few == choose(examples, 5, np.random.default_rng(0))
    assert few != choose(examples, 5, np.random.default_rng(1))
    for most in (0, 20, 21):
        assert choose(examples, most, np.random.default_rng(0)) == examples
