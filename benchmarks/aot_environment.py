# SPDX-License-Identifier: Apache-2.0
"""What has to be set before jax looks for devices, so that it compiles for some not here."""

import importlib.util
import os
import sys

from benchmarks.targets import Target

_COMPILERS = {"gpu": "jax_plugins.xla_cuda13", "tpu": "libtpu"}
_VARIABLES = {
    "gpu": {},
    "tpu": {
        "TPU_SKIP_MDS_QUERY": "1",  # asks no cloud what machine this is
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip is taken, so no lock on it is needed
        "TPU_WORKER_HOSTNAMES": "localhost",  # these two: or it complains that nobody told it
        "TPU_ACCELERATOR_TYPE": "v5litepod-1",
    },
}
# XLA's own products of this kind search for tile sizes, and for a width of 252 find none without
# a GPU to try them on; cuBLAS's, which take their place, are what training runs on mostly.
_XLA_FLAGS = {"gpu": "--xla_gpu_enable_triton_gemm=false", "tpu": ""}


def missing_compiler(platform: str) -> str:
    """Returns what to install for a platform, in one line."""
    return (
        f"compiling for a {platform.upper()} needs a compiler that is not installed: "
        f"pip install -c constraints.txt -e '.[aot-{platform}]'"
    )


def prepare_environment(target: Target, *, quick: bool = False) -> dict[str, str]:
    """Sets the variables and the flags of XLA that compiling for a target needs.

    Args:
      target: what will be compiled for.
      quick: whether its compiler is to try less hard to make a fast program.

    Returns:
      the environment as it was, for a process that runs on a device.

    Raises:
      ValueError: its compiler is not installed; says what to install.
    """
    if not is_installed(target.platform):
        raise ValueError(missing_compiler(target.platform))
    given = dict(os.environ)
    os.environ["JAX_PLATFORMS"] = "cpu"  # what this process itself runs on
    os.environ |= _VARIABLES[target.platform]
    if quick:
        os.environ["JAX_EXEC_TIME_OPTIMIZATION_EFFORT"] = "-1.0"
    if "jax" in sys.modules:  # a configuration of one's own imports it, and it has read these
        sys.modules["jax"].config.update("jax_platforms", "cpu")
        if quick:
            sys.modules["jax"].config.update("jax_exec_time_optimization_effort", -1.0)
    flags = f"{given.get('XLA_FLAGS', '')} {_XLA_FLAGS[target.platform]}"
    os.environ["XLA_FLAGS"] = flags.strip()
    return given


def is_installed(platform: str) -> bool:
    """Returns whether the compiler for a platform is installed."""
    try:
        return importlib.util.find_spec(_COMPILERS[platform]) is not None
    except ModuleNotFoundError:  # not even the package that it is in
        return False
