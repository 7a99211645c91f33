# SPDX-License-Identifier: Apache-2.0
"""What an exported model scores, beside the trained one."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from edad_jax.export import formats
from edad_jax.runtime import models
from edad_jax.tasks import exported
from edad_jax.tasks.data.labelled import read_labelled
from edad_jax.tasks.exported import scores_of_both
from tests.tiny_exports import LABELS, tiny_model
from tests.tiny_tasks import write_questions


@pytest.fixture
def export(tmp_path, tokenizer_dir):
    """Returns make(kind) -> (model, the folder of its ONNX file)."""

    def make(kind):
        model = formats.load(tiny_model(tmp_path / "model", tokenizer_dir, kind))
        return model, formats.export(model, "onnx", tmp_path / "onnx")

    return make


def test_a_tagger_scores_the_same_and_the_trained_one_is_flax(tmp_path, export):
    model, folder = export("tagging")
    sentence = "\n".join(["a\tB-Drug", "b\tI-Drug", "c\tO", "d\tB-Gene"] * 8)
    (tmp_path / "data").mkdir()
    for split in ("train", "devel", "test"):
        (tmp_path / "data" / f"{split}.tsv").write_text(sentence + "\n", encoding="utf-8")
    (before, after) = scores_of_both(model, folder, str(tmp_path / "data"))["entity F1"]
    assert before == after
    bias = np.array([-50, 0, 0, 50], np.float32)  # every piece is a gene
    model.params["classifier"]["dense"]["bias"] = bias
    (before, again) = scores_of_both(model, folder, str(tmp_path / "data"))["entity F1"]
    assert (before, again) == (pytest.approx(2 * 8 / (16 + 32)), after)


def test_a_classifier_scores_the_same_on_the_rows_asked_for(tmp_path, export):
    model, folder = export("classification")
    data = tmp_path / "texts.csv"
    rows = [f"w{number} w{number + 1},{LABELS[number % 4]}" for number in range(80)]
    data.write_text("words,kind\n" + "\n".join(rows) + "\n", encoding="utf-8")
    columns = {"text_key": "words", "label_key": "kind"}
    scores = scores_of_both(model, folder, str(data), **columns)
    assert set(scores) == {"accuracy", "macro F1"}
    assert all(before == after for before, after in scores.values())
    model.params["classifier"]["dense"]["bias"] = np.array([90, 0, 0, 0], np.float32)
    before, _ = scores_of_both(model, folder, str(data), **columns)["accuracy"]
    assert before == 0.25  # 8:1:1 by class leaves two texts of each of the four
    before, _ = scores_of_both(model, folder, str(data), rows=1, **columns)["accuracy"]
    assert before in (0.0, 1.0)


def test_data_are_split_as_in_the_run_that_trained_the_model(tmp_path, export, monkeypatch):
    model, folder = export("classification")
    data = tmp_path / "texts.csv"
    rows = [f"w{number},{LABELS[number % 4]}" for number in range(80)]
    data.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="cp949")
    config = {"split_seed": 5, "encoding": "cp949", "dataset_config": ""}
    (tmp_path / "config.json").write_text(json.dumps(config))  # beside the model's folder
    asked = []

    def classify(self, texts):
        asked.append(list(texts))
        return [SimpleNamespace(label="O")] * len(asked[-1])

    monkeypatch.setattr(models.Classifier, "__call__", classify)
    scores_of_both(model, folder, str(data))
    (test, same) = asked
    splits, _ = read_labelled(str(data), seed=5)
    others, _ = read_labelled(str(data), seed=0)
    assert test == same == [each.text for each in splits["test"]]
    assert test != [each.text for each in others["test"]]


def test_a_question_answerer_scores_the_same(tmp_path, export):
    model, folder = export("answering")
    scores = scores_of_both(model, folder, str(write_questions(tmp_path / "squad.json")), rows=6)
    assert set(scores) == {"exact match", "F1"}
    assert all(before == after for before, after in scores.values())


def test_korean_answers_are_scored_as_korquad_does_where_asked(tmp_path, export, monkeypatch):
    """By letters, where SQuAD takes words: an ending is a part of a word here."""
    model, folder = export("answering")
    entries = [
        {"id": str(number), "question": "어디?", "answers": [{"text": "서울", "answer_start": 0}]}
        for number in range(12)
    ]
    paragraphs = [{"context": f"서울에서 {each['id']}", "qas": [each]} for each in entries]
    path = tmp_path / "korquad.json"
    data = {"data": [{"title": "서울", "paragraphs": paragraphs}]}
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")

    class Answerer:
        def __call__(self, pairs):
            return [[SimpleNamespace(text="서울에서")] for _ in pairs]

    monkeypatch.setattr(exported, "open_answerer", lambda folder: Answerer())
    scores = scores_of_both(model, folder, str(path), scoring="korquad")
    assert scores == {"exact match": (0, 0), "F1": (pytest.approx(2 * 2 / (4 + 2)),) * 2}
    assert scores_of_both(model, folder, str(path))["F1"] == (0, 0)


def test_a_scoring_of_answers_for_a_model_that_gives_none_is_an_error(export):
    model, folder = export("tagging")
    with pytest.raises(ValueError, match="--scoring=korquad is for models that answer questions, "):
        scores_of_both(model, folder, "/none", scoring="korquad")


def test_an_encoder_has_no_task(export):
    model, folder = export("encoder")
    with pytest.raises(ValueError, match="has no task to score, expected a model of launch/fine"):
        scores_of_both(model, folder, "/none")
