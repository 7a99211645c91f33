# SPDX-License-Identifier: Apache-2.0
"""EDAD against two stages on domain text: as many pieces as fit, in the same time.

How many updates that is, is reckoned from what the part `steps` measured. The three trainings are
the real ones (`edad_jax.distillation.train`). All compile at once, each in a process of its own
that waits after its first update; then they train one after the other: adaptation, EDAD, and
distillation, which can only start once the adapted teacher is there and does so beside EDAD's
updates, its program compiled by then.

Both students have the paper's sizes and begin alike, with what fits of their teacher's layers.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.field_part import (
    LOOK_SECONDS,
    ROOT,
    Figures,
    Place,
    paper_config,
    read_place,
    with_flags,
)
from edad_jax.files import read_json, read_json_or_none, write_json

START_SECONDS = 45  # of a training, without compiling: imports, weights, tracing
COMPILE_SECONDS = 75  # of a step, where the part `steps` compiled none
LEAVE_SECONDS = 40  # to measure and write what a training leaves, both ways together
_SHARE = 0.9  # of the time that is left, for updates
# Of an update, where the part `steps` measured none: the order of magnitude on an H100.
ASSUMED = {"EDAD": 0.060, "adaptation": 0.050, "distillation": 0.030}
_STUDENT = {
    "teacher__added_word_init": "pieces",  # so little text hardly meets a word that is random
    "student__init": "teacher",
    "student__inherit__width": "energetic",
    "student__inherit__feed_forward": "largest",
}


def main() -> None:
    """Trains both ways; what is done is in the figures as soon as it is."""
    if sys.argv[1:2] == ["--run"]:
        train_gated(json.loads(sys.argv[2]))
        return
    place = read_place(__doc__)
    figures = Figures(place.out)
    plan = plan_updates(place)
    figures.put("plan", plan)
    folder, teacher = place.work / "train", str(place.pack / "teacher")
    flags = place.xla_flags
    runs = {
        name: _Run(
            name, method, plan["updates"][method_name(method)], teacher, folder, place, flags
        )
        for name, method in (
            ("EDAD", "edad"),
            ("adaptation", "adaptation"),
            ("warm", "distillation"),  # leaves its program compiled, and is not needed after that
        )
    }
    try:
        for name in ("adaptation", "EDAD"):
            runs[name].wait_until("ready")
        runs["warm"].wait_until("ready", may_fail=True)
        runs["warm"].stop()
        runs["adaptation"].train()
        figures.put("adaptation", runs["adaptation"].result())
        adapted = str(folder / "adaptation" / "teacher")
        distillation = runs["distillation"] = _Run(
            "distillation",
            "distillation",
            plan["updates"]["distillation"],
            adapted,
            folder,
            place,
            flags,
        )
        runs["EDAD"].train()
        figures.put("EDAD", runs["EDAD"].result())
        distillation.wait_until("ready")
        distillation.train()
        figures.put("distillation", distillation.result())
    finally:
        for run in runs.values():
            run.stop()


def plan_updates(place: Place) -> dict:
    """Returns how many updates each training has, so that both ways take the same time.

    Returns:
      {"seconds": of each way's updates, "seconds_an_update": by step, "measured": whether they
      were, "updates": by training, "rows"}
    """
    steps = read_json_or_none(place.figures_of("steps")) or {}
    took = {name: steps.get(name, {}).get("seconds_in_a_row") for name in ASSUMED}
    is_measured = all(took.values())
    if not is_measured:
        took = ASSUMED
    compiled = [steps.get(name, {}).get("compile_seconds") or COMPILE_SECONDS for name in ASSUMED]
    room = place.seconds - START_SECONDS - 1.2 * max(compiled) - LEAVE_SECONDS
    seconds = max(10.0, _SHARE * room / 2)
    edad = max(3, int(seconds / took["EDAD"]))
    two = max(3, int(seconds / (took["adaptation"] + took["distillation"])))
    if place.is_rehearsal:
        edad, two = 8, 6
    return {
        "seconds": seconds,
        "seconds_an_update": took,
        "measured": is_measured,
        "updates": {"EDAD": edad, "adaptation": two, "distillation": two},
        "rows": paper_config(place.is_rehearsal).batch_size,
    }


def method_name(method: str) -> str:
    """Returns what the plan calls a method's training."""
    return "EDAD" if method == "edad" else method


class _Run:
    """A training in a process of its own, which waits after its first update."""

    def __init__(self, name, method, updates, teacher, folder, place, flags):
        self._folder = folder / name
        self._folder.mkdir(parents=True, exist_ok=True)
        for word in ("ready", "go"):
            (self._folder / word).unlink(missing_ok=True)
        job = {
            "name": name,
            "method": method,
            "updates": updates,
            "teacher": teacher,
            "rows": str(place.pack / "rows"),
            "folder": str(self._folder),
            "is_rehearsal": place.is_rehearsal,
        }
        self._log = self._folder / "log.txt"
        with open(self._log, "w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.field_train", "--run", json.dumps(job)],
                cwd=ROOT,
                env=with_flags(flags),
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_until(self, word: str, *, may_fail: bool = False) -> None:
        while not (self._folder / word).exists():
            if self._process.poll() is not None:
                if may_fail:
                    return
                self._fail()
            time.sleep(LOOK_SECONDS / 5)

    def train(self) -> None:
        """Lets it go on, and returns when it has left its nets."""
        (self._folder / "go").touch()
        if self._process.wait():
            self._fail()

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def result(self) -> dict:
        return read_json(self._folder / "field.json", expected="what the training left")

    def _fail(self):
        said = self._log.read_text(encoding="utf-8", errors="replace").strip()[-1_500:]
        raise SystemExit(f"{self._folder.name} ended with {self._process.returncode}: {said}")


def train_gated(job: dict) -> None:
    """Trains, but waits with the second update for FOLDER/go; leaves FOLDER/field.json."""
    from edad_jax.distillation import build, settings
    from edad_jax.distillation import train as module

    folder = Path(job["folder"])
    config = training_config(job)
    if job["name"] == "warm":  # random blocks and words will do to compile a distillation
        for checks in (build, settings):
            checks.check_frozen_teacher = lambda *arguments, **named: None
    times: dict[int, float] = {}
    make = module.make_batch_at

    def make_gated(rows, **named):
        batch_at = make(rows, **named)

        def gated(number):
            if number == 1:  # the first update has compiled the step
                (folder / "ready").touch()
                while not (folder / "go").exists():
                    time.sleep(LOOK_SECONDS / 10)
            times[number] = time.perf_counter()
            return batch_at(number)

        return gated

    module.make_batch_at = make_gated
    summary = module.train(config, str(folder))
    first, last = 1, max(times)
    per_update = (times[last] - times[first]) / max(1, last - first)
    rows = config.batch_size * config.rows.max_length
    result = {
        "method": job["method"],
        "updates": summary["steps"],
        "pieces": summary["steps"] * rows,
        "seconds": per_update * summary["steps"],
        "seconds_an_update": per_update,
        "tokens_per_second": rows / per_update,
        "heldout": {kind: summary["heldout"][kind] for kind in ("start", "end")},
        "nets": summary["nets"],
        "data": summary["data"]["rows"]["train"],
    }
    write_json(folder / "field.json", result)


def training_config(job: dict):
    """Returns the configuration of one of the trainings."""
    return paper_config(
        job["is_rehearsal"],
        **_STUDENT,
        method=job["method"],
        prepared=job["rows"],
        teacher__checkpoint=job["teacher"],
        teacher__random_heads=missing_heads(Path(job["teacher"])),
        max_steps=job["updates"],
        heldout__every_steps=job["updates"],
        checkpoint__every_steps=job["updates"],
        progress=False,
    )


def missing_heads(teacher: Path) -> tuple[str, ...]:
    """Returns the heads that a checkpoint in Hugging Face layout has no tensors of."""
    from safetensors import safe_open

    with safe_open(teacher / "model.safetensors", framework="numpy") as file:
        names = " ".join(file.keys())
    marks = {"mlm": "predictions", "nsp": "seq_relationship", "pooler": "pooler"}
    return tuple(head for head, mark in marks.items() if mark not in names)


if __name__ == "__main__":
    main()
