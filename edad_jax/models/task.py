# SPDX-License-Identifier: Apache-2.0
"""What a fine-tuned model is for, as config.json says it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from edad_jax.models.config import BertConfig


class Task(NamedTuple):
    """A kind of task and the names of its classes."""

    kind: str  # a key of KINDS
    labels: tuple[str, ...]  # by class number
    activation: str = ""  # what makes a score of one output, a key of ACTIVATIONS; "": of classes


class Kind(NamedTuple):
    """How Hugging Face calls a kind of model."""

    architecture: str  # the end of its class's name
    pipeline: str  # the model card's pipeline_tag
    heads: tuple[str, ...]  # what sits between encoder and classifier: see `heads_between`
    classifier: str = "classifier"  # what torch calls the classifier


KINDS = {
    "tagging": Kind("ForTokenClassification", "token-classification", ()),
    "classification": Kind("ForSequenceClassification", "text-classification", ("pooler",)),
    # Two classes for each piece: how well an answer starts there, and how well it ends there.
    "answering": Kind("ForQuestionAnswering", "question-answering", (), "qa_outputs"),
}

# What a model with one output gives -> its name in torch, as sentence-transformers writes it.
ACTIVATIONS = {
    "identity": "torch.nn.modules.linear.Identity",
    "sigmoid": "torch.nn.modules.activation.Sigmoid",
}
_BY_PROBLEM = {"regression": "identity", "multi_label_classification": "sigmoid"}


def heads_between(kind: str, base: BertConfig) -> tuple[str, ...]:
    """Returns what sits between an encoder and the classifier of a kind of task.

    ModernBERTs have their head in front of every classifier.
    """
    return ("pooler",) if base.modern else KINDS[kind].heads


def write_task(task: Task) -> dict[str, Any]:
    """Returns what config.json says of the classes.

    Raises:
      ValueError: another kind of task; no class, or two of one name.
    """
    if task.kind not in KINDS:
        raise ValueError(f"got a task of kind {task.kind!r}, expected {' or '.join(KINDS)}")
    if not task.labels or len(set(task.labels)) < len(task.labels):
        raise ValueError(f"got labels {list(task.labels)}, expected at least one, each once")
    values: dict[str, Any] = {
        "id2label": {str(number): label for number, label in enumerate(task.labels)},
        "label2id": {label: number for number, label in enumerate(task.labels)},
    }
    if task.activation:
        values["sentence_transformers"] = {"activation_fn": ACTIVATIONS[task.activation]}
    if task.activation == "identity":
        values["problem_type"] = "regression"  # transformers would take the sigmoid
    return values


def read_task(config_json: Mapping[str, Any], classes: int) -> Task:
    """Returns the task of a fine-tuned BERT or exBERT.

    A classifier with one output (cross-encoders and regressors have) gives a score: the output
    itself or its sigmoid, as problem_type ("regression": itself; "multi_label_classification":
    sigmoid) or sentence-transformers' activation function say, or, where neither is there, its
    sigmoid, as transformers' pipeline and sentence-transformers both have it.

    Args:
      config_json: its config.json. Without id2label the labels are LABEL_0, LABEL_1 and so on,
        as in transformers.
      classes: rows of its classifier.

    Raises:
      ValueError: not a fine-tuned model, or one whose classes do not exclude each other; the
        labels are not one for each class; what one output means cannot be known.
    """
    architectures = [str(each) for each in config_json.get("architectures") or ()]
    kinds = [
        kind
        for kind, names in KINDS.items()
        if any(architecture.endswith(names.architecture) for architecture in architectures)
    ]
    if len(kinds) != 1:
        raise ValueError(
            f"config.json says architectures={architectures}, expected one that ends in "
            f"{' or '.join(names.architecture for names in KINDS.values())}: "
            "pass a fine-tuned model"
        )
    problem, activation = config_json.get("problem_type"), ""
    if kinds[0] == "classification" and classes == 1:
        activation = _activation(config_json)
    elif problem not in (None, "single_label_classification"):
        raise ValueError(
            f"config.json says problem_type={problem!r}, expected 'single_label_classification': "
            "pass a model that gives each text or word one of its classes"
        )
    default = {number: f"LABEL_{number}" for number in range(classes)}
    named = config_json.get("id2label") or default
    if isinstance(named, list):  # as some programs write it: in the order of the numbers
        named = dict(enumerate(named))
    try:
        labels = {int(number): str(label) for number, label in named.items()}
    except (AttributeError, ValueError) as error:
        raise ValueError(
            f"config.json says id2label={named!r}, expected the name of each class by its number, "
            'such as {"0": "negative", "1": "positive"}: correct id2label'
        ) from error
    numbers = list(range(classes))
    if not numbers or sorted(labels) != numbers or len(set(labels.values())) < classes:
        raise ValueError(
            f"config.json says id2label={labels}, the classifier has {classes} classes; expected "
            "a name of its own for each of them, from number 0 on: correct id2label"
        )
    return Task(kinds[0], tuple(labels[number] for number in numbers), activation)


def _activation(config_json):
    """Returns what makes a score of a model's one output, a key of ACTIVATIONS."""
    problem = config_json.get("problem_type")
    if problem not in (None, *_BY_PROBLEM):
        raise ValueError(
            f"the model has one output and config.json says problem_type={problem!r}: of one class "
            "it would say the same of every text. Pass a model with two classes or more, or say "
            f"{' or '.join(map(repr, _BY_PROBLEM))} if the output is a score"
        )
    said = (config_json.get("sentence_transformers") or {}).get("activation_fn")
    said = said or config_json.get("sbert_ce_default_activation_function")
    known = {function.rpartition(".")[2]: name for name, function in ACTIVATIONS.items()}
    by_function = known.get(str(said).rpartition(".")[2])
    if said and (by_function is None or not str(said).startswith("torch.nn.")):
        raise ValueError(
            f"the model has one output and config.json says the activation function {said!r}, "
            f"expected one of {', '.join(ACTIVATIONS.values())}; others are not known here"
        )
    by_problem = _BY_PROBLEM.get(problem)
    if by_function and by_problem and by_function != by_problem:
        raise ValueError(
            f"the model has one output, and config.json says both problem_type={problem!r} "
            f"({by_problem}) and the activation function {said!r}: take out the one that is wrong"
        )
    return by_problem or by_function or "sigmoid"
