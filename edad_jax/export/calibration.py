# SPDX-License-Identifier: Apache-2.0
"""What the linear layers of a model read on real texts, to fix their eight-bit steps beforehand.

Without it a step is 1/255 of the range of what a layer is given, row by row and batch by batch.
With it the range is that of the calibration texts; what lies beyond is cut off.
"""

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import onnxruntime

from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.export.formats import Model
from edad_jax.export.graph import INPUTS
from edad_jax.export.onnx import build_onnx

LONGEST = 128  # pieces of a calibration row


def check_reads_texts(model: Model) -> None:
    """Raises ValueError for a model that reads pairs: ranges on texts alone are not its own."""
    if model.task and model.task.kind == "answering":
        raise ValueError(
            f"{model.source} answers questions: its layers read pairs, expected a model that reads "
            "texts; export it without --calibrate"
        )
    if model.task and model.task.activation:
        raise ValueError(
            f"{model.source} gives a score, of texts or of pairs: its files do not say of which; "
            "export it without --calibrate"
        )


def measure_ranges(
    model: Model, texts: Sequence[str], *, word_rank: int = 0
) -> dict[str, tuple[float, float]]:
    """Returns {linear layer: (smallest, largest number of its input)} on texts, by ONNX in float32.

    Texts are read one by one, so that nothing is measured at padding.

    Args:
      model: from `formats.load`.
      texts: each is cut off after 128 pieces.
      word_rank: that of the model to be written; see `onnx.build_onnx`.

    Raises:
      ValueError: no text, or a model that answers questions.
    """
    check_reads_texts(model)
    if not texts:
        raise ValueError("got no text to calibrate with, expected at least one")
    watched = build_onnx(
        model.config, model.params, model.task, word_rank=word_rank, watched="ranges"
    )
    found: dict[str, list[float]] = {}
    for _, values in watch(model, watched, texts):
        for name, value in values.items():
            found.setdefault(name, []).append(float(value))
    layers = dict.fromkeys(name.rpartition(".")[0] for name in found)
    return {
        layer: (min(found[f"{layer}.smallest"]), max(found[f"{layer}.largest"])) for layer in layers
    }


def watch(
    model: Model, graph: onnx.ModelProto, texts: Sequence[str]
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Yields the pieces [1, length] of each text, and all that a graph gives for them, by name."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # of outputs whose axes a watched graph does not tell
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    tokenizer = load_tokenizer(model.source, option="--model=DIR")
    longest = min(LONGEST, model.config.base.max_position_embeddings)
    composed = [unicodedata.normalize("NFC", text) for text in texts]
    for row in tokenizer(composed, truncation=True, max_length=longest)["input_ids"]:
        ids = np.array([row], np.int64)
        inputs = (ids, np.ones_like(ids), np.zeros_like(ids))
        values = session.run(names, dict(zip(INPUTS, inputs, strict=True)))
        yield ids, dict(zip(names, values, strict=True))
