# SPDX-License-Identifier: Apache-2.0
"""What an exported model scores on its task, beside the trained one."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edad_jax.export import formats
from edad_jax.export.check import FlaxSession
from edad_jax.models.hf_files import read_model_json
from edad_jax.runtime import models
from edad_jax.tasks.answer_scores import answer_scores
from edad_jax.tasks.classification import Classification
from edad_jax.tasks.data.labelled import LabelledText, read_labelled
from edad_jax.tasks.data.questions import Question, read_questions
from edad_jax.tasks.data.splits import choose
from edad_jax.tasks.data.tagged import TaggedSentence, read_tagged
from edad_jax.tasks.scores import classification_scores, entity_scores
from edad_jax.tasks.tagging import Tagging


def scores_of_both(
    model: formats.Model,
    folder: str | Path,
    data: str,
    *,
    rows: int = 0,
    text_key: str = "",
    label_key: str = "",
    scoring: str = "squad",
) -> dict[str, tuple[float, float]]:
    """Returns score -> (by Flax, by the exported ONNX model), on the test split.

    Both read the same windows, so that they differ by the net alone. The data are split as in the
    run that trained the model, where that is at hand.

    Args:
      model: the trained one.
      folder: where the exported one is.
      data: as launch/finetune.py takes it for the model's task.
      rows: how many examples at most, drawn at random; 0: all.
      text_key: column of the text of labelled texts; "": the obvious one.
      label_key: column of their label, likewise.
      scoring: of answers, one of `answer_scores.SCORINGS`.

    Raises:
      ValueError: a model without a task, data that cannot be read, or a scoring of answers for a
        model that gives none.
    """
    splits = check_data(model, data, text_key=text_key, label_key=label_key, scoring=scoring)
    task = TASKS[model.task.kind]
    way = {"scoring": scoring} if task.has_scorings else {}
    examples = choose(scored_split(splits), rows, np.random.default_rng(0))
    open_model = open_answerer if model.task.kind == "answering" else models.open_model
    exported, trained = open_model(folder), open_model(folder)
    trained.session = FlaxSession(model)
    before, after = (task.score(each, examples, **way) for each in (trained, exported))
    return {name: (before[name], after[name]) for name in before}


def check_data(
    model: formats.Model, data: str, *, text_key: str = "", label_key: str = "", scoring: str
) -> dict[str, list]:
    """Returns the splits of the data that a model is to be scored on; arguments as above.

    Raises:
      ValueError: as `scores_of_both`, or the split to score has no label that the model knows.
    """
    if model.task is None or model.task.activation:
        raise ValueError(
            f"--model={model.source} has no task to score, expected a model of launch/finetune.py; "
            "leave --data out"
        )
    task = TASKS[model.task.kind]
    if scoring != "squad" and not task.has_scorings:
        raise ValueError(
            f"--scoring={scoring} is for models that answer questions, and --model={model.source} "
            f"is for {model.task.kind}; leave it out"
        )
    columns = {"text_key": text_key, "label_key": label_key} if task.has_columns else {}
    splits, _ = task.read(data, **columns, **reading_of_run(model.source))
    if task.labels:
        known = {label.removeprefix("B-") for label in model.task.labels}
        given = {label for each in scored_split(splits) for label in task.labels(each)}
        if not known & given:
            raise ValueError(
                f"--data={data}: got the labels {', '.join(sorted(given)[:8]) or 'none'} to score, "
                f"expected some of the model's ({', '.join(model.task.labels[:8])}); give data of "
                "its task"
            )
    return splits


def reading_of_run(model: str | Path) -> dict[str, Any]:
    """Returns how the run that trained a model read its data: seed of the split, encoding, ....

    With another seed, examples of the training split would be among those that are scored.

    Args:
      model: WORKDIR/model of launch/finetune.py; of any other folder or hub id nothing is known.
    """
    config = config_of_run(model)
    if "split_seed" not in config:
        return {}
    names = {"seed": "split_seed"}
    names |= {name: name for name in ("encoding", "dataset_config", "allow_skipped_test")}
    if config.get("task") == "tagging":  # for others launch/export.py has options
        names |= {"word_key": "text_key", "tag_key": "label_key"}
    return {ours: config[theirs] for ours, theirs in names.items() if theirs in config}


def config_of_run(model: str | Path) -> dict[str, Any]:
    """Returns the settings of the run that left a model in its workdir; {} of any other model."""
    path = Path(model).expanduser().absolute().parent / "config.json"
    return read_model_json(path) if path.is_file() else {}


def open_answerer(
    folder: str | Path,
    *,
    threads: int = 0,
    max_length: int = 384,
    overlap: int = 128,
    **search: Any,
) -> models.QuestionAnswerer:
    """Returns an exported model with the windows of configs/squad.py, or others.

    Args:
      folder: where it is.
      threads: of onnxruntime; 0: as many as there are cores.
      max_length: pieces of a window; no more than the model has positions.
      overlap: of windows; no more than a third of one.
      search: more options of the QuestionAnswerer.
    """
    longest = min(
        max_length, read_model_json(Path(folder) / "config.json")["max_position_embeddings"]
    )
    overlap = min(overlap, longest // 3)
    return models.QuestionAnswerer(
        folder, threads=threads, max_length=longest, overlap=overlap, **search
    )


def scored_split(splits: Mapping[str, Sequence[Any]]) -> Sequence[Any]:
    """Returns the split that a model is judged by: the test split, else the validation one."""
    return splits["test"] if "test" in splits else splits["validation"]


def tagger_scores(tagger: models.Tagger, sentences: Sequence[TaggedSentence]) -> dict[str, float]:
    """Returns entity F1 (micro, as seqeval counts it)."""
    predicted = tagger.tag_words([sentence.words for sentence in sentences])
    return {"entity F1": entity_scores([each.tags for each in sentences], predicted)["f1"]}


def classifier_scores(
    classifier: models.Classifier, texts: Sequence[LabelledText]
) -> dict[str, float]:
    """Returns accuracy and macro F1."""
    predicted = [each.label for each in classifier(text.text for text in texts)]
    scores = classification_scores([each.label for each in texts], predicted, classifier.labels)
    return {"accuracy": scores["accuracy"], "macro F1": scores["macro_f1"]}


def answerer_scores(
    answerer: models.QuestionAnswerer, questions: Sequence[Question], *, scoring: str
) -> dict[str, float]:
    """Returns exact match and F1, as SQuAD 1.1 or KorQuAD 1.0 counts them."""
    found = answerer((each.question, each.context) for each in questions)
    best = [answers[0].text if answers else "" for answers in found]
    scores = answer_scores(best, [each.gold_texts for each in questions], scoring)
    return {"exact match": scores["exact_match"], "F1": scores["f1"]}


class TaskData(NamedTuple):
    """How the data of a kind of model are read, and how it is scored."""

    read: Callable[..., tuple]
    score: Callable[[Any, Sequence], dict[str, float]]
    has_columns: bool = False  # whether its data may have columns of any name
    has_scorings: bool = False  # whether there is more than one way to count
    labels: Callable[[Any], list[str]] | None = None  # of an example


TASKS = {
    "tagging": TaskData(read_tagged, tagger_scores, labels=Tagging().labels_of),
    "classification": TaskData(
        read_labelled, classifier_scores, has_columns=True, labels=Classification().labels_of
    ),
    "answering": TaskData(read_questions, answerer_scores, has_scorings=True),
}


def read_texts(source: str, rows: int, *, seed: int = 0) -> list[str]:
    """Returns some texts of a .txt file (one on each line), or of tagged data's training split.

    Raises:
      ValueError: nothing there, or the data cannot be read.
    """
    path = Path(source).expanduser()
    if path.suffix == ".txt":
        if not path.is_file():
            raise ValueError(f"{path} is no file; expected texts, one on each line")
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        texts = [line for line in lines if line.strip()]
    else:
        texts = [" ".join(sentence.words) for sentence in read_tagged(source)[0]["train"]]
    return choose(texts, rows, np.random.default_rng(seed))
