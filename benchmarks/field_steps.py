# SPDX-License-Identifier: Apache-2.0
"""Steps on the device: batches, attention, the two stages, each beside its forecast; a profile.

Compiling takes a processor minutes where a step takes a device milliseconds. So every step has a
process of its own, several compile at once, read the compiled program by the roofline of
launch/compile.py, and wait; then they are timed one after the other, alone on the device.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.field_part import (
    ROOT,
    Figures,
    Place,
    base_words,
    paper_config,
    read_place,
    teacher_sizes,
    wait_for_go,
    with_flags,
)

# What XLA says where its own kernels of this kind find no tile sizes; cuBLAS's take their place.
_NO_TILES, NO_TRITON = "tile sizes", "--xla_gpu_enable_triton_gemm=false"
_NO_WEIGHTS_DROPPED = {
    "teacher__attention_probs_dropout_prob": 0.0,
    "student__attention_probs_dropout_prob": 0.0,
}
_TIMING_SECONDS = 4.0  # that a step takes to be timed, about: kept for each that has compiled


class Step(NamedTuple):
    """A step to time."""

    name: str
    method: str
    changes: dict[str, Any]
    is_profiled: bool = False


STEPS = (
    Step("EDAD", "edad", {}, is_profiled=True),
    Step("adaptation", "adaptation", {}),
    Step("distillation", "distillation", {}),
    Step("EDAD, fused attention", "edad", {"attention": "fused", **_NO_WEIGHTS_DROPPED}),
    Step("EDAD, attention weights not dropped", "edad", _NO_WEIGHTS_DROPPED),
    Step("EDAD, batch 256", "edad", {"batch_size": 256}),
    # Last: it may take all of the memory, which the others have given back by then.
    Step("EDAD, batch 512", "edad", {"batch_size": 512}),
)


def main() -> None:
    """Times all steps, as far as time goes."""
    place = read_place(__doc__)
    place.out.parent.mkdir(parents=True, exist_ok=True)
    figures = Figures(place.out)
    steps = STEPS[:2] if place.is_rehearsal else STEPS
    at_once = max(1, min(len(steps), (os.cpu_count() or 2) // 2))
    reports: queue.Queue = queue.Queue()
    waiting = list(steps)
    workers = {step.name: _Worker(step, place, reports) for step in _take(waiting, at_once)}
    ready, ended = [], 0
    try:
        while ended < len(steps) or ready:
            # Timing waits for all that still compile, but not longer than the time allows.
            reserve = _TIMING_SECONDS * (len(ready) + 1)
            is_compiling = len(ready) + ended < len(steps)
            if is_compiling and place.seconds_left > reserve or not ready:
                try:
                    name, told = reports.get(timeout=1.0)
                except queue.Empty:
                    continue
                if "compiled" in told:
                    ready.append(name)
                    for step in _take(waiting, 1):
                        workers[step.name] = _Worker(step, place, reports)
                else:
                    ended += 1
                    figures.put(name, told)
                    for step in _take(waiting, 1):
                        workers[step.name] = _Worker(step, place, reports)
                continue
            wait_for_go(place.out)
            ready.sort(key=[step.name for step in steps].index)
            name = ready.pop(0)
            workers[name].go()
            ended += _collect(name, reports, figures, ready, is_compiling)
    finally:
        for worker in workers.values():
            worker.stop()


def _take(waiting: list[Step], count: int) -> Iterator[Step]:
    for _ in range(min(count, len(waiting))):
        yield waiting.pop(0)


def _collect(name, reports, figures, ready, is_compiling) -> int:
    """Puts the figures of the step that is being timed; returns how many steps have ended."""
    ended = 0
    while True:
        other, told = reports.get()
        if "compiled" in told:
            ready.append(other)
            continue
        ended += 1
        if other == name:
            told["others_compiled_meanwhile"] = is_compiling
            figures.put(name, told)
            return ended
        figures.put(other, told)


class _Worker:
    """A process that compiles one step, and times it when it is told to.

    Its reports are {"compiled": ...} once, and then its figures, or {"reason"}.
    """

    def __init__(self, step: Step, place: Place, reports: queue.Queue):
        self._step, self._place, self._reports = step, place, reports
        self._process = None
        threading.Thread(target=self._watch, daemon=True).start()

    def go(self) -> None:
        try:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        except (BrokenPipeError, OSError):
            pass  # it has ended, and its report says why

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _watch(self):
        told = self._run("")
        if _NO_TILES in told.get("reason", ""):
            told = self._run(NO_TRITON)
        self._reports.put((self._step.name, told))

    def _run(self, flags):
        log = self._place.work / f"step-{STEPS.index(self._step)}.log"
        with open(log, "w", encoding="utf-8") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.field_steps", "--work-on", self._job()],
                cwd=ROOT,
                env=with_flags(flags) if flags else dict(os.environ),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )
            result = None
            for line in self._process.stdout:
                if not line.startswith("{"):
                    continue
                told = json.loads(line)
                if "compiled" in told:
                    self._reports.put((self._step.name, told))
                else:
                    result = told
            status = self._process.wait()
        if result is None:
            words = log.read_text(encoding="utf-8", errors="replace").strip()[-1_500:]
            return {"reason": f"ended with status {status}: {words}"}
        return result | {"xla_flags": flags}

    def _job(self):
        return json.dumps(
            {
                "changes": self._step.changes,
                "method": self._step.method,
                "is_profiled": self._step.is_profiled,
                "is_rehearsal": self._place.is_rehearsal,
                "started": time.time(),
            }
        )


def work_on(job: dict[str, Any]) -> None:
    """Compiles a step, says so, waits for a line, times it and prints the figures."""
    import jax

    from benchmarks import step

    is_rehearsal = job["is_rehearsal"]
    changes = job["changes"]
    if is_rehearsal:
        changes = {k: v for k, v in changes.items() if k != "batch_size"}
    case = step.Case(
        paper_config(is_rehearsal, **changes),
        teacher_sizes(is_rehearsal),
        job["method"],
        words=base_words(is_rehearsal),
    )
    loop = step.Loop(case)
    forecast = _forecast(case, loop, jax.devices()[0].device_kind)
    print(json.dumps({"compiled": loop.facts["compile_seconds"]}), flush=True)
    if not sys.stdin.readline():
        return  # the one that started this is gone
    repeats = 3 if is_rehearsal else 20
    figures = step.time_loop(loop, repeats=repeats, peak_tflops=None, started=job["started"])
    figures["seconds_in_a_row"] = loop.updates_in_a_row(repeats)
    figures["forecast"] = forecast
    if forecast.get("milliseconds"):
        figures["measured_over_forecast"] = 1e3 * figures["seconds"] / forecast["milliseconds"]
    if job["is_profiled"]:
        figures["profile"] = _profile(loop)
    print(json.dumps(figures), flush=True)


def _forecast(case, loop, device_kind):
    """Returns what the roofline says of the program that this device runs, or why it does not."""
    try:
        from benchmarks import ahead
        from benchmarks.forecast import describe
        from benchmarks.targets import TARGETS

        name = next(
            (
                name
                for name, target in TARGETS.items()
                if target.devices == 1 and device_kind.startswith(target.device)
            ),
            None,
        )
        if name is None:
            return {"reason": f"benchmarks/targets.py knows nothing of a {device_kind}"}
        program = ahead.Program(
            text=loop.program_text(),
            run=loop.run,
            memory=ahead.memory_of(loop.compiled),
            model_gflop=loop.facts["model_gflop"],
            trace_seconds=loop.facts["trace_seconds"],
            compile_seconds=loop.facts["compile_seconds"],
        )
        return {"target": name, **describe(case, TARGETS[name], program)}
    except Exception as error:  # a model of the step must not cost the step's own figures
        return {"reason": f"{type(error).__name__}: {error}"[:1_000]}


def _profile(loop):
    try:
        from benchmarks.operations import profile_loop

        return profile_loop(loop, repeats=3)
    except Exception as error:  # likewise
        return {"reason": f"{type(error).__name__}: {error}"[:1_000]}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work-on"]:
        work_on(json.loads(sys.argv[2]))
    else:
        main()
