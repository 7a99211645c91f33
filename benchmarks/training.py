# SPDX-License-Identifier: Apache-2.0
"""The benchmark of training: what is measured, in which order, each in a process of its own."""

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from benchmarks import report
from benchmarks.job import last_words, run_job
from benchmarks.step import BERT_VOCABULARY, MEASURED, batch_shape, two_stages_over_one_pass
from edad_jax.distillation.phases import WHOLE, Phase, PhaseSettings
from edad_jax.files import read_json
from edad_jax.machine import describe_machine
from edad_jax.training.sections import read_section

PARTS = ("steps", "profile", "phases", "compile", "devices", "input", "checkpoint")
DEVICE_COUNTS = (1, 2, 4)
# Of an update that leaves out what config.phases allows.
PHASES = (Phase(teacher_learns=False), Phase(teacher_learns=False, imitates=False))
_HEAD = ("device", "devices", "dtype", "batch")  # what all steps of a benchmark share


class Plan(NamedTuple):
    """What to measure."""

    config: ConfigDict
    teacher: Sequence[int]  # layers, width, heads, feed-forward width of the original BERT
    parts: Sequence[str]  # of PARTS
    repeats: int  # timed updates
    peak_tflops: float | None  # what a device can do; None: by its kind
    virtual_devices: int  # CPU devices for the part "devices"; 0: the real ones
    rows: int  # on disk, for the part "input"
    seconds: float  # to time the input
    torch_command: Sequence[str]  # measures the torch peer, given --out; empty: it is left out
    words: int = BERT_VOCABULARY  # of the original BERT


def benchmark(plan: Plan, out: Path) -> dict[str, Any]:
    """Returns what was measured; writes benchmark.json, .md and .png into `out` after each part.

    Returns:
      {"machine", "device", "devices", "dtype", "batch", "teacher", and for each part that was
      asked for: "steps": {method: see `step.time_step`} and, where all three methods ran,
      "two_stages_over_one_pass"; "phases": a list of {"phase", "seconds", "model_gflop",
      "share_of_whole"}, the whole update first; "compile": {"cold", "warm"}: seconds; "scaling": a
      list of {"devices", "batch", "per", "seconds", "tokens_per_second", "efficiency"}; "profile",
      "input" and "checkpoint" (see `operations`, `input_pipeline` and `checkpoints`); "torch" as
      the peer wrote it, and "ours_over_torch": {mode: {method: ratio of tokens/s}}; "notes": what
      was left out, and why}

    Raises:
      ValueError: a part that there is not, or a configuration of another method or with phases.
        Or, at the end, processes that failed; says what they said. The other parts are in `out`.
    """
    unknown = set(plan.parts) - set(PARTS)
    if unknown or not plan.parts:
        raise ValueError(
            f"got parts {', '.join(sorted(unknown)) or 'none'}, expected some of {', '.join(PARTS)}"
        )
    if plan.config.batch_size_per_device != "0":
        raise ValueError(
            f"got config.batch_size_per_device={plan.config.batch_size_per_device!r}, expected the "
            "whole batch, --config.batch_size=128, which is the same on any number of devices"
        )
    if plan.config.method not in MEASURED:
        raise ValueError(
            f"got config.method={plan.config.method!r}, expected one of "
            f"{', '.join(MEASURED)}: these three are what is measured"
        )
    if not read_section(PhaseSettings, plan.config.phases) == PhaseSettings():
        raise ValueError(
            f"got config.phases={plan.config.phases.to_dict()}, expected all of it off: what it "
            "leaves out is measured by --parts=phases"
        )
    out.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {
        "machine": describe_machine(),
        "batch": batch_shape(plan.config),
        "teacher": list(plan.teacher),
        "notes": [],
    }
    failures = []
    # One new folder for compiled programs: the first that needs one compiles it cold, and later
    # ones find it.
    with tempfile.TemporaryDirectory(prefix="edad-jax-programs-") as programs:
        jobs = _Jobs(plan, programs)
        for part in (part for part in PARTS if part in plan.parts):
            try:
                _MEASURES[part](plan, jobs, result)
            except ValueError as error:  # costs none of the other parts, nor its own first steps
                failures.append(str(error))
                last = failures[-1].splitlines()[-1]
                result["notes"].append(f"{part}: not all of it could be measured; {last}")
            finally:
                report.write_report(result, out)
    if plan.torch_command:
        _measure_torch(plan, result, out)
        report.write_report(result, out)
    if failures:
        raise ValueError("\n".join([*failures, f"What could be measured is in {out}"]))
    return result


class _Jobs:
    """Starts the processes, and says what it waits for."""

    def __init__(self, plan: Plan, programs: str):
        self._fields = {
            "config": plan.config.to_dict(),
            "teacher": list(plan.teacher),
            "words": plan.words,
        }
        self._plan = plan
        self._environment = {
            "JAX_COMPILATION_CACHE_DIR": programs,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }

    def step(
        self,
        name,
        method,
        *,
        batch_size=None,
        devices=0,
        repeats=None,
        virtual=0,
        phase=WHOLE,
        programs=None,
    ):
        changes = {} if batch_size is None else {"batch_size": batch_size}
        environment = dict(self._environment)
        if programs is not None:
            environment["JAX_COMPILATION_CACHE_DIR"] = programs
        if virtual:
            flag = f"--xla_force_host_platform_device_count={virtual}"
            environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"
            environment["JAX_PLATFORMS"] = "cpu"
        arguments = self._fields | {
            "config": self._fields["config"] | changes,
            "method": method,
            "devices": devices,
            "phase": list(phase),
            "repeats": self._plan.repeats if repeats is None else repeats,
            "peak_tflops": self._plan.peak_tflops,
        }
        with _Line(name):
            return run_job("step", arguments, environment)

    def edad(self, kind, name):
        arguments = self._fields | {"method": "edad", "repeats": self._plan.repeats}
        with _Line(name):
            return run_job(kind, arguments, self._environment)

    def input(self, **arguments):
        with _Line("input: batches from rows on disk"):
            return run_job("input", arguments, {})


class _Line:
    """Tells on one line what is being measured, and then how long that took."""

    def __init__(self, name):
        self._name = name

    def __enter__(self):
        self._start = time.perf_counter()
        print(f"{self._name} ...", end="", file=sys.stderr, flush=True)

    def __exit__(self, *exception_info):
        print(f" {time.perf_counter() - self._start:.0f} s", file=sys.stderr, flush=True)


def _measure_steps(plan, jobs, result):
    steps = result["steps"] = {}
    for method in MEASURED:
        steps[method] = jobs.step(f"steps: {method}", method)
        result |= {name: steps[method][name] for name in _HEAD}
    result["two_stages_over_one_pass"] = two_stages_over_one_pass(steps)


def _measure_profile(plan, jobs, result):
    result["profile"] = jobs.edad("profile", "profile: where the EDAD step's time goes")
    result |= {name: result["profile"][name] for name in _HEAD}


def _measure_phases(plan, jobs, result):
    whole = result.get("steps", {}).get("edad") or jobs.step("phases: the whole update", "edad")
    result |= {name: whole[name] for name in _HEAD}
    rows = [(WHOLE, whole)]
    for phase in PHASES:
        rows.append((phase, jobs.step(f"phases: {phase.describe()}", "edad", phase=phase)))
    result["phases"] = [
        {
            "phase": phase.describe(),
            "seconds": row["seconds"],
            "model_gflop": row["model_gflop"],
            "share_of_whole": row["seconds"] / whole["seconds"],
        }
        for phase, row in rows
    ]


def _measure_compile(plan, jobs, result):
    cold, settings = result.get("steps", {}).get("edad"), {"method": "edad", "repeats": 1}
    with tempfile.TemporaryDirectory(prefix="edad-jax-cold-") as empty:
        if cold is None:  # another part may have left the program in the folder that all share
            settings["programs"] = empty
            cold = jobs.step("compile: cold", **settings)
            result |= {name: cold[name] for name in _HEAD}
        warm = jobs.step("compile: from the persistent cache", **settings)
    names = ("trace_seconds", "compile_seconds", "first_step_seconds")
    result["compile"] = {
        kind: {name: row[name] for name in names} for kind, row in (("cold", cold), ("warm", warm))
    }


def _measure_devices(plan, jobs, result):
    rows, length = batch_shape(plan.config)
    virtual = plan.virtual_devices

    def measure(devices, batch_size):
        name = f"devices: {devices}, {batch_size} rows"
        return jobs.step(name, "edad", devices=devices, batch_size=batch_size, virtual=virtual)

    def add(devices, batch_size, per):
        try:
            row = measure(devices, batch_size)
        except ValueError as error:  # as a rule, more rows than this machine has memory for
            last = str(error).splitlines()[-1]
            result["notes"].append(f"devices: {devices}, {batch_size} rows are left out; {last}")
        else:
            scaling.append(_scaled(row, alone, per))

    alone = result.get("steps", {}).get("edad")
    if virtual or alone is None or alone["devices"] != 1:
        alone = measure(1, rows)
    result |= {name: alone[name] for name in _HEAD if name not in result}
    there = alone["devices_there"]
    scaling = result["scaling"] = [_scaled(alone, alone, "both")]
    for devices in DEVICE_COUNTS[1:]:
        if devices > there:
            continue
        if rows % (devices * plan.config.accumulate_steps):
            result["notes"].append(
                f"devices: a batch of {rows} does not split over {devices} devices x "
                f"{plan.config.accumulate_steps} micro-batches; that row is left out"
            )
        else:
            add(devices, rows, "batch")
        add(devices, rows * devices, "device")
    if virtual:
        result["notes"].append(
            f"devices: {virtual} virtual ones share this machine's cores, so the figures show that "
            "it runs and what it costs, not how devices of their own would scale"
        )
    elif there == 1:
        result["notes"].append(
            "devices: there is one; on a CPU, --virtual_devices=4 makes four out of its cores"
        )


def _scaled(row, alone, per):
    """Returns a row of the scaling table; efficiency 1: as many times the tokens/s as devices."""
    speed = row["tokens_per_second"]
    return {
        "devices": row["devices"],
        "batch": row["batch"],
        "per": per,  # what stays the same: the "batch", the rows of a "device", or "both"
        "seconds": row["seconds"],
        "tokens_per_second": speed,
        "efficiency": speed / (alone["tokens_per_second"] * row["devices"]),
    }


def _measure_input(plan, jobs, result):
    config = plan.config
    result["input"] = jobs.input(
        rows=plan.rows,
        max_length=config.rows.max_length,
        vocabulary_size=plan.words + config.vocabulary.size,
        batch_size=config.batch_size,
        buckets=list(config.rows.buckets),
        seconds=plan.seconds,
    )
    step = result.get("steps", {}).get("edad")
    if step is not None:
        result["input"]["share_of_step"] = result["input"]["seconds"] / step["seconds"]


def _measure_checkpoint(plan, jobs, result):
    result["checkpoint"] = jobs.edad("checkpoint", "checkpoint: saves beside the EDAD step")


_MEASURES = {
    "steps": _measure_steps,
    "profile": _measure_profile,
    "phases": _measure_phases,
    "compile": _measure_compile,
    "devices": _measure_devices,
    "input": _measure_input,
    "checkpoint": _measure_checkpoint,
}


def _measure_torch(plan, result, out):
    """Runs the torch peer after all of ours; what goes wrong there is a note, not the end."""
    if importlib.util.find_spec("torch") is None:
        _leave_out(result, "torch is not installed (it is in the dev extra)")
        return
    # Beside the report, and under an absolute name: the peer has a working folder of its own.
    path = (out / "torch.json").resolve()
    path.unlink(missing_ok=True)
    with _Line("torch"):
        done = subprocess.run(
            [*plan.torch_command, "--out", str(path)], capture_output=True, text=True
        )
    if done.returncode or not path.exists():
        _leave_out(result, f"its command failed: {last_words(done).splitlines()[-1]}")
        return
    result["torch"] = read_json(path, expected="what the torch peer measured")
    path.unlink()
    ours = result.get("steps", {})
    result["ours_over_torch"] = {
        mode: {
            method: ours[method]["tokens_per_second"] / row["tokens_per_second"]
            for method, row in steps.items()
            if method in ours
        }
        for mode, steps in result["torch"]["steps"].items()
    }


def config_overrides(arguments: Sequence[str]) -> list[str]:
    """Returns the words of a command line that change the configuration, for another command."""
    found = []
    for word, following in zip(arguments, [*arguments[1:], "-"], strict=True):
        if word.startswith("-") and word.lstrip("-").startswith(("config.", "noconfig.")):
            found.append(word)
            if "=" not in word and not following.startswith("-"):
                found.append(following)  # --config.batch_size 64
    return found


def _leave_out(result, why):
    print(f"torch is left out: {why}", file=sys.stderr, flush=True)
    result["notes"].append(f"torch is left out: {why}")
