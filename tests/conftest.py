# SPDX-License-Identifier: Apache-2.0
"""Set before jax is imported: four CPU devices, no network, no screen."""

import atexit
import gc
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=4"
    # Tests spend their time compiling tiny programs; unoptimised ones compile twice as fast.
    + " --xla_backend_optimization_level=0"
)
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):  # later ones stop at these names
    # Again twice as fast: of a tiny training step 8 s instead of 19.
    os.environ["XLA_FLAGS"] += (
        " --xla_cpu_use_fusion_emitters=false --xla_llvm_force_inline_before_split=false"
    )
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"

# Many tests run the same tiny training again, some in processes of their own: each program is
# compiled once in a session. The session's workers (pytest-xdist) share what it began with.
if "PYTEST_XDIST_WORKER" not in os.environ:
    _CACHE = tempfile.mkdtemp(prefix="edad-jax-tests-")
    atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax  # noqa: E402  (after the environment, which it reads once)
import pytest  # noqa: E402

from tests.tiny_storage import bucket, s3_server  # noqa: E402, F401

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
