# SPDX-License-Identifier: Apache-2.0
"""Tiny models as files, of which torch's numbers lie in tests/golden/exports.

No torch here. tests/golden/make_export_golden.py has transformers open the same files, and writes

    exports.json   EXPORT: the config.json, and checksums of the tensors and of the code, that torch
                   read; the class that opened them; what that saved again
    outputs.npz    nets/..., tasks/...: inputs; EXPORT/...: what the class made of them

and likewise mpnet.json and mpnet.npz of the exports with MPNet in their names, whose padding is
another piece, and modernbert.json and modernbert.npz.

A test exports a model anew, sees that its files are those that torch read, and compares what ours
computes with what torch did. What torch thus says of a file, it says of the file as it is today.
"""

import ast
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load_file, save_file

from edad_jax.export.card import ModelCard
from edad_jax.export.huggingface import MODELLING_FILE, save_model
from edad_jax.models import convert, init
from edad_jax.models.config import ExBertConfig, ModernConfig
from edad_jax.models.task import KINDS, Task, heads_between
from tests.tiny_models import GOLDEN, random_params, tiny_bert_config, tiny_exbert_config
from tests.tiny_tokenizers import write_mpnet

FOLDER = GOLDEN / "exports"
REMAKE = "where torch is installed: python -m tests.golden.make_export_golden"
DISTILBERT = {"type_vocab_size": 0, "has_pooler": False}
ALBERT = {"shares_layers": True, "embedding_size": 16, "hidden_act": "gelu_new"}
# As the pieces below have them: their padding piece is the first.
ROBERTA = {"family": "roberta", "position_offset": 1, "type_vocab_size": 1, "has_pooler": False}
ELECTRA = {"family": "electra", "embedding_size": 16, "has_pooler": False}
MODERN = {
    "family": "modernbert",
    "type_vocab_size": 0,
    "has_pooler": False,
    "layer_norm_eps": 1e-5,
    "modern": ModernConfig(2, global_layers=(0,), global_theta=160_000.0, local_theta=10_000.0),
}
MPNET = {"family": "mpnet", "position_offset": 2, "type_vocab_size": 0, "has_pooler": False}
MPNET |= {"relative_attention_num_buckets": 32}
CARD = ModelCard("A tiny model", "Made by a test.", {}, {}, {})
LABELS = ("O", "B-Drug", "I-Drug", "B-Gene")
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{n}" for n in range(63))]


class Export(NamedTuple):
    """A model to export."""

    config: ExBertConfig
    params: dict[str, Any]
    task: Task | None = None
    by_torch: bool = False  # transformers itself wrote the files


def _plain(**changes):
    """Returns an exBERT that is this BERT or one of its kin."""
    return ExBertConfig(tiny_bert_config(vocab_size=68, **changes), None, 0)


def _pretrained(config, *, without=()):
    params = random_params(config)
    return Export(config, {part: tree for part, tree in params.items() if part not in without})


def _tuned(config, kind, *, by_torch=False):
    """Returns a fine-tuned model."""
    params = random_params(config)
    labels = ("start", "end") if kind == "answering" else LABELS
    random = np.random.default_rng(1)
    parts = {part: params[part] for part in ("base", "extension") if part in params}
    for head, width in (("classifier", len(labels)), ("pooler", 24)):
        if head == "classifier" or head in heads_between(kind, config.base):
            kernel = random.standard_normal((24, width), np.float32)
            parts[head] = {"dense": {"kernel": kernel, "bias": kernel[0] + 1}}
            if head == "pooler" and config.base.modern:
                parts[head] = {"dense": {"kernel": kernel}, "norm": {"scale": kernel[0] + 1}}
    return Export(config, parts, Task(kind, labels), by_torch)


_NO_NSP = ("pooler", "nsp")
# Built when asked for: each asks flax for the shapes of its net.
EXPORTS: dict[str, Callable[[], Export]] = {
    "exbert": lambda: _pretrained(tiny_exbert_config()),
    "bert": lambda: _pretrained(tiny_exbert_config(blocks=False)),
    "bert, 4 heads": lambda: _pretrained(_plain(num_attention_heads=4, num_hidden_layers=3)),
    "bert without pooler": lambda: _pretrained(_plain(has_pooler=False)),
    "distilbert": lambda: _pretrained(_plain(**DISTILBERT)),
    "distilbert, 4 heads": lambda: _pretrained(
        _plain(num_attention_heads=4, num_hidden_layers=1, hidden_act="gelu_new", **DISTILBERT)
    ),
    "exbert on distilbert": lambda: _pretrained(tiny_exbert_config(**DISTILBERT)),
    "albert": lambda: _pretrained(_plain(**ALBERT), without=_NO_NSP),
    "albert, wide table": lambda: _pretrained(
        _plain(**(ALBERT | {"hidden_act": "gelu", "embedding_size": 24})), without=_NO_NSP
    ),
}
EXPORTS |= {
    "roberta": lambda: _pretrained(_plain(**ROBERTA)),
    "xlm-roberta": lambda: _pretrained(_plain(**(ROBERTA | {"family": "xlm-roberta"}))),
    "electra": lambda: _pretrained(_plain(**ELECTRA)),
    "electra, wide table": lambda: _pretrained(_plain(**(ELECTRA | {"embedding_size": 0}))),
    "exbert on roberta": lambda: _pretrained(
        tiny_exbert_config(type_vocab_size=1, has_pooler=False)
    ),
}
# In an order that no `global_attn_every_n_layers` gives.
_LOCAL_FIRST = ModernConfig(3, (1,), 10_000.0, 160_000.0, pooling="mean")
EXPORTS |= {
    "modernbert": lambda: _pretrained(_plain(**MODERN)),
    "modernbert, other layers": lambda: _pretrained(_plain(**(MODERN | {"modern": _LOCAL_FIRST}))),
}
EXPORTS |= {
    "mpnet": lambda: _pretrained(_plain(**MPNET)),
    "exbert on mpnet": lambda: _pretrained(
        tiny_exbert_config(**(MPNET | {"family": "", "position_offset": 0}))
    ),
}
NETS = tuple(EXPORTS)
_TASK_NETS = {
    "exbert": tiny_exbert_config,
    "bert": functools.partial(tiny_exbert_config, blocks=False),
    "distilbert": functools.partial(_plain, **DISTILBERT),
    "albert": functools.partial(_plain, **ALBERT),
    "roberta": functools.partial(_plain, **ROBERTA),
    "electra": functools.partial(_plain, **ELECTRA),
    "modernbert": functools.partial(_plain, **MODERN),
    "modernbert, mean": functools.partial(_plain, **(MODERN | {"modern": _LOCAL_FIRST})),
    "mpnet": functools.partial(_plain, **MPNET),
}
for _kind in KINDS:
    for _net, _config in _TASK_NETS.items():
        EXPORTS[f"{_net} for {_kind}"] = functools.partial(
            lambda config, kind: _tuned(config(), kind), _config, _kind
        )
    EXPORTS[f"torch's bert for {_kind}"] = functools.partial(
        lambda kind: _tuned(_plain(), kind, by_torch=True), _kind
    )


# Opened and then saved by transformers, in its own words.
SAVED_AGAIN = (
    "exbert",
    *(f"{net} for {kind}" for kind in KINDS for net in ("exbert", "bert", "torch's bert")),
)
INPUTS = ("ids_bt", "segments_bt", "mask_bt")


def inputs_of(name: str) -> str:
    """Returns where the inputs of an export lie: all fine-tuned ones read the same, as all nets."""
    return "nets" if name in NETS else "tasks"


def files_of(name: str) -> tuple[str, str]:
    """Returns the two files that hold what torch said of an export."""
    for family in ("mpnet", "modernbert"):
        if family in name:
            return f"{family}.json", f"{family}.npz"
    return "exports.json", "outputs.npz"


@functools.cache
def build(name: str) -> Export:
    """Returns one of EXPORTS; nobody may change its parameters."""
    return EXPORTS[name]()


def write(name: str, folder: Path) -> Export:
    """Writes folder/model as a run's last act does; what transformers itself writes it does not."""
    export = build(name)
    tokenizer = folder / "vocabulary"
    tokenizer.mkdir()
    if "mpnet" in name:
        write_mpnet(tokenizer, PIECES[5:])
    else:
        (tokenizer / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    save_model(
        folder / "model", export.params, export.config, tokenizer, card=CARD, task=export.task
    )
    return export


def torch_tensors(export: Export) -> dict[str, np.ndarray]:
    """Returns the parameters under torch's names."""
    classes = {}
    if export.task:
        classes = {
            "labels": len(export.task.labels),
            "classifier": KINDS[export.task.kind].classifier,
        }
    return convert.to_torch_names(export.params, export.config, **classes)


# What torch read, and what it made of it


def tensors_checksum(tensors: Mapping[str, np.ndarray]) -> str:
    """Returns the checksum of names, shapes and bits, in whatever order a file has them."""
    return init.checksum(dict(sorted(tensors.items())))[:16]


def code_checksum(code: str) -> str:
    """Returns the checksum of what Python code does: comments and docstrings may change."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:16]


def describe(folder: Path, params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what torch reads in a model's folder, and what was written there."""
    files = {
        "parameters": init.checksum(params)[:16],
        "model.safetensors": tensors_checksum(load_file(folder / "model.safetensors")),
        "config.json": json.loads((folder / "config.json").read_text(encoding="utf-8")),
    }
    code = folder / MODELLING_FILE
    return files | (
        {MODELLING_FILE: code_checksum(code.read_text(encoding="utf-8"))} if code.is_file() else {}
    )


def check_read(got: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raises AssertionError where files are others than torch read; says first what came first."""
    for part, meaning in {
        "parameters": "a test's random parameters are others, which says nothing of the export",
        "model.safetensors": "the same parameters have other names, shapes or orientations in it",
        "config.json": "it says something else",
        MODELLING_FILE: "its code is another",
    }.items():
        one, other = got.get(part), expected.get(part)
        if one != other and part == "config.json":
            keys = [key for key in sorted(one | other) if one.get(key) != other.get(key)]
            meaning = ", ".join(f"{key}: {other.get(key)} is now {one.get(key)}" for key in keys)
        assert one == other, (
            f"{part}: not what torch read ({meaning}). Was that change meant? Then make "
            f"{FOLDER.name}/ anew, {REMAKE}"
        )


@functools.cache
def load_exports() -> dict[str, Any]:
    """Returns exports.json and those of single families."""
    files = sorted({files_of(name)[0] for name in EXPORTS})
    return {
        name: entry
        for file in files
        for name, entry in json.loads((FOLDER / file).read_text(encoding="utf-8")).items()
    }


@functools.cache
def load_outputs(name: str) -> dict[str, np.ndarray]:
    """Returns inputs, and what torch made of them; of "poolers", what bare encoders did."""
    starts = (f"{name}/", f"{inputs_of(name)}/")
    with np.load(FOLDER / files_of(name)[1], allow_pickle=False) as arrays:
        return {key.split("/")[1]: arrays[key] for key in arrays if key.startswith(starts)}


class TorchRead(NamedTuple):
    """A model's folder, once it is seen to be the one that torch read."""

    folder: Path
    config: ExBertConfig
    params: dict[str, Any]
    task: Task | None
    outputs: dict[str, np.ndarray]  # torch's
    opened_by: str  # the name of the class


def write_and_check(name: str, folder: Path) -> TorchRead:
    """Returns a model written anew into `folder`, and what torch made of it."""
    export = write(name, folder)
    expected = load_exports()[name]
    check_read(describe(folder / "model", export.params), expected["read"])
    return TorchRead(folder / "model", *export[:3], load_outputs(name), expected["class"])


def write_as_torch_did(name: str, folder: Path) -> TorchRead:
    """Returns the folder that transformers' save_pretrained left: its words, and our tensors.

    Torch wrote our tensors bit for bit, or the golden file says otherwise.
    """
    export, expected = build(name), load_exports()[name]
    tensors, saved = torch_tensors(export), expected["saved again"]
    got = {
        "parameters": init.checksum(export.params)[:16],
        "model.safetensors": tensors_checksum(tensors),
        "config.json": saved["config.json"],
    }
    check_read(got, saved | {"parameters": expected["read"]["parameters"]})
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(json.dumps(saved["config.json"]))
    save_file(tensors, folder / "model" / "model.safetensors", metadata={"format": "pt"})
    return TorchRead(folder / "model", *export[:3], load_outputs(name), expected["class"])
