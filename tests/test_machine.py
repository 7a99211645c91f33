# SPDX-License-Identifier: Apache-2.0
"""What a program is compiled for, where that is not this machine."""

import jax
import pytest

from edad_jax.machine import (
    compiling_for,
    memory_bytes,
    peak_resident_bytes,
    target_backend,
)


def test_what_is_compiled_for_is_here_unless_it_is_said():
    assert target_backend() == jax.default_backend()
    with compiling_for("gpu"):
        assert target_backend() == "gpu"
        with compiling_for("tpu"):
            assert target_backend() == "tpu"
        assert target_backend() == "gpu"
    with pytest.raises(KeyError), compiling_for("tpu"):
        raise KeyError
    assert target_backend() == jax.default_backend()


def test_a_machine_has_more_memory_than_this_process_took():
    there = memory_bytes()
    assert there is None or there > peak_resident_bytes()
