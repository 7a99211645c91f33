# SPDX-License-Identifier: Apache-2.0
"""The model card: the README.md beside a model's weights."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from edad_jax.models.config import ExBertConfig
from edad_jax.models.task import KINDS, Kind, Task

_PRETRAINED = Kind("ForMaskedLM", "fill-mask", ())


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """What the README.md beside the weights says; values are printed as they are given."""

    title: str
    summary: str  # a paragraph: what the model is and how it came about
    data: Mapping[str, Any]  # name -> what it is: corpus, vocabulary, teacher
    settings: Mapping[str, Any]  # the configuration that made it
    measured: Mapping[str, Any]  # figures of this very model
    license: str | None = None  # of the weights; it depends on data and teacher
    language: str | None = None  # a code such as "en"


def readme(card: ModelCard, config: ExBertConfig, task: Task | None) -> str:
    """Returns the text of README.md: front matter for the hub, an example, and the tables.

    Args:
      card: what it says.
      config: the model's sizes.
      task: what it was fine-tuned for, if it was.
    """
    names = KINDS[task.kind] if task else _PRETRAINED
    auto_class = f"AutoModel{names.architecture}"
    front = {
        "library_name": "transformers",
        "pipeline_tag": names.pipeline,
        "tags": ["bert", "exbert", "distillation", "domain-adaptation", "edad-jax"],
        "license": card.license,
        "language": card.language,
    }
    code = ", trust_remote_code=True" if config.extension else ""
    lines = ["---"]
    lines += [f"{key}: {json.dumps(value)}" for key, value in front.items() if value is not None]
    lines += ["---", "", f"# {card.title}", "", card.summary, ""]
    lines += [
        "```python",
        f"from transformers import {auto_class}, AutoTokenizer",
        "",
        f'tokenizer = AutoTokenizer.from_pretrained("DIRECTORY"{code})',
        f'model = {auto_class}.from_pretrained("DIRECTORY"{code})',
        "```",
    ]
    sizes = dataclasses.asdict(config)
    for title, table in (
        ("Measured", card.measured),
        ("Data", card.data),
        ("Settings", card.settings),
        ("Sizes", sizes),
    ):
        lines += ["", f"## {title}", "", "| | |", "|---|---|"]
        lines += [f"| {_cell(name)} | {_cell(value)} |" for name, value in _rows(table)]
    return "\n".join(lines) + "\n"


def _rows(table, prefix=""):
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _rows(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _cell(value):
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
