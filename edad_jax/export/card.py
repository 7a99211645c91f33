# SPDX-License-Identifier: Apache-2.0
"""The model card: the README.md beside a model's weights, as the hub expects it.

A card names no path of the machine that wrote it: of a file or folder its last name alone.
"""

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.repocard import metadata_load

from edad_jax.models.config import ExBertConfig
from edad_jax.models.config_json import family_of
from edad_jax.models.task import KINDS, Kind, Task

_PRETRAINED = Kind("ForMaskedLM", "fill-mask", ())
_ENCODER = Kind("Model", "feature-extraction", ())
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_LIBRARIES = {
    "hf": "transformers",
    "stablehlo": "jax",
    "sentence-transformers": "sentence-transformers",
    "transformers.js": "transformers.js",
}
_TAGS = ("distillation", "domain-adaptation", "edad-jax")
VERSIONS = "4.46 to 4.57 and 5"  # of transformers, whose first and newest were tried


@dataclasses.dataclass(frozen=True)
class Score:
    """A figure of this very model, for the hub's index."""

    metric: str  # "f1"
    value: float
    data: str  # the name of the data set
    split: str


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """What the README.md beside the weights says; values are printed as they are given.

    `license`, `language`, `base_model` are for the hub: see `origin`.
    """

    title: str
    summary: str  # a paragraph: what the model is and how it came about
    data: Mapping[str, Any]  # name -> what it is: corpus, vocabulary, teacher
    settings: Mapping[str, Any]  # the configuration that made it
    measured: Mapping[str, Any]  # figures of this very model
    license: str | None = None  # of the weights; it depends on data and teacher
    language: str | None = None  # a code such as "en"
    base_model: str | None = None  # a hub id
    datasets: Sequence[str] = ()  # hub ids
    scores: Sequence[Score] = ()
    example: tuple[Any, Any] | None = None  # an input, and what this very model says of it
    use: str = ""  # what it is for, and where it fails
    made: Sequence[str] = ()  # the steps, five at most


@dataclasses.dataclass(frozen=True)
class Verified:
    """What the comparison of an export with the trained model found."""

    sentence: str
    agreement: float | None = None  # of int8 with float32, 0 to 1
    kept: tuple[str, ...] = ()  # parts that have 32 bits in it
    example: tuple[Any, dict[str, Any]] | None = None  # an input, and what the export says of it


def readme(card: ModelCard, config: ExBertConfig, task: Task | None) -> str:
    """Returns the text of README.md: front matter for the hub, an example, and the tables.

    Args:
      card: what it says.
      config: the model's sizes.
      task: what it was fine-tuned for, if it was.
    """
    names = KINDS[task.kind] if task else _PRETRAINED
    front = {
        "library_name": "transformers",
        "pipeline_tag": names.pipeline,
        "tags": [family_of(config.base, extended=config.extension is not None), *_TAGS],
        "license": card.license,
        "language": card.language,
        "base_model": card.base_model,
        "datasets": list(card.datasets) or None,
        "model-index": _index(card, names.pipeline) if card.scores else None,
    }
    lines = [f"# {card.title}", "", card.summary, "", *_loading(config, names)]
    lines += _example(card.example)
    if card.use:
        lines += ["", "## Use and limits", "", card.use]
    if card.made:
        lines += ["", "## How it was made", ""]
        lines += [f"{number}. {step}" for number, step in enumerate(card.made, start=1)]
    for title, table in (("Measured", card.measured), ("Data", card.data)):
        lines += ["", f"## {title}", "", *_table(table)]
    for title, table in (("Settings", card.settings), ("Sizes", dataclasses.asdict(config))):
        lines += ["", f"<details><summary>{title}</summary>", "", *_table(table), "", "</details>"]
    return _with_front(front, lines)


def export_readme(
    source: str,
    config: ExBertConfig,
    task: Task | None,
    *,
    format_name: str,
    mark: str,
    found: Verified | None = None,
    license: str | None = None,
    language: str | None = None,
) -> str:
    """Returns the README.md of an exported model: what that of the trained one says, and more.

    Args:
      source: folder or hub id of the trained model.
      config: its sizes.
      task: what it was fine-tuned for, if it was.
      format_name: of the export.
      mark: the words that tell an export from a trained model.
      found: what the comparison found, if it was compared.
      license: of the weights; None: the trained model's.
      language: likewise.
    """
    names = KINDS[task.kind] if task else _ENCODER
    before = read_front(source)
    front = {
        "library_name": _LIBRARIES.get(format_name, "onnxruntime"),
        "pipeline_tag": names.pipeline,
        "tags": [family_of(config.base, extended=config.extension is not None), *_TAGS],
    } | {
        name: before[name]
        for name in ("license", "language", "base_model", "datasets", "model-index", "tags")
        if name in before
    }
    front |= {"license": license} if license else {}
    front |= {"language": language} if language else {}
    lines = [f"# {public(source)}, {format_name}", "", f"{public(source)}, {mark}.", ""]
    code = ", trust_remote_code=True" if config.extension else ""
    if format_name == "hf":
        lines += _loading(config, names)
    elif format_name == "sentence-transformers":
        lines += [
            "```python",
            "from sentence_transformers import SentenceTransformer",
            "",
            f'vectors = SentenceTransformer("DIRECTORY"{code}).encode(["A text."])',
            "```",
        ]
    elif format_name == "transformers.js":
        lines += [
            "```js",
            'import { pipeline } from "@huggingface/transformers";',
            "",
            f'const model = await pipeline("{names.pipeline}", "DIRECTORY", {{ dtype: "q8" }});',
            'console.log(await model("A text."));',
            "```",
        ]
    elif format_name.startswith("onnx"):
        lines += [
            "```python",
            "from edad_jax.runtime.models import open_model",
            "",
            'print(list(open_model("DIRECTORY")(["A text."])))',
            "```",
            "",
            "The runtime needs numpy, onnxruntime and tokenizers alone; the file is read by "
            "onnxruntime 1.20 and newer, anywhere.",
        ]
    lines += _example(found.example if found else None)
    lines += ["", "## Compared with the trained model", ""]
    lines += [found.sentence[:1].upper() + found.sentence[1:] + "." if found else "Not compared."]
    body = _sections(source) if "edad-jax" in (before.get("tags") or ()) else ""
    return _with_front(front, lines) + body


def origin(checkpoint: str) -> dict[str, str]:
    """Returns what a teacher's own card or config says for the cards of what is made from it.

    They are "license" and "language", where they are told, and "base_model", a hub id.

    Args:
      checkpoint: folder or hub id.
    """
    front = read_front(checkpoint)
    told = {name: front[name] for name in ("license", "language") if front.get(name)}
    if is_hub_id(checkpoint):
        return told | {"base_model": checkpoint}
    cached = re.search(r"models--([\w.-]+)", str(Path(checkpoint).absolute()))
    base = front.get("base_model") or (cached[1].replace("--", "/") if cached else None)
    base = base[0] if isinstance(base, list) and base else base
    return told | ({"base_model": base} if base else {})


def is_hub_id(name: str) -> bool:
    """Returns whether a name may be one of the hub, and is none of a folder or file here."""
    return bool(_HUB_ID.fullmatch(name)) and not os.path.exists(os.path.expanduser(name))


def read_front(folder: str) -> dict[str, Any]:
    """Returns the front matter of a folder's README.md, and config.json's license; {} for none."""
    path = Path(folder).expanduser()
    values = {}
    try:
        config = json.loads((path / "config.json").read_bytes())
        values |= {"license": config["license"]} if config.get("license") else {}
    except (OSError, ValueError, AttributeError, KeyError):
        pass  # no config.json of ours
    try:
        values |= metadata_load(path / "README.md") or {}
    except Exception:  # noqa: S110  yaml's errors, and there are cards of all kinds: they say nothing
        pass
    return values


def public(value: Any) -> Any:
    """Returns a value less the folders of a path; what is inside it likewise."""
    if isinstance(value, Mapping):
        return {name: public(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(public(each) for each in value)
    if isinstance(value, Path) or (isinstance(value, str) and ("/" in value or "\\" in value)):
        return ",".join(_last_name(part) for part in str(value).split(","))
    return value


def _last_name(path):
    if "://" in path or not re.search(r"[/\\]", path) or re.search(r"\s", path.strip()):
        return path  # an address, or words
    if is_hub_id(path):
        return path  # USER/NAME
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def _index(card, pipeline):
    results = [
        {
            "task": {"type": pipeline},
            "dataset": {"name": score.data, "type": score.data, "split": score.split},
            "metrics": [{"type": score.metric, "value": round(score.value, 6)}],
        }
        for score in card.scores
    ]
    return [{"name": card.title, "results": results}]


def _loading(config, names):
    auto_class = f"AutoModel{names.architecture.removeprefix('Model')}"
    code = ", trust_remote_code=True" if config.extension else ""
    return [
        "```python",
        f"from transformers import {auto_class}, AutoTokenizer",
        "",
        f'tokenizer = AutoTokenizer.from_pretrained("DIRECTORY"{code})',
        f'model = {auto_class}.from_pretrained("DIRECTORY"{code})',
        "```",
        "",
        f"Loads in transformers {VERSIONS}.",
    ]


def _example(example):
    if example is None:
        return []
    given, said = (json.dumps(each, ensure_ascii=False) for each in example)
    return ["", "## What it says", "", "```", given, said, "```"]


def _sections(source):
    """Returns the sections of a trained model's card, less what is of its own format."""
    text = (Path(source).expanduser() / "README.md").read_text("utf-8", "replace")
    start = re.search(r"^## (?!What it says|Compared with)", text, re.MULTILINE)
    return "\n" + text[start.start() :] if start else ""


def _with_front(front, lines):
    head = [f"{key}: {json.dumps(value)}" for key, value in front.items() if value is not None]
    return "\n".join(["---", *head, "---", "", *lines]) + "\n"


def _table(table):
    rows = [f"| {_cell(name)} | {_cell(value)} |" for name, value in _rows(public(table))]
    return ["| | |", "|---|---|", *rows]


def _rows(table, prefix=""):
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _rows(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _cell(value):
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
