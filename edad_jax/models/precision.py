# SPDX-License-Identifier: Apache-2.0
"""The types that a net computes in."""

import logging
from typing import NamedTuple

import jax
import jax.numpy as jnp

from edad_jax.machine import has_bfloat16_units

LOG = logging.getLogger(__name__)


class Precision(NamedTuple):
    """The types a net computes in: of its activations, and of its products' operands."""

    dtype: jnp.dtype
    products: jnp.dtype

    @property
    def name(self) -> str:
        """Returns what config.dtype calls it."""
        return self.dtype.name if self.dtype == self.products else "mixed"


def resolve_precision(name: str) -> Precision:
    """Returns the types that config.dtype stands for.

    "auto" is bfloat16 on GPUs and TPUs; on CPUs it is "mixed" where they have units for bfloat16,
    else float32. "mixed" is float32 with bfloat16 products: some 1.7 times as fast on such CPUs, on
    which plain bfloat16 is no faster, and no worse for the quick start's student
    (docs/performance.md). On a CPU without these units it is float32 too.
    """
    if jax.default_backend() != "cpu":
        name = "bfloat16" if name == "auto" else name
    elif name in ("auto", "mixed"):
        has_units = has_bfloat16_units()
        if name == "mixed" and not has_units:
            LOG.warning("This CPU has no units for bfloat16: dtype=mixed computes in float32.")
        name = "mixed" if has_units else "float32"
    if name not in ("float32", "bfloat16", "mixed"):
        raise ValueError(f"config.dtype={name!r} is not one of auto, float32, bfloat16, mixed")
    if name == "mixed":
        return Precision(jnp.dtype("float32"), jnp.dtype("bfloat16"))
    return Precision(jnp.dtype(name), jnp.dtype(name))
