# SPDX-License-Identifier: Apache-2.0
"""An exported model: its folder, its session, and texts as the pieces that it reads.

numpy, onnxruntime and tokenizers alone.
"""

import abc
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import tokenizers

from edad_jax.runtime import answers, windows
from edad_jax.runtime.readings import Reading, Row, rows_of_text

MODEL_FILE = "model.onnx"
_ROLES = ("cls", "sep", "unk")
_READ = ("hidden_size", "max_position_embeddings", "tokenizer_sha256", "vocab_size")


class ExportedModel(abc.ABC):
    """A session, its tokenizer and its windows; what all kinds of model share.

    Args:
      directory: what launch/export.py wrote with --format onnx or onnx-int8.
      batch_size: windows that the net reads at once.
      max_length: pieces of a window, [CLS] and [SEP] included; 0 for 128, or as many as the
        model has positions (a Scorer 512, an Encoder as its own files say).
      overlap: pieces that neighbouring windows share; None for a quarter of them.
      threads: of a product; 0 for as many as there are cores.

    Raises:
      ValueError: a file is missing, damaged or does not fit the others; the model does another
        task, or a tagger's labels are not those of entities; the windows are longer than the
        model's positions.
    """

    architecture = ""  # how the class's name ends in config.json
    outputs = ("logits",)
    usual_length = 128  # pieces of a window where none is given

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        batch_size: int = 32,
        max_length: int = 0,
        overlap: int | None = None,
        threads: int = 0,
    ):
        directory = Path(directory).expanduser()
        self.config = read_config(directory)
        architectures = self.config.get("architectures") or [""]
        if not architectures[0].endswith(self.architecture):
            raise ValueError(
                f"{directory} has a {architectures[0]}, {type(self).__name__} expected one that "
                f"ends in {self.architecture}"
            )
        limit = self.config["max_position_embeddings"]
        max_length = max_length or min(self.usual_length, limit)
        overlap = max_length // 4 if overlap is None else overlap
        if not 4 <= max_length <= limit or not 0 <= overlap < max_length - 2 or batch_size < 1:
            raise ValueError(
                f"got max_length={max_length}, overlap={overlap}, batch_size={batch_size}; "
                f"expected max_length from 4 to {limit}, a smaller overlap, a batch of 1 or more"
            )
        self.batch_size, self.max_length, self.overlap = batch_size, max_length, overlap
        self._tokenizer = _read_tokenizer(directory, self.config)
        cls, sep, self._unknown = _read_specials(directory, self._tokenizer)
        self.ends = cls, sep
        self.session = _open(directory, threads)
        shapes = {output.name: output.shape for output in self.session.get_outputs()}
        _check_outputs(directory, shapes, self.outputs, self.config)

    def __call__(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yields what the model makes of each item; memory does not grow with their number."""
        for chunk in windows.chunks(items):
            readings = [self.begin(item) for item in chunk]
            self.read(readings)
            yield from (reading.result() for reading in readings)

    @abc.abstractmethod
    def begin(self, item: Any) -> Reading:
        """Returns an item under way: tokenised, and none of its rows read."""

    def read(self, readings: Iterable[Reading]) -> None:
        """Reads all rows of all readings, short ones first, so that there is little padding."""
        rows = [(reading, row) for reading in readings for row in reading.rows]
        rows.sort(key=lambda pair: len(pair[1].ids))
        for start in range(0, len(rows), self.batch_size):
            self.read_batch(rows[start : start + self.batch_size])

    def read_batch(self, rows: Sequence[tuple[Reading, Row]]) -> None:
        """Runs the net once, on these rows of some readings, which take what it says."""
        inputs = windows.feed([row.ids for _, row in rows], [row.second for _, row in rows])
        outputs = self.session.run(list(self.outputs), inputs)
        for number, (reading, row) in enumerate(rows):
            reading.take(row, *(output[number] for output in outputs))

    def tokenize(self, text: str) -> windows.Pieces:
        """Returns the pieces of a text; see `windows.tokenize`."""
        return windows.tokenize(self._tokenizer, text)

    def rows_of(self, ids: np.ndarray) -> list[Row]:
        """Returns the rows of a text of these pieces."""
        return rows_of_text(ids, self.ends, self.max_length, self.overlap)

    def _lay_out(self, first, second, most):
        """Returns (pieces of the first of two texts that are read, windows of the second)."""
        return answers.lay_out(
            first,
            len(second),
            max_length=self.max_length,
            max_query_length=most,
            overlap=self.overlap,
        )


def read_config(directory: Path) -> dict[str, Any]:
    """Returns what config.json says of a model; ValueError where a file lacks or is damaged."""
    for name in (MODEL_FILE, "config.json", "tokenizer.json"):
        if not (directory / name).is_file():
            raise ValueError(
                f"{directory} lacks {name}; expected what launch/export.py --format onnx writes"
            )
    _check_sums(directory)
    path = directory / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        missing = set(_READ) - set(config)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}; export the model again") from error
    if missing:
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}; export the model again")
    return config


def _check_sums(directory):
    """Raises ValueError where a file is another than its checksum in SHA256SUMS says, if it does.

    A bit that has flipped in the weights would give other answers, and nothing would fail.
    """
    path = directory / "SHA256SUMS"
    if not path.is_file():
        return  # exported by a version that wrote none
    said = dict(reversed(line.split("  ", 1)) for line in _sums_lines(path))
    for name in (MODEL_FILE, "config.json", "tokenizer.json"):
        with open(directory / name, "rb") as file:
            got = hashlib.file_digest(file, "sha256").hexdigest()
        if name in said and got != said[name]:
            raise ValueError(
                f"{directory / name} has the SHA-256 {got}, {path.name} says {said[name]}: the "
                "file is damaged, or was changed; export the model again, or, if it was you who "
                f"changed it, delete {path}"
            )


def _sums_lines(path):
    lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    if wrong := [line for line in lines if line.find("  ") != 64]:
        raise ValueError(f"{path}: got {wrong[0]!r}, expected checksums; export the model again")
    return lines


def _read_tokenizer(directory, config):
    path = directory / "tokenizer.json"
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing more definite
        raise ValueError(f"{path}: {error}; export the model again") from error
    got, expected = tokenizer.get_vocab_size(), config["vocab_size"]
    if got != expected:
        raise ValueError(
            f"{path} has {got} pieces, the model {expected}: "
            "it belongs to another model; export this one again"
        )
    # The size says little: students of one recipe have as many pieces, whatever their corpus.
    got, expected = hashlib.sha256(path.read_bytes()).hexdigest(), config["tokenizer_sha256"]
    if got != expected:
        raise ValueError(
            f"{path} has the SHA-256 {got}, config.json says {expected}: "
            "it belongs to another model; export this one again"
        )
    return windows.read_all(tokenizer)


def _read_specials(directory, tokenizer):
    """Returns the ids of [CLS], [SEP] and [UNK], whatever the tokenizer calls them."""
    path = directory / "tokenizer_config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        named = {role: settings.get(f"{role}_token", f"[{role.upper()}]") for role in _ROLES}
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path}: {error}; export the model again") from error
    ids = []
    for role, name in named.items():
        name = name.get("content") if isinstance(name, dict) else name
        ids.append(tokenizer.token_to_id(str(name)))
        if ids[-1] is None:
            raise ValueError(
                f"{directory}/tokenizer.json lacks {name}, which is its {role}_token; export the "
                "model again"
            )
    return ids


def _open(directory, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            str(directory / MODEL_FILE), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's own kinds have no common parent
        raise ValueError(
            f"{directory / MODEL_FILE}: onnxruntime cannot read it ({error}); "
            "export the model again"
        ) from error


def _check_outputs(directory, shapes, wanted, config):
    if not set(wanted) <= set(shapes):
        raise ValueError(
            f"{directory}/{MODEL_FILE} gives {list(shapes)}, expected {list(wanted)}; "
            "export the model again"
        )
    widths = {
        "logits": len(config.get("id2label", {})),
        "last_hidden_state": config["hidden_size"],
    }
    for name in wanted:
        width = shapes[name][-1]  # a text where the file leaves it open
        if isinstance(width, int) and width != widths.get(name, width):
            raise ValueError(
                f"{directory}/{MODEL_FILE} gives {width} numbers as {name}, config.json says "
                f"{widths[name]}: one of them belongs to another model; export this one again"
            )


def read_labels(config: dict[str, Any]) -> list[str]:
    """Returns the names of a classifier's or tagger's labels by number."""
    named = {int(number): label for number, label in config.get("id2label", {}).items()}
    if not named or sorted(named) != list(range(len(named))):
        raise ValueError(f"config.json says id2label={named}, expected names from number 0 on")
    return [named[number] for number in range(len(named))]
