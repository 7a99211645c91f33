# SPDX-License-Identifier: Apache-2.0
"""What the linear layers of a model read on real texts, to fix their eight-bit steps beforehand.

Without it a step is 1/255 of the range of what a layer is given, row by row and batch by batch.
With it the range is that of the calibration texts; what lies beyond is cut off.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.export.formats import Model
from edad_jax.export.graph import INPUTS
from edad_jax.export.onnx import build_onnx
from edad_jax.tasks.splits import choose
from edad_jax.tasks.tagged import read_tagged

LONGEST = 128  # pieces of a calibration row


def check_reads_texts(model: Model) -> None:
    """Raises ValueError for a model that reads pairs: ranges on texts alone are not its own."""
    if model.task and model.task.kind == "answering":
        raise ValueError(
            f"{model.source} answers questions: its layers read pairs, expected a model that reads "
            "texts; export it without --calibrate"
        )


def measure_ranges(
    model: Model, texts: Sequence[str], *, word_rank: int = 0
) -> dict[str, tuple[float, float]]:
    """Returns {linear layer: (smallest, largest number of its input)} on texts, by ONNX in float32.

    Texts are read one by one, so that nothing is measured at padding.

    Args:
      model: from `formats.load`.
      texts: each is cut off after 128 pieces.
      word_rank: that of the model to be written; see `onnx.write_onnx`.

    Raises:
      ValueError: no text, or a model that answers questions.
    """
    check_reads_texts(model)
    if not texts:
        raise ValueError("got no text to calibrate with, expected at least one")
    watched = build_onnx(model.config, model.params, model.task, word_rank=word_rank, watched=True)
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    tokenizer = load_tokenizer(model.source, option="--model=DIR")
    longest = min(LONGEST, model.config.base.max_position_embeddings)
    rows = tokenizer(list(texts), truncation=True, max_length=longest)["input_ids"]
    found = {name: [] for name in names}
    for row in rows:
        ids = np.array([row], np.int64)
        inputs = (ids, np.ones_like(ids), np.zeros_like(ids))
        for name, value in zip(
            names, session.run(names, dict(zip(INPUTS, inputs, strict=True))), strict=True
        ):
            found[name].append(float(value))
    layers = dict.fromkeys(name.rpartition(".")[0] for name in names)
    return {
        layer: (min(found[f"{layer}.smallest"]), max(found[f"{layer}.largest"])) for layer in layers
    }


def read_texts(source: str, rows: int, *, seed: int = 0) -> list[str]:
    """Returns some texts of a .txt file (one on each line), or of tagged data's training split.

    Raises:
      ValueError: nothing there, or the data cannot be read.
    """
    path = Path(source).expanduser()
    if path.suffix == ".txt":
        if not path.is_file():
            raise ValueError(f"{path} is no file; expected texts, one on each line")
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        texts = [line for line in lines if line.strip()]
    else:
        texts = [" ".join(sentence.words) for sentence in read_tagged(source)[0]["train"]]
    return choose(texts, rows, np.random.default_rng(seed))
