# SPDX-License-Identifier: Apache-2.0
"""The training methods by name: which nets each trains, and what makes its step."""

from edad_jax.distillation import edad, minilm, triple

TRAINED_NETS = edad.METHODS | triple.METHODS | minilm.METHODS
MAKERS = edad.MAKERS | triple.MAKERS | minilm.MAKERS
# These read the teacher's MLM head, so it must have learned to predict words.
NEED_MLM_HEAD = ("triple",)
