# SPDX-License-Identifier: Apache-2.0
"""Fine-tunes the students of both ways on named entities, five seeds as one batch axis.

All runs go at once: they are small, most of their time is compiling, and nothing is timed here but
each run as a whole. One that does not end in time costs only itself.
"""

import subprocess
import sys
import time

from benchmarks.field_part import LOOK_SECONDS, ROOT, Figures, read_place, with_flags
from edad_jax.files import read_json

SETS = ("NCBI-disease-IOB", "BC5CDR-IOB", "BioNLP09-IOB")
STUDENTS = {"EDAD": "EDAD/student", "two stages": "distillation/student"}
EPOCHS, SEEDS, LEARNING_RATE = 6, 5, 2e-4


def main() -> None:
    """Runs each student on each set."""
    place = read_place(__doc__)
    figures = Figures(place.out)
    students = {
        name: place.work / "train" / folder
        for name, folder in STUDENTS.items()
        if (place.work / "train" / folder / "config.json").is_file()
    }
    if not students:
        sys.exit("the part train left no student to fine-tune")
    sets = [name for name in SETS if (place.pack / "ner" / name).is_dir()]
    if not sets:
        sys.exit(f"got no data set in {place.pack / 'ner'}, expected {', '.join(SETS)}")
    running = {}
    for data in sets[:1] if place.is_rehearsal else sets:
        for student, model in students.items():
            workdir = place.work / "finetune" / f"{student.replace(' ', '-')}-{data}"
            running[f"{student}, {data}"] = (_start(place, model, data, workdir), workdir)
    begun = time.monotonic()
    try:
        while running:
            for name, (process, workdir) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[name]
                took = time.monotonic() - begun
                figures.attempt(name, lambda folder=workdir, took=took: _result(folder, took))
            time.sleep(LOOK_SECONDS)
    finally:
        for process, _ in running.values():
            process.kill()
    if any("reason" in figures.get(name) for name in figures.names):
        sys.exit("not all runs ended well")


def _start(place, model, data, workdir):
    workdir.mkdir(parents=True, exist_ok=True)
    words = [
        *(sys.executable, "launch/finetune.py", "--config=configs/ner.py"),
        *(f"--config.model={model}", f"--config.data={place.pack / 'ner' / data}"),
        *(f"--config.num_seeds={SEEDS}", "--config.over_seeds=vmap", "--noconfig.progress"),
        f"--config.epochs={1 if place.is_rehearsal else EPOCHS}",
        f"--config.optimizer.learning_rate={LEARNING_RATE}",
        *(("--config.max_length=32", "--config.batch_size=4") if place.is_rehearsal else ()),
        *(("--config.max_train=8", "--config.max_test=8") if place.is_rehearsal else ()),
        f"--workdir={workdir}",
    ]
    with open(f"{workdir}.log", "w", encoding="utf-8") as log:
        return subprocess.Popen(
            words, cwd=ROOT, env=with_flags(place.xla_flags), stdout=log, stderr=subprocess.STDOUT
        )


def _result(workdir, took):
    if not (workdir / "summary.json").is_file():
        with open(f"{workdir}.log", encoding="utf-8", errors="replace") as log:
            raise ValueError(log.read().strip()[-1_000:])
    summary = read_json(workdir / "summary.json", expected="what fine-tuning left")
    kept = ("seeds", "time_cost", "examples", "epochs", "notes")
    return {key: summary[key] for key in kept if key in summary} | {"seconds": took}


if __name__ == "__main__":
    main()
