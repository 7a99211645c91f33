# SPDX-License-Identifier: Apache-2.0
"""What a program is compiled for, where that is not this machine."""

import jax
import pytest

from edad_jax.machine import compiling_for, target_backend


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
