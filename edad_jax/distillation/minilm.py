# SPDX-License-Identifier: Apache-2.0
"""MiniLMv2 (Wang et al. 2021): the student's last layer learns the teacher's relations.

    minilm  student: sum over queries, keys and values of KL(teacher's relations, student's)

The text is unmasked and the teacher frozen. Student and teacher need neither the same number of
heads nor the same width, nor a map between them, and no layer but the last is imitated.

No other part of the student's last block is reached than its queries, keys and values: what makes
of them the last hidden states stays as it began, and learns only when the student is fine-tuned.
So it is in the published method too.

Of an exBERT the original block's queries, keys and values are compared: MiniLM knows no extension.
"""

import dataclasses
from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from edad_jax.distillation import losses
from edad_jax.distillation.edad import encode, make_update, total
from edad_jax.distillation.method import Method, StepSettings
from edad_jax.distillation.nets import Nets, extension_config
from edad_jax.training.sections import read_section


@dataclasses.dataclass(frozen=True)
class MiniLmSettings:
    """A config.minilm section."""

    relation_heads: int = 12  # a divisor of both widths; the paper: 48 at 768

    def check_width(self, net: str, width: int) -> None:
        """Raises ValueError where relation heads do not divide the width of a net."""
        if self.relation_heads < 1 or width % self.relation_heads:
            raise ValueError(
                f"config.minilm.relation_heads={self.relation_heads} does not divide the {net}'s "
                f"width, {width}; choose a common divisor of both widths, such as 12"
            )


def make_minilm_step(nets: Nets, settings: StepSettings) -> Callable:
    """Returns the step of a student that imitates a frozen teacher's last layer."""

    def loss_fn(params, batch, counts, alpha, key):
        del alpha
        teacher = ("teacher", nets.teacher, params["teacher"])
        student = ("student", nets.student, params["student"])
        taught = jax.lax.stop_gradient(_last_heads(*teacher, batch, None))
        learned = _last_heads(*student, batch, key)
        terms = {
            f"distill/{name}": losses.relation_loss(
                ours, its, batch.seen_bt, settings.own.relation_heads
            ).sum()
            / counts.tokens
            for name, ours, its in (
                ("query", learned.query_bthk, taught.query_bthk),
                ("key", learned.key_bshk, taught.key_bshk),
                ("value", learned.value_bshk, taught.value_bshk),
            )
        }
        return total(terms), terms

    return make_update(loss_fn, settings, MINILM.trained_nets, masked=False)


def _last_heads(name, model, params, batch, key):
    """Returns the original's attention heads of the last layer."""
    last = model.config.base.num_hidden_layers - 1
    return encode(name, model, params, batch, key, taps=(last,)).heads[0][0]


def _read(config: ConfigDict) -> MiniLmSettings:
    settings = read_section(MiniLmSettings, config.minilm)
    settings.check_width("student", config.student.hidden_size)
    if extension_config(config.student.extension) is not None:
        raise ValueError(
            f"config.student.extension.hidden_size={config.student.extension.hidden_size}, "
            "expected 0 with config.method='minilm': of the last layer only the original block is "
            "compared, and the extension's would stay random; give "
            "--config.student.extension.hidden_size=0"
        )
    return settings


def _check_nets(nets: Nets, settings: MiniLmSettings) -> None:
    for net in ("teacher", "student"):
        settings.check_width(net, getattr(nets, net).config.base.hidden_size)


MINILM = Method(
    "minilm",
    ("student",),
    make_minilm_step,
    options=("minilm",),
    read=_read,
    check_nets=_check_nets,
    note={"last block": "trained in its queries, keys and values only; fine-tune before use"},
)
