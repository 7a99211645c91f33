# SPDX-License-Identifier: Apache-2.0
"""Question answering: rows and their labels, answers in the text as it was given, whole runs."""

import json
import unicodedata

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.export import formats, huggingface
from edad_jax.models import pretrained
from edad_jax.models.exbert import ExBert
from edad_jax.models.heads import Classifier
from edad_jax.runtime import answers, models, windows
from edad_jax.tasks import rows as task_rows
from edad_jax.tasks.answer_scores import answer_scores
from edad_jax.tasks.data.questions import GoldAnswer, Question, read_questions
from edad_jax.tasks.finetune import finetune
from edad_jax.tasks.prediction import ask_teacher
from edad_jax.tasks.question_rows import best_answers, question_rows, teach_positions
from edad_jax.tasks.rows import IMPOSSIBLE, NO_LABEL
from edad_jax.tasks.setup import prepare_examples
from edad_jax.tasks.step import TaskNet, TuningSettings, classification_loss
from edad_jax.training.metrics import read_metrics
from edad_jax.types import TaskBatch
from tests.tiny_models import random_params, tiny_exbert_config
from tests.tiny_run import run_command, write_teacher
from tests.tiny_tasks import tiny_tuning, write_questions
from tests.tiny_text import write_tokenizer

WINDOWS = {"max_length": 16, "max_query_length": 64, "overlap": 4}
SEARCH = {"n_best": 20, "max_answer_length": 30}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(write_tokenizer(tmp_path_factory.mktemp("answering") / "tokenizer"))


def ask(context, *golds, question="what binds?"):
    """Returns a question whose gold answers are the first occurrences of texts."""
    answers = tuple(GoldAnswer(gold, context.index(gold)) for gold in golds)
    return Question("q", question, context, answers, "d", "s:1")


def pointing(rows):
    """Returns logits that point at the labels of the rows, and at nothing where there is none."""
    logits = []
    for ids, labels in zip(rows.ids, rows.labels, strict=True):
        each = np.zeros((2, len(ids) + 3), np.float32)  # padded, as a net's are
        for end, label in enumerate(labels):
            if label > 0:
                each[end, label] = 9.0
        logits.append(each)
    return logits


LONG = "The cell  was (Protein-GENE), " * 6 + "brain dose! " + "é x 안녕 하세요 " * 5


@pytest.mark.parametrize(
    "answer", ["The cell", "Protein-GENE", "brain dose!", "brain", "é x 안녕", "하세요", "x"]
)
def test_labels_point_at_the_answer_and_lead_back_to_it(tokenizer, answer):
    question = ask(LONG, answer)
    rows = question_rows([question], tokenizer, **WINDOWS)
    assert len(rows) > 5 and max(map(len, rows.ids)) == 16
    assert rows.notes["questions whose context is cut into several windows"] == 1
    has_answer = [labels[0] > 0 for labels in rows.labels]
    assert any(has_answer)
    assert rows.notes["rows without the answer: [CLS] instead"] == has_answer.count(False)
    for ids, labels, second in zip(rows.ids, rows.labels, rows.segment_b_start, strict=True):
        assert ids[0] == tokenizer.cls_token_id
        assert ids[second - 1] == ids[-1] == tokenizer.sep_token_id
        assert (labels == 0).all() or second <= labels[0] <= labels[1] < len(ids) - 1
    assert best_answers([question], rows, pointing(rows), **SEARCH) == [answer]


def test_the_first_gold_answer_that_lies_in_the_context_is_learnt(tokenizer):
    golds = (GoldAnswer("bird", None), GoldAnswer("cell", 4), GoldAnswer("The", 0))
    question = Question("q", "what?", "The cell was", golds, "d", "s:1")
    rows = question_rows([question], tokenizer, **WINDOWS)
    assert best_answers([question], rows, pointing(rows), **SEARCH) == ["cell"]


def test_a_question_that_is_too_long_is_cut_and_counted(tokenizer):
    question = ask("the cell was", "cell", question="what binds " * 9)
    rows = question_rows([question], tokenizer, max_length=16, max_query_length=4, overlap=4)
    assert rows.notes == {"questions longer than the window allows: cut": 1}
    assert list(rows.segment_b_start) == [6]
    rows = question_rows([question], tokenizer, **WINDOWS)
    assert list(rows.segment_b_start) == [8]  # half the window at most


def test_an_answer_within_a_piece_and_one_without_pieces(tokenizer):
    questions = [
        ask("the cells was", "ell"),
        ask("the \u200b cell", "\u200b"),
        ask("\u200b", "\u200b"),
    ]
    rows = question_rows(questions, tokenizer, **WINDOWS)
    assert best_answers(questions, rows, pointing(rows), **SEARCH)[0] == "cells"
    assert [list(labels) for labels in rows.labels][1:] == [[NO_LABEL] * 2] * 2
    assert rows.notes == {
        "answers that begin or end within a piece": 1,
        "answers without pieces: not learnt": 2,
        "contexts without pieces: no answer": 1,
    }
    assert best_answers(questions, rows, pointing(rows), **SEARCH)[2] == ""


def test_an_answer_is_no_longer_than_allowed_and_no_piece_of_the_question(tokenizer):
    question = ask("the cell was brain", "cell")
    rows = question_rows([question], tokenizer, **WINDOWS)
    second = rows.segment_b_start[0]
    logits = np.zeros((1, 2, 16), np.float32)
    logits[0, :, [0, 1, second - 1, len(rows.ids[0]) - 1, 15]] = 50.0  # not of the context
    logits[0, 0, second], logits[0, 1, second + 3] = 9.0, 9.0
    found = [
        best_answers([question], rows, logits, n_best=20, max_answer_length=longest)[0]
        for longest in (4, 3)
    ]
    assert found[0] == "the cell was brain" and found[1] != found[0]


def test_where_no_likely_pair_is_an_answer_a_less_likely_one_is_given():
    """The likeliest starts lie at the end, the likeliest ends at the beginning."""
    starts, ends_p = np.arange(60.0), np.arange(2, 122, 2)
    context = windows.Pieces(np.arange(60), ends_p - 2, ends_p, np.ones(60, bool))
    for n_best in (1, 20):
        options = {"n_best": n_best, "max_answer_length": 30, "most": 1}
        judged = [(windows.Window(0, 0, 60, 0, 60), starts, -starts)]
        (best,) = answers.find_answers(iter(judged), context, **options)
        assert best.score == 0.0 and 0 < best.end - best.start <= 60
    assert answers.find_answers([], context, **options) == []


def test_the_bound_of_a_tokenizer_is_what_its_pieces_allow(tmp_path):
    """One answer of four ends within a piece: "cell" of "cells"."""
    folder = write_tokenizer(tmp_path / "tokenizer")
    paragraph = {"context": "the cells bind", "qas": []}
    for number, text in enumerate(("cells", "cell", "cells bind", "bind")):
        answer = {"text": text, "answer_start": paragraph["context"].index(text)}
        paragraph["qas"].append({"id": str(number), "question": "what?", "answers": [answer]})
    articles = [{"title": title, "paragraphs": [paragraph]} for title in "abc"]
    for split in ("train", "dev"):
        (tmp_path / f"{split}.json").write_text(json.dumps({"data": articles}))
    done = run_command(
        f"--data={tmp_path}",
        f"--tokenizer={folder}",
        "--only_test",
        script="../benchmarks/answer_bounds.py",
    )
    assert done.returncode == 0, done.stderr
    assert "12 questions: exact match 75.00%, F1 75.00%" in done.stdout


def test_batches_have_segments_two_labels_and_room_for_a_teacher(tokenizer):
    questions = [ask(LONG, "brain"), ask("the cell", "cell")]
    rows = question_rows(questions, tokenizer, **WINDOWS)
    rows = teach_positions(rows, rows, pointing(rows), (0, 1))
    for batch in task_rows.epoch_batches(rows, batch_size=4, max_length=16, seeds=(0, 1), epoch=0):
        assert batch.labels_bn.shape == (4, 2, 2)
        assert batch.segment_b_start_b.shape == (4, 2)
        assert batch.teacher_bnc.shape == (4, 2, 2, 16)
        padding = np.broadcast_to(~batch.mask_bt[:, :, None], batch.teacher_bnc.shape)
        assert (batch.teacher_bnc[padding] == IMPOSSIBLE).all()
        assert (batch.teacher_bnc[~padding] >= 0).all()


def test_a_teacher_with_other_pieces_is_an_error(tokenizer):
    questions = [ask(LONG, "brain")]
    rows = question_rows(questions, tokenizer, **WINDOWS)
    other = question_rows(questions, tokenizer, **WINDOWS | {"overlap": 2})
    with pytest.raises(ValueError, match="expected a teacher with the same tokenizer"):
        teach_positions(rows, other, pointing(other), (0, 1))


@pytest.fixture(scope="module")
def net_and_params():
    config = tiny_exbert_config(initializer_range=0.02, num_hidden_layers=1)
    net = TaskNet("answering", ExBert(config, jnp.float32), Classifier(config.base, 2, jnp.float32))
    params = random_params(config)
    kernel = np.random.default_rng(0).normal(size=(config.base.hidden_size, 2)).astype(np.float32)
    head = {"dense": {"kernel": kernel, "bias": np.zeros(2, np.float32)}}
    return net, {part: params[part] for part in net.parts} | {"classifier": head}


def test_only_the_context_and_cls_can_be_chosen_and_empty_rows_cost_nothing(net_and_params):
    net, params = net_and_params
    ids = np.random.default_rng(1).integers(1, 60, (3, 10)).astype(np.int32)
    mask = np.arange(10)[None] < np.array([[10], [7], [0]])
    labels = np.array([[4, 5], [0, 0], [NO_LABEL, NO_LABEL]], np.int32)
    batch = TaskBatch(ids * mask, mask, labels, None, np.array([4, 5, 0], np.int32))
    logits = np.asarray(net.logits(params, batch, None))
    assert logits.shape == (3, 2, 10)
    allowed = [[0, 4, 5, 6, 7, 8, 9], [0, 5, 6], [0]]
    for row, places in enumerate(allowed):
        for end in range(2):
            assert list(np.flatnonzero(logits[row, end] > IMPOSSIBLE)) == places
    segments = (np.arange(10)[None] >= np.array([[4], [5], [10]])) & mask
    hidden = net.encoder.apply(
        {"params": params}, batch.ids_bt, segments.astype(np.int32), mask, method="encode"
    ).last_hidden_btd
    hidden = np.asarray(hidden)
    head = params["classifier"]["dense"]
    np.testing.assert_allclose(
        logits[0, :, 4:], (hidden[0] @ head["kernel"] + head["bias"])[4:].T, atol=1e-5
    )
    settings = TuningSettings(None, temperature=2.0, soft_weight=0.5)
    batch = batch._replace(teacher_bnc=logits)
    loss = float(classification_loss(logits, batch, settings))
    full = jax.tree.map(lambda x: x[:2], batch)
    assert 0 < loss < 100
    assert loss == pytest.approx(float(classification_loss(logits[:2], full, settings)), rel=1e-6)


# Whole runs


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """Returns (folder, summary) of a run on train and dev files; tests change nothing there."""
    folder = tmp_path_factory.mktemp("tuned")
    write_teacher(folder / "bert")
    write_questions(folder / "data" / "train-tiny.json", 20)
    write_questions(folder / "data" / "dev-tiny.json", 6, seed=1)
    config = tiny_tuning(
        "answering",
        folder / "bert",
        folder / "data",
        epochs=2,
        overlap=8,
        optimizer__learning_rate=1e-2,
    )
    return folder, finetune(config, str(folder / "run"))


def test_a_bert_learns_to_answer_and_dev_is_the_test_set(tuned):
    folder, summary = tuned
    assert summary["examples"] == {"train": 36, "validation": 4, "test": 12}
    assert any("dev is the test set" in line for line in summary["notes"]["reader"])
    assert summary["labels"] == ["start", "end"]
    assert summary["means"]["test/f1"]["mean"] > 0.8
    assert set(summary["seeds"]["0"]["test"]) == {"f1", "exact_match", "questions", "scoring"}
    assert "test/exact_match" in summary["means"]


def test_predictions_are_in_the_official_form_and_score_the_same(tuned):
    folder, summary = tuned
    path = folder / "run" / "predictions" / "test-seed-0.json"
    answers = json.loads(path.read_text(encoding="utf-8"))
    questions = read_questions(str(folder / "data"))[0]["test"]
    assert list(answers) == [question.id for question in questions]
    for question in questions:
        assert answers[question.id] in question.context
    scores = answer_scores(
        list(answers.values()), [question.gold_texts for question in questions], "squad"
    )
    assert scores["f1"] == summary["seeds"]["0"]["test"]["f1"]
    lines = path.with_suffix(".tsv").read_text(encoding="utf-8").splitlines()
    assert lines[0].split("\t") == ["id", "question", "answer", "gold", "exact_match", "f1"]
    assert len(lines) == 1 + len(questions)


def test_the_edge_runtime_gives_the_answers_of_the_run(tuned):
    folder, summary = tuned
    model = formats.load(str(folder / "run" / "model"))
    assert model.task == huggingface.Task("answering", ("start", "end"))
    reader = models.QuestionAnswerer(
        formats.export(model, "onnx", folder / "onnx"), max_length=32, overlap=8, batch_size=4
    )
    answers = json.loads((folder / "run/predictions/test-seed-0.json").read_text("utf-8"))
    questions = read_questions(str(folder / "data"))[0]["test"]
    found = list(reader((each.question, each.context) for each in questions))
    assert [one[0].text for one in found] == list(answers.values())
    for question, (best,) in zip(questions, found, strict=True):
        assert question.context[best.start : best.end] == best.text


def pointing_by_flax(folder, rows, length):
    """Returns float64 logits [rows, 2, length] of a model; -1e9 outside the context and [CLS]."""
    model = formats.load(str(folder))
    ids = np.array([np.pad(each, (0, length - len(each))) for each in rows.ids])
    mask = np.arange(length) < np.array([[len(each)] for each in rows.ids])
    segments = mask & (np.arange(length) >= rows.segment_b_start[:, None])
    inputs = (each.astype(np.int32) for each in (ids, mask, segments))
    logits = formats.forward(model, model.params, *inputs)
    allowed = segments | (np.arange(length) == 0)
    return np.where(allowed[:, None], np.stack(logits, 1).astype(np.float64), -1e9)


def test_a_student_learns_from_a_teacher_of_the_same_tokenizer(tuned, tmp_path):
    """Its loss, in numpy: one batch of all rows, at a rate of 0, so that the model stays."""
    folder, _ = tuned
    weight, temperature = 0.3, 2.0
    config = tiny_tuning(
        "answering",
        folder / "bert",
        folder / "data",
        epochs=1,
        overlap=8,
        batch_size=128,
        teacher=str(folder / "run" / "model"),
        soft_weight=weight,
        temperature=temperature,
        optimizer__learning_rate=0.0,
        optimizer__schedule="constant",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    finetune(config, str(tmp_path / "run"))
    got = read_metrics(tmp_path / "run" / "metrics.jsonl")[0]["loss/seed-0"]
    questions = read_questions(str(folder / "data"))[0]["train"]
    windows = {"max_length": 32, "max_query_length": 64, "overlap": 8}
    rows = question_rows(questions, load_tokenizer(folder / "bert"), **windows)
    assert len(questions) < len(rows) < 128
    student, teacher = (
        pointing_by_flax(each / "run" / "model", rows, 32) for each in (tmp_path, folder)
    )
    labels = np.array(rows.labels)[..., None]
    hard = -np.take_along_axis(log_softmax(student, axis=-1), labels, axis=-1).mean()
    sought = softmax(teacher / temperature, axis=-1)
    soft = -(sought * log_softmax(student / temperature, axis=-1)).sum(-1).mean()
    assert got == pytest.approx((1 - weight) * hard + weight * temperature**2 * soft, rel=1e-4)


def test_a_teacher_whose_classes_have_no_names_is_taken_too(tuned, tmp_path):
    folder, _ = tuned
    path = folder / "run" / "model"
    sizes, params, _ = pretrained.load_task_model(str(path))
    assert json.loads((path / "config.json").read_text())["architectures"] == [
        "BertForQuestionAnswering"
    ]
    huggingface.save_model(
        tmp_path / "theirs",
        params,
        sizes,
        folder / "bert",
        card=huggingface.ModelCard("t", "s", {}, {}, {}),
        task=huggingface.Task("answering", ("LABEL_0", "LABEL_1")),
    )
    config = tiny_tuning("answering", folder / "bert", folder / "data", overlap=8)
    prepared = prepare_examples(config, load_tokenizer(folder / "bert"))
    soft = []
    for teacher in (path, tmp_path / "theirs"):
        config.teacher = str(teacher)
        soft.append(ask_teacher(config, prepared).soft)
    for named, unnamed in zip(*soft, strict=True):
        np.testing.assert_array_equal(named, unnamed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scoring": "bleu"}, "config.scoring='bleu' is not one of squad, korquad"),
        ({"overlap": -1}, "config.overlap=-1, expected at least 0"),
        ({"max_query_length": 0}, "config.max_query_length=0, expected at least 1"),
        ({"n_best": 0}, "config.n_best=0"),
        ({"max_answer_length": 0}, "config.max_answer_length=0"),
    ],
)
def test_settings_that_cannot_be_used_are_named(tuned, tmp_path, changes, message):
    folder, _ = tuned
    config = tiny_tuning("answering", folder / "bert", folder / "data", **changes)
    with pytest.raises(ValueError, match=message):
        finetune(config, str(tmp_path / "run"))


def test_hangul_in_parts_is_read_as_syllables_and_answered_as_it_stands(tmp_path):
    """The runtime reads it so too: the same pieces for the same text."""
    tokenizer = load_tokenizer(write_tokenizer(tmp_path, lower=False, strip_accents=False))
    context = unicodedata.normalize("NFD", "brain 안녕 하세요 dose")
    answer = unicodedata.normalize("NFD", "안녕 하세요")
    question = ask(context, answer, question="brain dose")
    rows = question_rows([question], tokenizer, **WINDOWS)
    assert tokenizer.unk_token_id not in rows.ids[0]
    assert best_answers([question], rows, pointing(rows), **SEARCH) == [answer]
