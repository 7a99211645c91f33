# SPDX-License-Identifier: Apache-2.0
"""How a net is computed, where what it computes stays the same but for rounding."""

import dataclasses

REMATS = ("none", "blocks")


@dataclasses.dataclass(frozen=True)
class Execution:
    """Choices between memory and time; of a run, not of a model, so no config.json knows them.

    Attributes:
      remat: "blocks" keeps only the input of each block for the backward pass, and computes what
        is inside once more there ("rematerialisation", Chen et al. 2016, Training deep nets with
        sublinear memory cost); "none" keeps all. On a CPU that helps only with
        XLA_FLAGS=--xla_cpu_enable_concurrency_optimized_scheduler=false: by default XLA orders a
        CPU's program for concurrency, and computes what is inside once more long before its time.
    """

    remat: str = "none"

    def __post_init__(self):
        """Raises ValueError for a name that is not on offer."""
        if self.remat not in REMATS:
            raise ValueError(f"config.remat={self.remat!r} is not one of {', '.join(REMATS)}")
