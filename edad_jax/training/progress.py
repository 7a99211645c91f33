# SPDX-License-Identifier: Apache-2.0
"""What a person sees of a running loop, and how they stop it."""

import collections
import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

# What training has cost so far, as the paper counts it: its steps and nothing else, so not text,
# compiling, held-out figures, or the first step of each process. Wall time, and time of all cores
# of this process, which other work on the machine hardly changes.
TIME_COSTS = ("train/seconds", "train/cpu_seconds")

_WINDOW = 50  # steps that the throughput is measured over


class StopSignal:
    """Turns SIGTERM and the first Ctrl-C into a question that the loop asks after each step."""

    def __init__(self):
        self.is_set = False
        self._previous = {}

    def __enter__(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception_info):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        del frame
        self.is_set = True
        signal.signal(number, self._previous[number])  # a second one is not held back


class Stopwatch:
    """Adds up TIME_COSTS of what is to count; what is not lies before a `restart`."""

    def __init__(self, spent: Mapping[str, float] | None):
        """Goes on from the TIME_COSTS among the metrics of an earlier part of the run."""
        self._spent = {name: (spent or {}).get(name, 0.0) for name in TIME_COSTS}
        self._mark: tuple[float, float] | None = None

    def restart(self) -> None:
        """Leaves out what has happened since the last call."""
        self._mark = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """Returns all time costs so far; the first call only starts the watch."""
        before = self._mark
        self.restart()
        if before is not None:
            for name, then, now in zip(TIME_COSTS, before, self._mark, strict=True):
                self._spent[name] += now - then
        return dict(self._spent)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out what happens in the block."""
        self.read()
        yield
        self.restart()


class Progress:
    """The bar, the throughput, and the check that losses are finite."""

    def __init__(
        self,
        name: str,
        start: int,
        total_steps: int,
        *,
        log: Callable[[int, dict[str, float]], None],
        shown: Sequence[str],
        visible: bool,
        spent: Mapping[str, float] | None = None,
    ):
        """Starts a bar.

        Args:
          name: stands in front of the bar.
          start: steps done in an earlier run.
          total_steps: steps in all.
          log: called with each step and its metrics, once they are there: while the next one runs.
          shown: metrics to show beside the bar, where the step has them.
          visible: False for a log file, or for processes other than the first.
          spent: metrics of an earlier part of this run, for its TIME_COSTS.
        """
        self._log = log
        self._shown = shown
        self._pending: tuple[int, dict] | None = None
        self._bar = tqdm(
            total=total_steps,
            initial=start,
            unit="step",
            desc=name,
            disable=not visible,
        )
        # The clock starts when the first metrics arrive, so that compiling does not count.
        self._tokens = 0.0
        self._clock: collections.deque[tuple[float, float]] = collections.deque(maxlen=_WINDOW)
        self._watch = Stopwatch(spent)
        self._programs = set()

    def __enter__(self):
        return self

    def __exit__(self, *exception_info):
        self._bar.close()

    def run(self, done: int, step: Callable, state: Any, frozen: Any, batch: Any) -> Any:
        """Returns the state after step(state, frozen, batch), and reads the metrics of the last.

        Metrics are read one step late, so that the device never waits for the loop. The first
        call of a program compiles; of all programs but the first, that is left out of the time.

        Args:
          done: steps done after this one.
          step: gives the new state, and metrics.
          state: may be donated.
          frozen: what the step only reads.
          batch: arrays; of each shape the step has another program.

        Raises:
          FloatingPointError: a loss or a gradient norm of the step before is not finite.
        """
        program = (step, *(x.shape for x in jax.tree.leaves(batch)))
        is_new = program not in self._programs
        if is_new:
            self.settle()
        state, metrics = step(state, frozen, batch)
        compiled_late = is_new and bool(self._programs)
        self._programs.add(program)
        if compiled_late:
            jax.block_until_ready(metrics)
            self.restart_clock()
        self.settle()
        self._pending = (done, metrics)
        if compiled_late:
            self.settle()
            self.restart_clock()
        return state

    def settle(self) -> None:
        """Waits for the metrics of the last step, and reads them.

        Raises:
          FloatingPointError: a loss or a gradient norm is not.
        """
        if self._pending is not None:
            self._read(*self._pending)
            self._pending = None

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves what happens in the block out of the throughput and the time costs."""
        self.settle()
        yield
        self.restart_clock()

    def restart_clock(self):
        """Leaves out of the throughput what has happened since the last step."""
        self._watch.restart()
        self._clock.clear()
        self._clock.append((time.perf_counter(), self._tokens))

    def _read(self, step, metrics):
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        broken = {name: value for name, value in values.items() if not np.isfinite(value)}
        if broken:
            raise FloatingPointError(
                f"step {step}: {', '.join(f'{k} is {v}' for k, v in broken.items())}. Try smaller "
                "--config.optimizer.teacher_learning_rate and student_learning_rate, "
                "--config.optimizer.schedule=warmup_linear, or --config.dtype=float32, in a new "
                "--workdir (--config.prepared=THIS_WORKDIR saves preparing the text again); the "
                "checkpoints on disk are from before this step"
            )
        self._tokens += values.pop("tokens")
        self._clock.append((time.perf_counter(), self._tokens))
        (start, tokens_then), (now, tokens_now) = self._clock[0], self._clock[-1]
        if now > start:
            values["tokens_per_second"] = (tokens_now - tokens_then) / (now - start)
        values |= self._watch.read()
        self._bar.set_postfix(
            {name: f"{values[name]:,.4g}" for name in self._shown if name in values}, refresh=False
        )
        self._bar.update(step - self._bar.n)
        self._log(step, values)
