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

from collections.abc import Callable

import jax

from edad_jax.distillation import losses
from edad_jax.distillation.nets import Nets
from edad_jax.distillation.step import StepSettings, make_step, total
from edad_jax.models.config import ExtensionConfig

METHODS = {"minilm": ("student",)}


def check_relation_heads(nets: Nets, heads: int) -> None:
    """Raises ValueError where relation heads do not divide the widths of both nets."""
    for net in ("teacher", "student"):
        check_divides(heads, net, getattr(nets, net).config.base.hidden_size)


def check_divides(heads: int, net: str, width: int) -> None:
    """Raises ValueError where relation heads do not divide the width of a net."""
    if heads < 1 or width % heads:
        raise ValueError(
            f"config.minilm.relation_heads={heads} does not divide the {net}'s width, {width}; "
            "choose a common divisor of both widths, such as 12"
        )


def check_extension(extension: ExtensionConfig | None) -> None:
    """Raises ValueError for a student with extension blocks: no loss would reach its last one."""
    if extension is not None:
        raise ValueError(
            f"config.student.extension.hidden_size={extension.hidden_size}, expected 0 with "
            "config.method='minilm': of the last layer only the original block is compared, and "
            "the extension's would stay random; give --config.student.extension.hidden_size=0"
        )


def make_minilm_step(nets: Nets, settings: StepSettings) -> Callable:
    """Returns the step of a student that imitates a frozen teacher's last layer."""

    def loss_fn(params, frozen, batch, counts, alpha, key):
        del alpha
        taught = jax.lax.stop_gradient(_last_vectors(nets.teacher, frozen["teacher"], batch, None))
        learned = _last_vectors(nets.student, params["student"], batch, key)
        terms = {
            f"distill/{name}": losses.relation_loss(
                learned[name], taught[name], batch.mask_bt, settings.relation_heads
            ).sum()
            / counts.tokens
            for name in ("query", "key", "value")
        }
        return total(terms), terms

    return make_step(loss_fn, settings, METHODS["minilm"], masked=False)


MAKERS = {"minilm": make_minilm_step}


def _last_vectors(model, params, batch, key):
    """Returns {"query", "key", "value"} of the last layer, each [b, t, h, k]."""
    _, kept = model.apply(
        {"params": params},
        batch.ids_bt,
        batch.segments_bt,
        batch.mask_bt,
        deterministic=key is None,
        method="encode",
        rngs={} if key is None else {"dropout": key},
        mutable=["intermediates"],
    )
    blocks = kept["intermediates"]["base"]
    last = max(blocks, key=lambda name: int(name.removeprefix("layers_")))
    # A block that serves as several layers has kept one value for each; the last is wanted.
    return blocks[last]["attention"]["vectors"][-1]
