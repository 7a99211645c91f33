# SPDX-License-Identifier: Apache-2.0
"""The floors of the house: which package may import which, and what nobody may import."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "edad_jax"

# Entry of the root -> the others that it may import. A package's own files import each other, but
# never in a circle.
LEAVES = {"types", "files", "machine"}
NETS_AND_DATA = LEAVES | {"models", "data"}
FLOORS = {
    "types": set(),
    "files": set(),
    "machine": set(),
    "command": {"machine"},
    "runtime": set(),
    "models": LEAVES,
    "data": LEAVES,
    "training": NETS_AND_DATA,
    "report": NETS_AND_DATA | {"training", "runtime"},  # the style of all pages
    "export": NETS_AND_DATA | {"runtime"},
    "distillation": NETS_AND_DATA | {"training", "report", "export"},
    "tasks": NETS_AND_DATA | {"training", "report", "export", "runtime"},
}

# Torch: only to read old weights where it happens to be installed, and in the file that is copied
# beside a student for those who use it from torch. Nothing of ours runs it otherwise.
LAZY_TORCH = {"edad_jax.models.hf_files"}
TORCH_TEMPLATES = {"edad_jax.export.modeling_exbert"}


def find_modules() -> dict[str, ast.Module]:
    """Returns the syntax tree of every file of the package but the __init__ files."""
    paths = (path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text())
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


def imported_modules(tree: ast.AST) -> set[str]:
    """Returns the files of edad_jax that a tree imports, as dotted names."""
    modules = set()
    for name in imported_names(tree):
        if name.split(".")[0] == "edad_jax" and name.count(".") > 1:  # not edad_jax.__version__
            modules.add(name if name in MODULES else name.rpartition(".")[0])
    return modules


def upward_imports(module: str, modules: set[str]) -> list[str]:
    """Returns a sentence for every import that FLOORS does not allow."""
    entry = module.split(".")[1]
    return [
        f"{module} imports {other}: {entry} may import {', '.join(sorted(FLOORS[entry])) or 'none'}"
        for other in sorted(modules)
        if other.split(".")[1] not in FLOORS[entry] | {entry}
    ]


def imports_of(tree: ast.AST, package: str) -> bool:
    return any(name.split(".")[0] == package for name in imported_names(tree))


def test_the_root_has_the_entries_of_the_table_and_at_most_twelve():
    entries = {
        path.stem for path in PACKAGE.iterdir() if path.stem not in ("__init__", "__pycache__")
    }
    assert entries == FLOORS.keys()
    assert len(entries) <= 12


@pytest.mark.parametrize("module", sorted(MODULES))
def test_module_imports_only_from_lower_floors(module):
    assert not upward_imports(module, imported_modules(MODULES[module]))


def test_an_upward_import_is_found():
    tree = ast.parse("def f():\n    from edad_jax.tasks.finetune import finetune\n")
    assert imported_modules(tree) == {"edad_jax.tasks.finetune"}
    assert upward_imports("edad_jax.models.bert", imported_modules(tree))
    assert not upward_imports("edad_jax.tasks.setup", imported_modules(tree))


def test_no_import_goes_in_a_circle():
    graph = {module: imported_modules(tree) for module, tree in MODULES.items()}
    assert tuple(graphlib.TopologicalSorter(graph).static_order())
    entries = {
        entry: {floor for floor in floors if floor != entry} for entry, floors in FLOORS.items()
    }
    assert tuple(graphlib.TopologicalSorter(entries).static_order())
    with pytest.raises(graphlib.CycleError):
        graph["edad_jax.models.bert"] = {"edad_jax.models.exbert"}
        tuple(graphlib.TopologicalSorter(graph).static_order())


def test_package_init_files_import_nothing_of_ours():
    for path in PACKAGE.rglob("__init__.py"):
        assert not imported_modules(ast.parse(path.read_text())), path


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
    users = [module for module, tree in MODULES.items() if imports_of(tree, "orbax")]
    assert users == ["edad_jax.training.checkpoint"]


def test_types_needs_no_jax():
    tree = MODULES["edad_jax.types"]
    body = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    assert not imports_of(ast.Module(body, []), "jax")
