# SPDX-License-Identifier: Apache-2.0
"""What the corruption campaign damages: files as the commands write them, and how they are read."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from edad_jax.data.batches import Rows
from edad_jax.data.prepare import prepare_folder
from edad_jax.data.shards import Shard
from edad_jax.data.stages import recorded_facts
from edad_jax.data.tokenizer import load_tokenizer
from edad_jax.export import formats
from edad_jax.models import pretrained
from edad_jax.runtime.models import open_model
from edad_jax.training.checkpoint import Checkpointer

STEPS = (4, 8)  # of the two checkpoints
_TEXTS = ("dopamine acts in the cortex", "the cell 안녕")


class Target:
    """Files, and what reading them gives while they are whole.

    Attributes:
      name: of the kind.
      share: of the trials, against the others'.
      files: which are damaged.
    """

    def __init__(self, name: str, share: int, files: list[Path], read: Callable[[], Any]) -> None:
        """Reads once; `read` returns something that can be compared by ==."""
        self.name, self.share, self.files, self._read = name, share, files, read
        self._expected = read()
        if read() != self._expected:
            raise ValueError(f"{name}: reading twice gives two results; it cannot be compared")

    def outcome(self, path: Path) -> str:
        """Returns what reading comes to while this file is damaged."""
        try:
            got = self._read()
        except (ValueError, OSError) as error:
            told = str(error)
            if path.name in told or str(path.parent) in told:
                return "named"
            return f"not named: {told[:200]}"
        except Exception as error:
            return f"{type(error).__name__}: {str(error)[:200]}"
        return "no effect" if got == self._expected else self._unlike(path)

    def _unlike(self, path: Path) -> str:
        return "silently something else"


class Checkpoints(Target):
    """Two checkpoints of a run; a damaged newest one must give way to the one before."""

    def __init__(self, folder: Path, checkpoints: Checkpointer, abstract: Any) -> None:
        self._checkpoints, self._folder = checkpoints, folder
        self._abstract = abstract
        self._older = digest_tree(checkpoints.restore(abstract)[1])
        checkpoints.save(STEPS[1], make_state(STEPS[1]))
        checkpoints.wait()
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        super().__init__("checkpoints", 6, files, self._restore)

    def _restore(self) -> tuple[int, list]:
        step, state = self._checkpoints.restore(self._abstract)
        return step, digest_tree(state)

    def _unlike(self, path: Path) -> str:
        step = path.stem if path.parent.name == "checksums" else _step_of(path, self._folder)
        told = " ".join(self._checkpoints.messages)
        if self._restore() != (STEPS[0], self._older) or step != str(STEPS[1]):
            return "silently something else"
        return "last good" if f"{self._folder / step}" in told or str(path) in told else "not named"


class ShardCounts(Target):
    """The counts beside a shard of rows, which an interrupted preparation goes on from."""

    def _unlike(self, path: Path) -> str:
        return "made again" if self._read() == [] else "silently something else"


@contextlib.contextmanager
def make_targets(folder: Path) -> Iterator[list[Target]]:
    """Yields all targets; their files are in the folder."""
    from tests import tiny_exports, tiny_run
    from tests.tiny_text import write_tokenizer

    inputs = tiny_run.make_inputs(folder / "inputs")
    config = tiny_run.tiny_config(inputs)
    prepared = folder / "prepared"
    prepare_folder(config, prepared)
    words = write_tokenizer(folder / "words")
    tiny_exports.save(folder / "model", words, "tagging")
    onnx = formats.export(formats.load(str(folder / "model")), "onnx-int8", folder / "onnx")
    rows = prepared / "rows"
    checkpoints = folder / "checkpoints"
    with Checkpointer(checkpoints, keep=len(STEPS)) as checkpointer:
        checkpointer.save(STEPS[0], make_state(STEPS[0]))
        checkpointer.wait()
        yield [
            Checkpoints(checkpoints, checkpointer, make_state(0)),
            Target(
                "rows",
                5,
                [
                    *(path for name in ("train", "heldout") for path in _files(rows / name, "npy")),
                    *(rows / name / "manifest.json" for name in ("train", "heldout")),
                    prepared / "rows.stage.json",
                ],
                lambda: _read_rows(prepared),
            ),
            ShardCounts(
                "counts of shards",
                1,
                _files(rows / "train", "npy") + [rows / "train" / "rows-00000.json"],
                lambda: _read_shard(rows / "train"),
            ),
            Target(
                "vocabulary",
                3,
                [*_files(prepared / "vocabulary"), prepared / "vocabulary.stage.json"],
                lambda: _read_vocabulary(prepared),
            ),
            Target("Hugging Face layout", 3, _files(folder / "model"), _reader(folder / "model")),
            Target("ONNX", 2, _files(onnx), lambda: _run_onnx(onnx)),
        ]


def make_state(step: int) -> dict[str, Any]:
    """Returns a small state of several arrays, of more than one type."""
    random = np.random.default_rng(step)
    return {
        "step": jax.numpy.int32(step),
        "params": {"kernel": jax.numpy.asarray(random.normal(size=(32, 32)), np.float32)},
        "opt_state": {"mu": jax.numpy.asarray(random.normal(size=64), jax.numpy.bfloat16)},
    }


def digest_tree(tree: Any) -> list[tuple]:
    """Returns what two trees of the same bits share."""
    return [
        (str(path), str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes())
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def _files(folder: Path, ending: str = "*") -> list[Path]:
    """Returns the files of a folder but the model's card, which nothing reads."""
    return [
        path
        for path in sorted(folder.glob(f"*.{ending}" if ending != "*" else "*"))
        if path.is_file() and path.name != "README.md"
    ]


def _step_of(path: Path, folder: Path) -> str:
    return path.relative_to(folder).parts[0]


def _read_rows(prepared: Path) -> list:
    found = [recorded_facts(prepared / "rows")]
    for name in ("train", "heldout"):
        rows = Rows(prepared / "rows" / name)
        rows.verify()
        told = {key: rows.manifest.get(key) for key in ("mode", "rows", "tokens", "random_next")}
        found.append((rows.max_length, told, rows[np.arange(len(rows))].tobytes()))
    return found


def _read_shard(folder: Path) -> list:
    there = Shard(folder, 0).there
    return [(digest, counts, rows.tobytes()) for digest, (counts, rows) in there.items()]


def _read_vocabulary(prepared: Path) -> list:
    facts = recorded_facts(prepared / "vocabulary")
    return [facts, *_read_tokenizer(prepared / "vocabulary")]


def _read_tokenizer(folder: Path) -> list:
    tokenizer = load_tokenizer(folder)
    specials = [tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id]
    return [tokenizer.backend_tokenizer.to_str(), specials, tokenizer(list(_TEXTS))["input_ids"]]


def _reader(folder: Path) -> Callable[[], list]:
    def read():
        sizes, params, task = pretrained.load_task_model(folder)
        return [str(sizes), digest_tree(params), task, *_read_tokenizer(folder)]

    return read


def _run_onnx(folder: Path) -> list:
    model = open_model(folder)
    config = {key: value for key, value in model.config.items() if key != "architectures"}
    return [json.dumps(config, sort_keys=True), [str(said) for said in model(_TEXTS)]]
