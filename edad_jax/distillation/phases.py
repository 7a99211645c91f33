# SPDX-License-Identifier: Apache-2.0
"""What an update of the fused step may leave out, and which update leaves out what.

    stop_teacher_below      the teacher learns no more once alpha stays below this: what it still
                            learned could hardly reach the student
    drop_teacher_below      the student does not imitate where alpha is below this; once alpha
                            stays below it, the teacher does not even run
    teacher_every_steps     the teacher learns at every k-th update, and else only runs forward
    early_taps_every_steps  the student imitates the embeddings and all layers but the last at
                            every k-th update, and the last layer at all of them

No paper has these. Alpha is a function of the step alone, and so is the phase: it is found on the
host, and each phase has a compiled program of its own. (One program for all phases, with
`lax.cond`, would keep in memory what any of them needs, and would fuse nothing across a branch.)
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import optax
from ml_collections import ConfigDict

_OFF = {
    "stop_teacher_below": 0.0,
    "drop_teacher_below": 0.0,
    "teacher_every_steps": 1,
    "early_taps_every_steps": 1,
}


class Phase(NamedTuple):
    """What an update of the fused step computes; the default is all of it."""

    teacher_learns: bool = True
    imitates: bool = True  # whether the student has the teacher's targets; else alpha counts as 0
    early_weight: float = 1.0  # of all distances but the last layer's; 0: they are not computed

    @property
    def teacher_runs(self) -> bool:
        """Returns whether anything is asked of the teacher."""
        return self.teacher_learns or self.imitates

    def describe(self) -> str:
        """Returns the phase in words."""
        teacher = "does not run"
        if self.teacher_runs:
            teacher = "learns" if self.teacher_learns else "runs forward only"
        student = "does not imitate it"
        if self.imitates:
            layers = f"all its layers, the early ones {self.early_weight:g} times"
            layers = {0: "its last layer only", 1: "all its layers"}.get(self.early_weight, layers)
            student = f"imitates {layers}"
        return f"the teacher {teacher}, the student {student}"


WHOLE = Phase()


def check_section(section: ConfigDict, method: str) -> None:
    """Raises ValueError for a config.savings that cannot be, or that the method does not know."""
    for name, off in _OFF.items():
        value = section[name]
        if name.endswith("_below") and not 0 <= value <= 1:
            raise ValueError(
                f"config.savings.{name}={value}, expected a value of alpha from 0 (off) to 1"
            )
        if name.endswith("_steps") and value < 1:
            raise ValueError(
                f"config.savings.{name}={value}, expected 1 (off: every update) or more"
            )
        if method != "edad" and value != off:
            raise ValueError(
                f"config.savings.{name}={value} leaves out parts of method edad, and config.method="
                f"{method!r}; leave it at {off}"
            )


def is_off(section: ConfigDict) -> bool:
    """Returns whether a config.savings leaves out nothing."""
    return all(section[name] == off for name, off in _OFF.items())


def make_phase_at(
    section: ConfigDict, alpha: optax.Schedule, total_steps: int
) -> Callable[[int], Phase]:
    """Returns phase_at(updates already made), a pure function, so that a resumed run goes on alike.

    The teacher stops where alpha *stays* below its threshold to the end of the run: with a
    schedule that rises, all that it learns early is still to be handed on.

    Args:
      section: a config.savings.
      alpha: the weight of distillation by step.
      total_steps: of the run.
    """
    if is_off(section):
        return lambda step: WHOLE
    alphas = np.broadcast_to(np.asarray(alpha(np.arange(total_steps))), (total_steps,))
    highest_from_here = np.maximum.accumulate(alphas[::-1])[::-1]
    stop_below = max(section.stop_teacher_below, section.drop_teacher_below)

    def phase_at(step):
        imitates = bool(alphas[step] >= section.drop_teacher_below)
        learns = highest_from_here[step] >= stop_below
        early = section.early_taps_every_steps
        return Phase(
            teacher_learns=bool(learns) and _is_due(step, section.teacher_every_steps),
            imitates=imitates,
            # k times the gradient at every k-th update: over a cycle the mean is the whole one.
            # (Adam's mean square is then up to k times the whole one's, and clipping sees updates
            # of k times the size: the sum of the updates is not the same.)
            early_weight=float(early * _is_due(step, early)) if imitates else WHOLE.early_weight,
        )

    return phase_at


def _is_due(step, every_steps):
    """Returns whether the update that follows `step` others is every so many-th.

    The last of a cycle and not the first, so that the updates that are logged, often every 10th,
    are among those that compute all.
    """
    return (step + 1) % every_steps == 0
