# SPDX-License-Identifier: Apache-2.0
"""What late updates of the fused step may leave out, and which update leaves out what.

    stop_teacher_below   the teacher learns no more once alpha stays below this: what it still
                         learned could hardly reach the student
    drop_teacher_below   the student does not imitate where alpha is below this; once alpha
                         stays below it, the teacher does not even run

No paper has these. Alpha is a function of the step alone, and so is the phase: it is found on the
host, and each phase has a compiled program of its own. (One program for all phases, with
`lax.cond`, would keep in memory what any of them needs, and would fuse nothing across a branch.)
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import optax


class Phase(NamedTuple):
    """What an update of the fused step computes; the default is all of it."""

    teacher_learns: bool = True
    imitates: bool = True  # whether the student has the teacher's targets; else alpha counts as 0

    @property
    def teacher_runs(self) -> bool:
        """Returns whether anything is asked of the teacher."""
        return self.teacher_learns or self.imitates

    def describe(self) -> str:
        teacher = "does not run"
        if self.teacher_runs:
            teacher = "learns" if self.teacher_learns else "runs forward only"
        student = "imitates it" if self.imitates else "does not imitate it"
        return f"the teacher {teacher}, the student {student}"


WHOLE = Phase()


@dataclasses.dataclass(frozen=True)
class PhaseSettings:
    """A config.phases section: values of alpha, 0 for never; see the top of this file."""

    stop_teacher_below: float = 0.0
    drop_teacher_below: float = 0.0

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if not 0 <= value <= 1:
                raise ValueError(
                    f"config.phases.{name}={value}, expected a value of alpha from 0 (never) to 1"
                )

    def make_phase_at(self, alpha: optax.Schedule, total_steps: int) -> Callable[[int], Phase]:
        """Returns phase_at(updates already made), a pure function: a resumed run goes on alike.

        The teacher stops where alpha *stays* below its threshold to the end of the run: with a
        schedule that rises, all that it learns early is still to be handed on.
        """
        if self == PhaseSettings():
            return lambda step: WHOLE
        alphas = np.broadcast_to(np.asarray(alpha(np.arange(total_steps))), (total_steps,))
        highest_from_here = np.maximum.accumulate(alphas[::-1])[::-1]
        stop_below = max(self.stop_teacher_below, self.drop_teacher_below)
        return lambda step: Phase(
            teacher_learns=bool(highest_from_here[step] >= stop_below),
            imitates=bool(alphas[step] >= self.drop_teacher_below),
        )
