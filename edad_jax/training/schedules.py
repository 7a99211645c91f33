# SPDX-License-Identifier: Apache-2.0
"""Functions of the step: alpha, which weighs distillation against adaptation, and learning rates.

`step` counts updates already made, so it runs from 0 to total_steps - 1.
"""

import math
from collections.abc import Callable

import optax

ALPHA_SCHEDULES = (
    "linear",
    "linear_reverse",
    "cosine",
    "cosine_reverse",
    "same",
    "only_distillation",
    "only_adaptation",
)
LEARNING_RATE_SCHEDULES = ("constant", "linear", "warmup_linear")


def alpha(name: str, *, total_steps: int) -> optax.Schedule:
    """Returns the weight of distillation in EDAD's Eq. 6 by step: one of the paper's seven.

    `linear` falls from 1 to 0: distillation first, adaptation last. The published code does
    the opposite, which the paper's Table 4 calls "Linear reverse".

    Deviations: the paper gives no formula for the cosine; (1 + cos(pi t / T)) / 2 is used.
    Its labels "Only DA(=1)" and "Only DT(=2)" contradict Eq. 6, by which they are 0 and 1.
    `linear_reverse` runs from 0 to (T-1)/T, as the mirror of `linear`; the published code counts
    updates from 1, and so from 1/T to 1.

    Raises:
      ValueError: on an unknown name.
    """
    falling = {
        "linear": optax.linear_schedule(1.0, 0.0, total_steps),
        "cosine": optax.cosine_decay_schedule(1.0, total_steps),
    }
    match name:
        case "linear" | "cosine":
            return falling[name]
        case "linear_reverse" | "cosine_reverse":
            fall = falling[name.removesuffix("_reverse")]
            return lambda step: 1.0 - fall(step)
        case "same":
            return optax.constant_schedule(0.5)
        case "only_distillation":
            return optax.constant_schedule(1.0)
        case "only_adaptation":
            return optax.constant_schedule(0.0)
    raise ValueError(f"config.alpha={name!r} is not one of {', '.join(ALPHA_SCHEDULES)}")


def make_due(every_steps: int, total_steps: int) -> Callable[[int], bool]:
    """Returns due(steps done): at every so many-th step (0: never), and at the last."""

    def due(done):
        return done == total_steps or (every_steps > 0 and done % every_steps == 0)

    return due


def learning_rate(name: str, *, peak: float, warmup_steps: int, total_steps: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step.

    `constant`: the peak throughout (the paper's EDAD). `linear`: from the peak to 0.
    `warmup_linear`: up to the peak over warmup_steps, then down to 0 (the paper's oiSciBERT,
    with 10% warm-up). The first update already has 1/warmup_steps of the peak; with a start
    from 0 it would do nothing. The fall begins at the peak, as in TinyBERT's code; EDAD's drops
    to the line from 1 at step 0 to 0 at the end, so to 0.9 of the peak after 10% warm-up.

    Raises:
      ValueError: on an unknown name, or a warm-up that does not fit into the run.
    """
    match name:
        case "constant":
            return optax.constant_schedule(peak)
        case "linear":
            return optax.linear_schedule(peak, 0.0, total_steps)
        case "warmup_linear":
            if not 0 < warmup_steps < total_steps:
                raise ValueError(
                    f"warm-up of {warmup_steps} steps does not fit a run of {total_steps}, "
                    f"expected at least one step after it; {_warmup_advice(total_steps)}"
                )
            up = optax.linear_schedule(peak / warmup_steps, peak, warmup_steps - 1)
            down = optax.linear_schedule(peak, 0.0, total_steps - warmup_steps)
            return optax.join_schedules([up, down], [warmup_steps])
    raise ValueError(
        f"config.optimizer.schedule={name!r} is not one of {', '.join(LEARNING_RATE_SCHEDULES)}"
    )


def _warmup_advice(total_steps: int) -> str:
    """Returns what makes room for a warm-up in a run of so many steps."""
    advice = (
        "train for more steps (more text or examples, a smaller config.batch_size, more "
        "config.epochs or config.max_steps), or without a warm-up "
        "(--config.optimizer.schedule=linear)"
    )
    if total_steps > 1:
        most = math.floor(100 * (total_steps - 1) / total_steps) / 100
        advice = f"choose config.optimizer.warmup_ratio of at most {most}, {advice}"
    return advice
