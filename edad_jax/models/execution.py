# SPDX-License-Identifier: Apache-2.0
"""How a net is computed, where what it computes stays the same but for rounding."""

import dataclasses

REMATS = ("none", "blocks")
ATTENTIONS = ("explicit", "fused")


@dataclasses.dataclass(frozen=True)
class Execution:
    """Choices between memory and time; of a run, not of a model, so no config.json knows them.

    Attributes:
      remat: "blocks" keeps only the input of each block for the backward pass, and computes what
        is inside once more there ("rematerialisation", Chen et al. 2016, Training deep nets with
        sublinear memory cost); "none" keeps all. On a CPU that helps only with
        XLA_FLAGS=--xla_cpu_enable_concurrency_optimized_scheduler=false: by default XLA orders a
        CPU's program for concurrency, and computes what is inside once more long before its time.
      attention: "fused" computes attention as one operation (`attention.py`) in layers that are not
        tapped and drop no weights; "explicit" step by step everywhere.
    """

    remat: str = "none"
    attention: str = "explicit"

    def __post_init__(self):
        """Raises ValueError for a name that is not on offer."""
        for name, choices in (("remat", REMATS), ("attention", ATTENTIONS)):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"config.{name}={getattr(self, name)!r} is not one of {', '.join(choices)}"
                )

    def check_dropout(self, net: str, rate: float | None) -> None:
        """Raises ValueError where a net that learns would drop weights of fused attention.

        Args:
          net: "teacher" or "student".
          rate: of the dropout of attention weights; None: not known yet.
        """
        if self.attention == "fused" and rate:
            raise ValueError(
                f"config.attention='fused' cannot drop attention weights, and the {net}'s rate is "
                f"{rate}; set --config.{net}.attention_probs_dropout_prob=0.0, or take "
                "--config.attention=explicit"
            )
