# SPDX-License-Identifier: Apache-2.0
"""The torch peer, tuned, on the same device: benchmarks/torch_step.py with the paper's sizes."""

import importlib.util
import subprocess
import sys

from benchmarks.field_part import ROOT, TINY, Figures, read_place, teacher_sizes
from edad_jax.files import read_json


def main() -> None:
    """Times the peer's updates, one method after the other: what is stopped keeps the first."""
    place = read_place(__doc__)
    figures = Figures(place.out)
    if importlib.util.find_spec("torch") is None:
        sys.exit("torch is not installed here: nothing to compare with")
    sizes = TINY if place.is_rehearsal else {}
    path = place.work / "torch-step.json"
    for method in ("edad", "adaptation", "distillation"):
        path.unlink(missing_ok=True)
        words = [
            *(sys.executable, "benchmarks/torch_step.py", "--config=configs/edad.py"),
            f"--teacher={','.join(map(str, teacher_sizes(place.is_rehearsal)))}",
            *("--modes=tuned", f"--methods={method}", f"--out={path}"),
            f"--repeats={2 if place.is_rehearsal else 10}",
            *(f"--config.{name}={value}" for name, value in sizes.items()),
        ]
        subprocess.run(words, cwd=ROOT, check=True)
        figures.put(method, read_json(path, expected="what the torch peer measured"))


if __name__ == "__main__":
    main()
