# SPDX-License-Identifier: Apache-2.0
"""Teacher and student together: which layers imitate which, and whether they can."""

import dataclasses

from edad_jax.models.exbert import ExBert
from edad_jax.models.heads import WidthProjection


@dataclasses.dataclass(frozen=True)
class Nets:
    """Teacher, student, and the map from the student's width to the teacher's."""

    teacher: ExBert
    student: ExBert
    projection: WidthProjection

    @property
    def student_taps(self) -> tuple[int, ...]:
        """Returns all layers of the student."""
        return tuple(range(self.student.config.base.num_hidden_layers))

    @property
    def teacher_taps(self) -> tuple[int, ...]:
        """Returns the teacher layer that each student layer imitates."""
        return layer_map(self.teacher.config.base.num_hidden_layers, len(self.student_taps))


def layer_map(teacher_layers: int, student_layers: int) -> tuple[int, ...]:
    """Returns, for each student layer, the teacher layer (from 0) that it imitates.

    TinyBERT's uniform map: student layer m imitates teacher layer m N / M (from 1), so 12 -> 4
    gives 3, 6, 9, 12. Where M does not divide N it is rounded up, so that the last layers
    always meet: 6 -> 4 gives 2, 3, 5, 6.

    Raises:
      ValueError: where the student has more layers than the teacher.
    """
    if not 0 < student_layers <= teacher_layers:
        raise ValueError(
            f"a student of {student_layers} layers cannot imitate a teacher of {teacher_layers}; "
            "config.student.num_hidden_layers must be between 1 and the teacher's"
        )
    return tuple(-(-m * teacher_layers // student_layers) - 1 for m in range(1, student_layers + 1))


def check_heads(teacher: ExBert, student: ExBert) -> None:
    """Raises ValueError where attention scores of the two nets cannot be compared by index."""
    (teacher_base, teacher_added), (student_base, student_added) = (
        teacher.config.score_heads,
        student.config.score_heads,
    )
    if teacher_base != student_base:
        raise ValueError(
            f"the student has {student_base} attention heads and the teacher {teacher_base}; "
            f"TinyBERT compares heads one by one: set config.student.num_attention_heads="
            f"{teacher_base}"
        )
    if teacher_added and student_added and teacher_added != student_added:
        raise ValueError(
            f"the student's extension has {student_added} heads and the teacher's {teacher_added};"
            f" set config.student.extension.num_attention_heads={teacher_added}"
        )
