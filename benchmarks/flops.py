# SPDX-License-Identifier: Apache-2.0
"""Model FLOPs of an update by formula: what the maths asks for, however it is computed.

Matrix products only, two FLOPs for a multiplication with its addition. A trained kernel costs three
times its forward pass (output, gradient of the input, gradient of the kernel); a frozen one of a
net that is trained twice, since there is no gradient of the kernel; a frozen net once. Attention's
own products are counted, for rows of full length; the MLM head at the masked slots alone. Left out
are look-ups, norms, softmax, the optimiser, and the pooler with NSP (one vector a row).

MFU, model FLOPs utilisation (Chowdhery et al. 2022, PaLM, appendix B), is these FLOPs over what the
device could do in the time. XLA's own count has everything that the program does, so it is larger.
"""

from typing import NamedTuple

from benchmarks.targets import PEAK_TFLOPS
from edad_jax.distillation.phases import WHOLE, Phase
from edad_jax.models.config import ExBertConfig


class Passes(NamedTuple):
    """FLOPs of one forward pass, for one row."""

    base: float  # linear layers of the original blocks
    extension: float  # linear layers of the extension blocks, and gates
    attention: float  # queries with keys, weights with values, of both
    transform: float  # of the MLM head, before the word tables
    base_words: float  # the head's product with the original words
    added_words: float


def forward_passes(config: ExBertConfig, length: int, slots: int) -> Passes:
    """Returns the FLOPs of one row of `length` pieces, of which `slots` are masked."""
    base, extension = config.base, config.extension
    width, layers = base.hidden_size, base.num_hidden_layers

    feeds = 3 if base.modern else 2  # a gated feed-forward layer has one kernel more

    def linear(attention: int, inner: int) -> float:
        return 2.0 * width * (4 * attention + feeds * inner) * layers * length

    def products(attention: int) -> float:
        return 4.0 * length * attention * layers * length

    added = attended = 0.0
    if extension:
        added = linear(extension.hidden_size, extension.intermediate_size)
        added += 2.0 * width * layers * length  # gates
        attended = products(extension.hidden_size)
    tables = base.embedding_size or width  # a factorised embedding is narrower
    return Passes(
        base=linear(width, base.intermediate_size),
        extension=added,
        attention=products(width) + attended,
        transform=2.0 * width * tables * slots,
        base_words=2.0 * tables * base.vocab_size * slots,
        added_words=2.0 * tables * config.extension_vocab_size * slots,
    )


def step_flops(
    method: str,
    teacher: ExBertConfig,
    student: ExBertConfig,
    *,
    rows: int,
    length: int,
    slots: int,
    trains_base: bool = False,
    phase: Phase = WHOLE,
) -> float:
    """Returns the model FLOPs of an update of EDAD or of one of its two stages.

    Args:
      method: "edad", "adaptation" or "distillation".
      teacher: its sizes.
      student: its sizes.
      rows: of the batch.
      length: pieces of a row.
      slots: masked pieces of a row.
      trains_base: whether the teacher's original weights learn too.
      phase: what EDAD's update leaves out.

    Raises:
      ValueError: another method.
    """
    masked = 0 if method == "distillation" else slots
    taught, learned = (forward_passes(net, length, masked) for net in (teacher, student))
    frozen = 3 if trains_base else 2
    adapted = frozen * (taught.base + taught.base_words) + 3 * (
        taught.extension + taught.attention + taught.transform + taught.added_words
    )
    seen = taught.base + taught.extension + taught.attention
    matched = (student.base.num_hidden_layers + 1) * phase.imitates  # and the embeddings
    mapping = 2.0 * student.base.hidden_size * teacher.base.hidden_size * matched * length
    match method:
        case "adaptation":
            a_row = adapted
        case "distillation":
            a_row = seen + 3 * (sum(learned) + mapping)
        case "edad":
            a_row = adapted if phase.teacher_learns else seen * phase.imitates
            a_row += 3 * (sum(learned) + mapping)
        case _:
            raise ValueError(f"got method={method!r}, expected edad, adaptation or distillation")
    return rows * a_row


def peak_tflops(device_kind: str) -> float | None:
    """Returns the device's dense bfloat16 TFLOP/s; None where it is not known."""
    for name, peak in PEAK_TFLOPS.items():
        if device_kind.startswith(name):
            return peak
    return None
