# SPDX-License-Identifier: Apache-2.0
"""The floors of the house (design, section 3): a file imports only from lower floors."""

import ast
import graphlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "edad_jax"

FLOORS = {
    "types": 0,
    "models.dropout": 0,
    "models.product": 0,
    "models.execution": 0,
    "models.attention": 0,
    "models.bert_config": 0,
    "models.bert": 1,
    "models.heads": 1,
    "models.exbert": 2,
    "models.names": 0,
    "models.checkpoint_files": 0,
    "models.config_json": 2,
    "models.convert": 3,
    "data.hub": 1,
    "data.jats": 1,
    "data.reading": 1,
    "data.sentences": 1,
    "data.pieces": 1,
    "data.masking": 1,
    "data.rows": 1,
    "data.files": 2,
    "data.corpus": 3,
    "data.tokenizer": 2,
    "data.vocabulary": 3,
    "data.segments": 2,
    "data.docstrings": 2,
    "data.batches": 2,
    "data.workers": 3,
    "data.counts": 3,
    "data.shards": 4,
    "data.pairs": 5,
    "losses": 1,
    "schedules": 1,
    "savings": 1,
    "parallel": 1,
    "checkpoint": 1,
    "metrics": 1,
    "allocator": 1,
    "command": 2,
    "progress": 1,
    "workdir": 1,
    "report": 1,
    "batch_size": 2,
    "markdown": 0,
    "kept_table": 2,
    "machine": 0,
    "figures": 2,
    "comparison": 3,
    "tasks.scores": 1,
    "optimizer": 2,
    "state": 3,
    "nets": 3,
    "step": 4,
    "narrowing": 3,
    "inheritance": 4,
    "factorised": 3,
    "distill": 5,
    "triple": 5,
    "minilm": 5,
    "methods": 6,
    "options": 6,
    "evaluate": 4,
    "export.task": 1,
    "folder": 0,
    "export.windows": 0,
    "export.stream": 0,
    "export.spans": 0,
    "export.session": 1,
    "export.answers": 1,
    "export.reader": 2,
    "export.runtime": 3,
    "export.graph": 0,
    "export.onnx": 3,
    "export.formats": 5,
    "export.check": 6,
    "export.task_scores": 7,
    "export.timing": 4,
    "turns": 2,
    "benchmark_edge": 3,
    "export.pruning": 6,
    "export.calibration": 6,
    "export.hub": 0,
    "export.random_models": 4,
    "compress": 8,
    "serving_door": 0,
    "serving": 4,
    "export.card": 3,
    "export.huggingface": 4,
    "export.modeling_exbert": 4,
    "build_nets": 5,
    "build": 7,
    "flops": 3,
    "benchmark_data": 3,
    "benchmark_report": 3,
    "benchmark_step": 8,
    "benchmark_saving": 9,
    "benchmark_profile": 9,
    "benchmark_job": 10,
    "benchmark": 11,
    "prepare": 8,
    "result": 9,
    "train": 10,
    "tasks.rows": 1,
    "tasks.splits": 2,
    "tasks.tag_schemes": 0,
    "tasks.records": 2,
    "tasks.tagged": 3,
    "tasks.labelled": 3,
    "tasks.tuning": 3,
    "tasks.answer_scores": 1,
    "tasks.questions": 3,
    "tasks.question_rows": 4,
    "tasks.answering": 5,
    "tasks.words": 3,
    "tasks.tagging": 4,
    "tasks.classification": 4,
    "tasks.prediction": 5,
    "tasks.outcome": 5,
    "tasks.setup": 8,
    "finetune": 9,
    "published": 0,
    "cells": 2,
    "tables": 3,
    "kcbert": 8,
    "reproduce": 10,
    "reproduce_kcbert": 10,
    "reproduce_pi": 10,
    "reproduce_ablation": 10,
}

# Neighbours: the first may import the second though they live on one floor.
NEIGHBOURS = {
    ("models.heads", "models.bert"),  # the heads' layers are initialised as the encoder's are
    ("report", "metrics"),  # draws what that wrote
}

# Torch: only to read old weights where it happens to be installed, and in the file that is copied
# beside a student for those who use it from torch. Nothing of ours runs it otherwise.
LAZY_TORCH = {"models.checkpoint_files", "export.timing"}
TORCH_TEMPLATES = {"export.modeling_exbert"}


def find_modules() -> dict[str, ast.Module]:
    """Returns the syntax tree of every file of the package but the __init__ files."""
    paths = (path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text())
        for path in paths
    }


MODULES = find_modules()


def imported_names(tree: ast.AST) -> set[str]:
    """Returns the dotted names that a tree imports, at any depth."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: got a relative import, expected edad_jax."
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_rooms(tree: ast.AST) -> set[str]:
    """Returns the modules of edad_jax that a tree imports, as FLOORS names them."""
    rooms = set()
    for name in imported_names(tree):
        parts = name.split(".")
        if parts[0] == "edad_jax":
            candidates = [".".join(parts[1:end]) for end in range(len(parts), 1, -1)]
            rooms.add(next((room for room in candidates if room in FLOORS), name))
    return rooms


def find_upward_imports(module: str, rooms: set[str]) -> list[str]:
    """Returns a sentence for every import that does not go down."""
    return [
        f"{module} (floor {FLOORS[module]}) imports {room} (floor {FLOORS.get(room)})"
        for room in sorted(rooms)
        if (module, room) not in NEIGHBOURS and not FLOORS.get(room, 99) < FLOORS[module]
    ]


def imports_of(tree: ast.AST, package: str) -> bool:
    return any(name.split(".")[0] == package for name in imported_names(tree))


@pytest.mark.parametrize("module", sorted(MODULES))
def test_module_imports_only_from_lower_floors(module):
    assert module in FLOORS, f"{module}: got no floor, expected one in FLOORS"
    assert not find_upward_imports(module, imported_rooms(MODULES[module]))


def test_an_upward_import_is_found():
    tree = ast.parse("def f():\n    from edad_jax.train import main\n")
    assert imported_rooms(tree) & {"train", "edad_jax.train.main"}
    assert find_upward_imports("losses", {"train"}) == ["losses (floor 1) imports train (floor 10)"]
    assert find_upward_imports("losses", {"schedules"})


def test_no_import_goes_in_a_circle():
    graph = {module: imported_rooms(tree) for module, tree in MODULES.items()}
    tuple(graphlib.TopologicalSorter(graph).static_order())


def test_package_init_files_import_nothing():
    for path in PACKAGE.rglob("__init__.py"):
        assert not imported_names(ast.parse(path.read_text())), path


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_pickle_no_torch_no_tensorflow(module):
    tree = MODULES[module]
    for package in ("pickle", "cloudpickle", "dill", "joblib", "shelve", "tensorflow"):
        assert not imports_of(tree, package), f"{module} imports {package}"
    if module in TORCH_TEMPLATES:
        return
    at_import = ast.Module([n for n in tree.body if not isinstance(n, ast.FunctionDef)], [])
    assert not imports_of(at_import, "torch"), f"{module} imports torch when it is imported"
    assert module in LAZY_TORCH or not imports_of(tree, "torch"), f"{module} imports torch"


def test_only_checkpoint_imports_orbax():
    assert [m for m, tree in MODULES.items() if imports_of(tree, "orbax")] == ["checkpoint"]


def test_types_needs_no_jax():
    body = [n for n in MODULES["types"].body if isinstance(n, ast.Import | ast.ImportFrom)]
    assert not imports_of(ast.Module(body, []), "jax")
