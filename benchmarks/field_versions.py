# SPDX-License-Identifier: Apache-2.0
"""What a figure of a field day depends on beside the code: device, driver, packages."""

import importlib.metadata
import shutil
import subprocess
from typing import Any

from edad_jax.machine import describe_machine

_PACKAGES = (
    *("jax", "jaxlib", "jax-cuda13-plugin", "jax-cuda12-plugin", "nvidia-cudnn-cu13", "flax"),
    *("optax", "numpy", "transformers", "tokenizers", "torch"),
)


def describe_versions() -> dict[str, Any]:
    """Returns {"device": a GPU's name and driver, or None; "machine"; "packages": by name}.

    Touches no device: a process that did would keep memory of it.
    """
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"device": _gpu(), "machine": describe_machine(), "packages": packages}


def _gpu():
    if shutil.which("nvidia-smi") is None:
        return None
    words = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return None
    return done.stdout.strip() or None
