# SPDX-License-Identifier: Apache-2.0
"""Options that a run reads only with certain others; without these they must stay as they are.

Who sets an option that the run then ignores believes that it did something.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from edad_jax.distillation import minilm, triple
from edad_jax.training.workdir import _check_defaults, _read


class Readers(NamedTuple):
    """Where options are read: with another option that has one of these values."""

    option: str
    values: tuple[str, ...]


# The values are those of configs/edad.py, which the package cannot import.
TRAINING = {
    Readers("method", ("edad",)): {"alpha": "linear"},
    Readers("method", tuple(triple.METHODS)): {
        "triple.soft": 0.625,
        "triple.mlm": 0.25,
        "triple.cosine": 0.125,
        "triple.temperature": 2.0,
        "triple.positions": "masked",
        "triple.schedule": "constant",
    },
    Readers("method", tuple(minilm.METHODS)): {"minilm.relation_heads": 12},
    Readers("student.init", ("teacher",)): {
        "student.inherit.layer_rule": "uniform",
        "student.inherit.layers": (),
        "student.inherit.feed_forward": "largest",
        "student.inherit.width": "equal",
    },
}


def check_training(config: ConfigDict) -> None:
    """Raises ValueError for an option of a training run that was changed and would not be read."""
    for (option, values), defaults in TRAINING.items():
        now = _read(config, option)
        if now not in values:
            only = f"config.{option}={' or '.join(values)}"
            _check_defaults(config, defaults, f"{only} only, and config.{option}={now!r}")
