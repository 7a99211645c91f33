# SPDX-License-Identifier: Apache-2.0
"""What tagging and classification share: a label for each word, of which a whole text is one."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edad_jax.tasks.rows import TaskRows, name_labels, teach_words


class WordLabels:
    """How a task that labels words reads a net's logits, and a teacher's."""

    def decode(
        self,
        examples: Sequence[Any],
        rows: TaskRows,
        logits: Sequence[np.ndarray],
        labels: Sequence[str],
    ) -> list[list[str]]:
        """Returns the likeliest label of every word of every example."""
        del examples
        return name_labels(rows, logits, labels)

    def teach(self, *asked: Any) -> TaskRows:
        """Returns the rows with a teacher's soft labels; arguments are those of `teach_words`."""
        return teach_words(*asked)
