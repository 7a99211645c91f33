# SPDX-License-Identifier: Apache-2.0
"""What the student has to imitate of its teacher in the fused step and in TinyBERT's stage two.

    L_TinyBERT   attention scores, embeddings and hidden states  (TinyBERT, Eq. 7 to 9; EDAD, Eq. 4)

The paper gives its terms no weights, and compares raw scores. What else is here, off by default, is
in no paper of ours; docs/results.md says what it was worth.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from edad_jax.distillation import losses
from edad_jax.distillation.nets import Nets, check_imitation, windows
from edad_jax.training.sections import read_section
from edad_jax.types import EncoderOutput, MaskedBatch

ATTENTION = ("scores", "centred")


@dataclasses.dataclass(frozen=True)
class ImitationSettings:
    """A config.imitation section."""

    attention: str = "scores"  # raw ones, as TinyBERT | centred: less each query's mean
    attention_weight: float = 1.0
    hidden_weight: float = 1.0  # of embeddings and hidden states
    soft_weight: float = 0.0  # of the teacher's words at masked pieces, whatever alpha is
    temperature: float = 1.0  # of these

    def __post_init__(self):
        if self.attention not in ATTENTION:
            raise ValueError(
                f"config.imitation.attention={self.attention!r} is not one of "
                f"{', '.join(ATTENTION)}"
            )
        for name in ("attention_weight", "hidden_weight", "soft_weight"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"config.imitation.{name}={getattr(self, name)}, expected 0 or more"
                )
        if self.temperature <= 0:
            raise ValueError(
                f"config.imitation.temperature={self.temperature}, expected more than 0"
            )

    def loss(self, terms: Mapping[str, jax.Array]) -> jax.Array:
        """Returns L_TinyBERT, given its terms."""
        return (
            self.attention_weight * terms["distill/attention"]
            + self.hidden_weight * terms["distill/hidden"]
        )


def read_imitation(config: ConfigDict) -> ImitationSettings:
    """Returns config.imitation, of a run of the fused step."""
    return read_section(ImitationSettings, config.imitation)


def read_stage_two(config: ConfigDict) -> ImitationSettings:
    """Returns config.imitation, of a run of TinyBERT's stage two, whose text is not masked."""
    settings = read_imitation(config)
    if settings.soft_weight:
        raise ValueError(
            f"config.imitation.soft_weight={settings.soft_weight} compares words at masked pieces, "
            f"and config.method={config.method!r} masks none; leave it out"
        )
    return settings


def check_nets(nets: Nets, settings: ImitationSettings) -> None:
    """Raises ValueError where the student cannot be compared with its teacher as settings say."""
    check_imitation(nets)
    if settings.attention == "centred" and any(windows(nets)):
        raise ValueError(
            "config.imitation.attention='centred' takes means over whole rows, and some layers see "
            "only a window; set --config.imitation.attention=scores"
        )


@jax.named_scope("imitation")
def imitate(
    nets: Nets,
    student_params: dict,
    student: EncoderOutput,
    teacher: EncoderOutput,
    batch: MaskedBatch,
    counts: losses.Counts,
    settings: ImitationSettings,
) -> dict[str, jax.Array]:
    """Returns the two terms of L_TinyBERT: attention scores; embeddings and hidden states."""
    targets = jax.lax.stop_gradient(teacher)

    def project(hidden_btd):
        return nets.projection.apply({"params": student_params["projection"]}, hidden_btd)

    attention = sum(
        losses.attention_loss(
            student_heads,
            teacher_heads,
            batch.seen_bt,
            centred=settings.attention == "centred",
            window=window,
        ).sum()
        for student_heads, teacher_heads, window in zip(
            student.heads, targets.heads, windows(nets), strict=True
        )
    )
    hidden = sum(
        losses.hidden_loss(project(student_btd), teacher_bte, batch.mask_bt).sum()
        for student_btd, teacher_bte in zip(
            (student.embedding_btd, *student.hidden_btd),
            (targets.embedding_btd, *targets.hidden_btd),
            strict=True,
        )
    )
    return {
        "distill/attention": attention / counts.pairs,
        "distill/hidden": hidden / counts.tokens,
    }


@jax.named_scope("soft_targets")
def soft_targets(
    student_logits: tuple[jax.Array, ...],
    teacher_logits: tuple[jax.Array, ...],
    batch: MaskedBatch,
    counts: losses.Counts,
    temperature: float,
) -> dict[str, jax.Array]:
    """Returns the distance of the words that both nets put at the masked pieces (DistilBERT)."""
    student_bmv, teacher_bmv = (
        jnp.concatenate(tables, axis=-1) for tables in (student_logits, teacher_logits)
    )
    loss_b = losses.soft_loss(
        student_bmv, jax.lax.stop_gradient(teacher_bmv), batch.masked_weights_bm, temperature
    )
    return {"distill/soft": loss_b.sum() / counts.masked}
