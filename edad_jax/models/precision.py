# SPDX-License-Identifier: Apache-2.0
"""The types that a net computes in."""

import logging
from typing import NamedTuple

import jax
import jax.numpy as jnp

from edad_jax.machine import has_bfloat16_units

LOG = logging.getLogger(__name__)
NAMES = ("auto", "float32", "bfloat16", "bfloat16_matmul")


class Precision(NamedTuple):
    """The types a net computes in: of its activations, and of the operands of its matmuls."""

    dtype: jnp.dtype
    matmul_dtype: jnp.dtype

    @property
    def name(self) -> str:
        """Returns what config.dtype calls it."""
        return self.dtype.name if self.dtype == self.matmul_dtype else "bfloat16_matmul"


def check_precision(name: str) -> None:
    """Raises ValueError for what config.dtype cannot be; asks for no device."""
    if name not in NAMES:
        raise ValueError(f"config.dtype={name!r} is not one of {', '.join(NAMES)}")


def resolve_precision(name: str) -> Precision:
    """Returns the types that config.dtype stands for.

    "auto" is bfloat16 on GPUs and TPUs; on CPUs it is "bfloat16_matmul" where they have units for
    bfloat16, else float32. "bfloat16_matmul" is float32 whose matmuls take bfloat16: some 1.7 times
    as fast on such CPUs, on which plain bfloat16 is no faster, and no worse for the quick start's
    student (docs/performance.md). On a CPU without these units it is float32 too.
    """
    check_precision(name)
    if jax.default_backend() != "cpu":
        name = "bfloat16" if name == "auto" else name
    elif name in ("auto", "bfloat16_matmul"):
        has_units = has_bfloat16_units()
        if name == "bfloat16_matmul" and not has_units:
            LOG.warning(
                "This CPU has no units for bfloat16: dtype=bfloat16_matmul computes in float32."
            )
        name = "bfloat16_matmul" if has_units else "float32"
    if name == "bfloat16_matmul":
        return Precision(jnp.dtype("float32"), jnp.dtype("bfloat16"))
    return Precision(jnp.dtype(name), jnp.dtype(name))
