# SPDX-License-Identifier: Apache-2.0
"""Whether an exported model says what the trained one says."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
from tqdm import tqdm

from edad_jax.export import formats
from edad_jax.export.graph import INPUTS
from edad_jax.export.layouts import SENTENCES
from edad_jax.runtime import models

# Rows are padded to these for Flax: each is compiled, and half of random rows are beyond 256.
LENGTHS = (8, 32, 64, 128, 192, 256, 384, 512)
ROWS = 32  # a FlaxSession reads a multiple of these, for the same reason


def largest_difference(
    model: formats.Model,
    format_name: str,
    folder: str | Path,
    *,
    rows: int = 1_000,
    batch_size: int = 8,
    seed: int = 0,
    relative: bool = False,
    progress: bool = True,
) -> float:
    """Returns the largest difference of any output number on random rows, padding aside.

    Args:
      model: the trained one, run by Flax in float32.
      format_name: of the exported one.
      folder: where that is.
      rows: random rows, of 1 to 512 pieces (or as many as the model has positions).
      batch_size: rows that are run together.
      seed: of the rows.
      relative: to the largest number of the trained model's, where that is more than 1: float32
        has seven digits.
      progress: whether to show a bar.
    """
    random = np.random.default_rng(seed)
    limit = min(512, model.config.base.max_position_embeddings)
    lengths = np.sort(random.integers(1, limit + 1, rows))
    trained = compiled(model)
    exported = open_export(model, format_name, Path(folder))
    largest, most = 0.0, 1.0
    bar = tqdm(total=rows, unit="row", desc="comparing", disable=not progress)
    for start in range(0, rows, batch_size):
        sizes = lengths[start : start + batch_size]
        padded = next(length for length in LENGTHS if length >= sizes[-1])
        shape = (len(sizes), min(padded, limit))
        ids = random.integers(0, model.config.vocab_size, shape).astype(np.int32)
        mask = (np.arange(shape[1]) < sizes[:, None]).astype(np.int32)
        kinds = max(1, model.config.base.type_vocab_size)  # 0: the model does not read them
        segments = random.integers(0, kinds, shape).astype(np.int32)
        outputs = zip(
            formats.output_names(model),
            trained(ids, mask, segments),
            exported(ids, mask, segments),
            strict=True,
        )
        for name, expected, got in outputs:
            expected, got = np.asarray(expected), np.asarray(got)
            if is_of_texts(model, name):
                difference = np.abs(expected - got)
            else:
                is_piece = mask[:, : got.shape[1]] != 0  # padding aside
                difference = np.abs(expected[:, : got.shape[1]] - got)[is_piece]
            largest = float(np.maximum(largest, difference.max()))  # NaN stays
            most = max(most, float(np.abs(expected).max()))
        bar.update(len(sizes))
    bar.close()
    return largest / most if relative else largest


def compiled(model: formats.Model) -> Callable[..., Any]:
    """Returns the trained model, run by Flax, as a function of ids, mask and segments.

    Weights are arguments of what is compiled: as its constants they are looked at for every length.
    """
    params = jax.tree.map(jnp.asarray, model.params)

    def forward(params, *inputs):
        with jax.default_matmul_precision("highest"):  # accelerators round products else
            return formats.forward(model, params, *inputs)

    forward = jax.jit(forward)
    return lambda *inputs: forward(params, *inputs)


def open_export(model: formats.Model, format_name: str, folder: Path) -> Callable[..., Any]:
    """Returns the exported model as a function of ids, mask and segments.

    An ONNX file reads rows up to the end of the longest, and gives as much of them.
    """
    if format_name in ("hf", SENTENCES):
        return compiled(formats.load(str(folder)))
    if format_name == "stablehlo":
        program = jax.export.deserialize(bytearray((folder / formats.STABLEHLO_FILE).read_bytes()))
        return lambda *inputs: program.call(*map(jnp.asarray, inputs))
    session = onnxruntime.InferenceSession(
        str(folder / models.MODEL_FILE), providers=["CPUExecutionProvider"]
    )
    names = formats.output_names(model)

    def run(*inputs):
        longest = int(inputs[1].sum(axis=1).max())
        return session.run(
            names,
            {
                name: values[:, :longest].astype(np.int64)
                for name, values in zip(INPUTS, inputs, strict=True)
            },
        )

    return run


class FlaxSession:
    """Runs Flax where the runtime runs onnxruntime; few shapes, since each is compiled.

    Args:
      model: the trained one.
    """

    def __init__(self, model: formats.Model):
        self._model, self._forward = model, compiled(model)
        self._longest = model.config.base.max_position_embeddings

    def run(self, names: Sequence[str], inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Returns the named outputs, as onnxruntime does."""
        rows, length = inputs["input_ids"].shape
        longest = min(next((each for each in LENGTHS if each >= length), length), self._longest)
        shape = ((0, -rows % ROWS), (0, longest - length))
        ids, mask, segments = (np.pad(inputs[name], shape).astype(np.int32) for name in INPUTS)
        values = self._forward(ids, mask, segments)
        outputs = dict(zip(formats.output_names(self._model), values, strict=True))
        found = {name: np.asarray(outputs[name])[:rows] for name in names}
        return [
            value if is_of_texts(self._model, name) else value[:, :length]
            for name, value in found.items()
        ]


def is_of_texts(model: formats.Model, output: str) -> bool:
    """Returns whether an output is one for each row, and not for each of its pieces."""
    is_classifier = model.task is not None and model.task.kind == "classification"
    return is_classifier or output == "pooler_output"
