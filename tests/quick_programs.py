# SPDX-License-Identifier: Apache-2.0
"""How tests have programs compiled: quickly, and each once. Imports nothing of jax.

Tests spend their time compiling tiny programs, and many run the same tiny training again.
"""

import os
from importlib.metadata import version
from pathlib import Path

# Set by conftest.py, for a session and its workers; removed at the session's end.
FOLDER = "EDAD_JAX_TESTS_PROGRAMS"
IN_PROCESS = "tests"  # of its folders, the one of the tests' own processes, with four devices


def xla_flags(devices: int) -> str:
    """Returns flags for so many devices of a CPU that have tiny programs compiled quickly."""
    # Unoptimised programs compile twice as fast.
    flags = [f"--xla_force_host_platform_device_count={devices}"]
    flags += ["--xla_backend_optimization_level=0"]
    if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):  # later ones stop at these
        # Again twice as fast: of a tiny training step 8 s instead of 19.
        flags += ["--xla_cpu_use_fusion_emitters=false"]
        flags += ["--xla_llvm_force_inline_before_split=false"]
    return " ".join(flags)


def cache(folder: str, *, is_filled: bool = True) -> dict[str, str]:
    """Returns the environment of a process that keeps its programs in a folder of the session.

    Where not `is_filled` it takes what is there and adds nothing: jax writes entries in place, so
    that a process that is killed, or meets a full disk, leaves half an entry, which crashes
    whoever reads it.
    """
    return {
        "JAX_COMPILATION_CACHE_DIR": str(Path(os.environ[FOLDER], folder)),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0" if is_filled else "1e9",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
