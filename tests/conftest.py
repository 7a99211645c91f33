# SPDX-License-Identifier: Apache-2.0
"""Set before jax is imported: four CPU devices, no network, no screen."""

import atexit
import gc
import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests import quick_programs

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {quick_programs.xla_flags(4)}"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"

# The session's workers (pytest-xdist) share what it began with.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ[quick_programs.FOLDER] = tempfile.mkdtemp(prefix="edad-jax-tests-")
    atexit.register(shutil.rmtree, os.environ[quick_programs.FOLDER], ignore_errors=True)
os.environ |= quick_programs.cache(quick_programs.IN_PROCESS)

import jax  # noqa: E402  (after the environment, which it reads once)
import pytest  # noqa: E402

from tests.tiny_storage import bucket, s3_server  # noqa: E402, F401

# Tracing makes many objects that live on: with Python's own thresholds a tenth of the time of
# Python's part is spent looking for garbage among them. `forget_programs` does so after a module.
gc.set_threshold(100_000, 50, 100)

# An array of another rank than its partner is a mistake here, never a convenience.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """Unloads a module's compiled programs after it: each holds many memory mappings.

    A process may have 65,530 of them (vm.max_map_count); past that XLA's compiler crashes, which
    the whole suite in one process did.
    """
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="session")
def tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a tiny tokenizer; tests read it and change nothing."""
    from tests.tiny_text import write_tokenizer

    return write_tokenizer(tmp_path_factory.mktemp("session") / "tokenizer")


@pytest.fixture(autouse=True)
def quick_ends(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Ends tiny runs quickly: pictures without layout, and no nets compiled to be timed.

    That is a third of what a run takes whose step was compiled before. tests/report looks at how
    pictures are laid out, tests/distillation/test_evaluate.py at speeds; `finished` has both.
    """
    from matplotlib.figure import Figure

    from edad_jax.distillation import evaluate

    save = Figure.savefig

    def savefig(self, *args, **kwargs):
        self.set_layout_engine("none")
        save(self, *args, **kwargs)

    if "report" not in request.path.parts and "figures" not in request.fixturenames:
        monkeypatch.setattr(Figure, "savefig", savefig)
    if request.path.name != "test_evaluate.py":
        monkeypatch.setattr(
            evaluate, "measure_speed", lambda nets, *, length: dict.fromkeys(nets, 1_000.0)
        )


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list:
    """Returns the figures that are saved, to look at what is drawn."""
    from matplotlib.figure import Figure

    saved = []
    save = Figure.savefig

    def savefig(self, *args, **kwargs):
        saved.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return saved


class FinishedRun(NamedTuple):
    """A whole tiny run, made once in a session; tests read it and change nothing."""

    inputs: Path  # corpus.txt and teacher/
    workdir: Path
    summary: dict


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """Returns the run of `tiny_run.tiny_config` with nothing changed."""
    from edad_jax.distillation.train import train
    from tests import tiny_run

    inputs = tiny_run.make_inputs(tmp_path_factory.mktemp("finished"))
    workdir = inputs / "run"
    return FinishedRun(inputs, workdir, train(tiny_run.tiny_config(inputs), str(workdir)))
