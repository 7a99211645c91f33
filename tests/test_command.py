# SPDX-License-Identifier: Apache-2.0
"""What the scripts make of errors."""

import subprocess
import sys

import jax
import pytest

from tests.tiny_run import environment

SCRIPT = """
import jax
from edad_jax.command import run_command

def main():
    raise jax.errors.JaxRuntimeError({message!r})

run_command(main, required=[])
"""


def run(message):
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(message=message)],
        capture_output=True,
        text=True,
        check=False,
        env=environment(GLIBC_TUNABLES=""),
    )


def test_a_product_that_xla_has_not_names_the_option():
    done = run("UNIMPLEMENTED: Unsupported element type for DotThunk::Execute: BF16 x BF16 = F32")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.strip().endswith("give --config.dtype=float32")


def test_other_errors_of_xla_keep_their_trace():
    done = run("INTERNAL: something else")
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_xlas_errors_are_runtime_errors():
    with pytest.raises(RuntimeError):
        raise jax.errors.JaxRuntimeError("as `run_command` expects")
