# SPDX-License-Identifier: Apache-2.0
"""The training methods by name."""

from edad_jax.distillation.edad import EDAD
from edad_jax.distillation.method import Method
from edad_jax.distillation.minilm import MINILM
from edad_jax.distillation.triple import TRIPLE, TRIPLE_ADAPTATION
from edad_jax.distillation.two_stages import ADAPTATION, DISTILLATION

METHODS = {
    method.name: method
    for method in (EDAD, ADAPTATION, DISTILLATION, TRIPLE, TRIPLE_ADAPTATION, MINILM)
}


def find_method(name: str) -> Method:
    """Returns the method of this name.

    Raises:
      ValueError: there is none.
    """
    if name not in METHODS:
        raise ValueError(f"config.method={name!r} is not one of {', '.join(METHODS)}")
    return METHODS[name]
