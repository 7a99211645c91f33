# SPDX-License-Identifier: Apache-2.0
"""What the parts of a field day share: their command line, their sizes, and figures on disk.

Each part is a script of its own, `python -m benchmarks.field_NAME --out FIGURES ...`. It writes its
figures anew whenever there is one more, so that a part that is stopped keeps what it had. Needs no
jax.
"""

import argparse
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from edad_jax.files import read_json_or_none, write_json

ROOT = Path(__file__).resolve().parents[1]
TEACHER = (12, 768, 12, 3072)  # layers, width, heads, feed-forward width: BERT-base
LOOK_SECONDS = 0.5  # between two looks at what another process does
_TINY_TEACHER = (2, 24, 3, 40)
TINY = {  # of a rehearsal: the sizes of tests/tiny_run.py
    "batch_size": 4,
    "rows.max_length": 32,
    "rows.workers": 1,
    "vocabulary.size": 20,
    "masking.max_predictions_per_seq": 5,
    "heldout.fraction": 0.2,
    "heldout.max_rows": 8,
    "teacher.extension.hidden_size": 12,
    "teacher.extension.intermediate_size": 16,
    "teacher.extension.num_attention_heads": 3,
    "student.num_hidden_layers": 1,
    "student.hidden_size": 12,
    "student.num_attention_heads": 3,
    "student.intermediate_size": 20,
    "student.max_position_embeddings": 40,
    "student.extension.hidden_size": 6,
    "student.extension.intermediate_size": 8,
    "student.extension.num_attention_heads": 3,
}


class Place(NamedTuple):
    """What a part is told."""

    out: Path  # its figures
    work: Path  # folder of all parts: their figures, what they train
    pack: Path  # what travelled, unpacked: rows/, teacher/, ner/
    seconds: float  # until it is stopped
    is_rehearsal: bool  # on a CPU, with tiny sizes

    @property
    def seconds_left(self) -> float:
        """Returns the seconds until it is stopped; one that waits for its turn has them all."""
        turn = self.out.with_suffix(".go")
        try:
            return turn.stat().st_mtime + float(turn.read_text()) - time.time()
        except (FileNotFoundError, ValueError):  # ValueError: it is just being written
            return self.seconds

    @property
    def xla_flags(self) -> str:
        """Returns what XLA had to be told on this device, as the part `steps` found out."""
        steps = read_json_or_none(self.figures_of("steps")) or {}
        return steps.get("EDAD", {}).get("xla_flags", "")

    def figures_of(self, part: str) -> Path:
        """Returns where another part's figures are."""
        return self.work / f"{part}.json"


def read_place(description: str | None, arguments: list[str] | None = None) -> Place:
    """Returns what the command line of a part says."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the figures")
    parser.add_argument("--work", type=Path, required=True, help="folder that all parts share")
    parser.add_argument("--pack", type=Path, required=True, help="what travelled, unpacked")
    parser.add_argument("--seconds", type=float, default=600.0, help="until it is stopped")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on a CPU")
    given = parser.parse_args(arguments)
    return Place(given.out, given.work, given.pack, given.seconds, given.rehearse)


def wait_for_go(out: Path) -> None:
    """Returns when it is the turn of the part whose figures go to `out`."""
    while not out.with_suffix(".go").exists():
        time.sleep(LOOK_SECONDS)


class Figures:
    """Figures by name, on disk as soon as there is one more."""

    def __init__(self, path: Path):
        self._path = path
        self._values: dict[str, Any] = {}

    def put(self, name: str, value: Any) -> None:
        self._values[name] = value
        write_json(self._path, self._values)
        print(f"{name}: {str(value)[:300]}", flush=True)

    @property
    def names(self) -> list[str]:
        return list(self._values)

    def get(self, name: str) -> Any:
        return self._values[name]

    def attempt(self, name: str, measure: Callable[[], Any]) -> bool:
        """Puts what measure() returns, or why it did not; returns whether it did."""
        try:
            value = measure()
        except Exception as error:  # whatever it is, the next figure can be had without this one
            traceback.print_exc()
            self.put(name, {"reason": f"{type(error).__name__}: {error}"[:2_000]})
            return False
        self.put(name, value)
        return True


def paper_config(is_rehearsal: bool, **changes: Any):
    """Returns configs/edad.py, shrunk for a rehearsal; "__" in a name stands for a dot."""
    from configs import edad

    config = edad.get_config()
    wanted = (TINY if is_rehearsal else {}) | {
        name.replace("__", "."): value for name, value in changes.items()
    }
    with config.unlocked():
        config.update_from_flattened_dict(wanted)
    return config


def teacher_sizes(is_rehearsal: bool) -> tuple[int, ...]:
    """Returns the sizes of a teacher with random weights."""
    return _TINY_TEACHER if is_rehearsal else TEACHER


def base_words(is_rehearsal: bool) -> int:
    """Returns the words of the original BERT."""
    return 1_000 if is_rehearsal else 30_522


def with_flags(flags: str) -> dict[str, str]:
    """Returns this process's environment with more flags for XLA."""
    return {**os.environ, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()}
