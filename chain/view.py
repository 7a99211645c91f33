# SPDX-License-Identifier: Apache-2.0
"""One view of all stages: what is done, how far the running one is, and the time that is left."""

import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

# tqdm's bar, as the stages write it to their logs: "edad:  34%|###   | 41/120 [01:20<02:40, ..."
_BAR = re.compile(r"(?:^|[\r\n])[^\r\n|]*?(\d+)%\|[^|\r\n]*\| *[^\[\r\n]*\[[^<\]\r\n]*<([\d:?]+)")
_TAIL = 4_096  # bytes of a log that its last bar is looked for in
_EVERY = 60.0  # seconds between lines where the view is no terminal


def last_bar(log: Path, start: int = 0) -> tuple[float, float | None] | None:
    """Returns (share done, seconds left, if it says) of the newest bar in a log; None: no bar.

    Args:
      log: of a stage.
      start: where what counts begins, in bytes; before it are bars of a turn that was killed.
    """
    try:
        with open(log, "rb") as file:
            file.seek(max(start, log.stat().st_size - _TAIL))
            found = _BAR.findall(file.read().decode("utf-8", "replace"))
    except OSError:
        return None
    if not found:
        return None
    percent, left = found[-1]
    return int(percent) / 100, None if "?" in left else _seconds(left)


def _seconds(text: str) -> float:
    """Returns 3723 of "1:02:03"."""
    total = 0
    for part in text.split(":"):
        total = 60 * total + int(part)
    return float(total)


def show_time(seconds: float) -> str:
    """Returns 3723 as "1:02:03", 63 as "1:03"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class View:
    """Lines of all stages on a terminal, which stay in their place; elsewhere a line now and then.

    The time that is left is of two parts: what the running stage's own bar says, and for those
    that wait, their share of the work at the speed of the stages that have ended. It is not
    told before one has.
    """

    def __init__(self, titles: Sequence[str], work: Sequence[float], out: IO[str] | None = None):
        """Begins with all stages waiting.

        Args:
          titles: of the stages, in their order.
          work: how much each is, in one unit, whatever it is.
          out: where to write; None: standard error.
        """
        self._titles, self._work = titles, work
        self._states = ["waits"] * len(titles)
        self._seconds: list[float | None] = [None] * len(titles)
        self._out = sys.stderr if out is None else out
        self._lines = 0
        self._told = 0.0

    def skip(self, number: int, seconds: float) -> None:
        """Marks a stage that was finished before."""
        self._states[number] = f"done before ({show_time(seconds)})"
        self._seconds[number] = seconds

    def begin(self, number: int) -> None:
        self._states[number] = "begins"
        self._draw(f"{self._label(number)}: begins")

    def update(self, number: int, seconds: float, bar: tuple[float, float | None] | None) -> None:
        """Shows how far the running stage is; called about once a second.

        Args:
          number: of the stage.
          seconds: that it has run.
          bar: of `last_bar`.
        """
        share = f"{bar[0]:.0%}, " if bar else ""
        left = bar[1] if bar else None
        self._states[number] = f"{share}{show_time(seconds)}" + (
            "" if left is None else f", {show_time(left)} left"
        )
        is_time = time.monotonic() - self._told >= _EVERY
        total = self.seconds_left(number, seconds, bar)
        line = f"{self._label(number)}: {self._states[number]}; {_left(total)}"
        self._draw(line if is_time else "", total)

    def end(self, number: int, seconds: float) -> None:
        self._states[number] = f"done ({show_time(seconds)})"
        self._seconds[number] = seconds
        self._draw(f"{self._label(number)}: {self._states[number]}")

    def seconds_left(
        self, number: int, seconds: float, bar: tuple[float, float | None] | None
    ) -> float | None:
        """Returns the seconds until all stages have ended; None where nobody can tell yet."""
        known = [
            (work, spent)
            for work, spent in zip(self._work, self._seconds, strict=True)
            if spent is not None
        ]
        running = bar[1] if bar else None
        speed = None  # seconds for a unit of work
        if any(work for work, _ in known):
            speed = sum(spent for _, spent in known) / sum(work for work, _ in known)
        if running is not None and bar[0] > 0.05:  # the running one knows best
            speed = (seconds + running) / max(self._work[number], 1e-9)
        if speed is None:
            return None
        if running is None:  # one that takes longer than it should: all will
            speed = max(speed, seconds / max(self._work[number], 1e-9))
            running = speed * self._work[number] - seconds
        return running + speed * sum(self._work[number + 1 :])

    def _label(self, number: int) -> str:
        return f"[{number + 1}/{len(self._titles)}] {self._titles[number]}"

    def _draw(self, line: str, left: float | None = None) -> None:
        """Writes the block anew on a terminal, or the line elsewhere."""
        if not self._out.isatty():
            if line:
                self._told = time.monotonic()
                print(line, file=self._out, flush=True)
            return
        width = max(len(title) for title in self._titles)
        block = [
            f"[{number + 1}/{len(self._titles)}] {title:{width}}  {state}"
            for number, (title, state) in enumerate(zip(self._titles, self._states, strict=True))
        ]
        block.append(_left(left))
        # A line that is broken into two would be left behind when the block is drawn anew.
        room = max(1, shutil.get_terminal_size().columns - 1)
        block = [each[:room] for each in block]
        up = f"\x1b[{self._lines}A" if self._lines else ""
        self._out.write(up + "".join(f"\r\x1b[K{each}\n" for each in block))
        self._out.flush()
        self._lines = len(block)


def _left(seconds: float | None) -> str:
    if seconds is None:
        return "time left: not known before a stage has told its speed"
    return f"time left: about {show_time(seconds)}"


def work_of(names: Sequence[str], known: Mapping[str, float]) -> list[float]:
    """Returns the work of each stage; one that is not known counts as the least that is."""
    least = min((work for work in known.values() if work > 0), default=1.0)
    return [known.get(name) or least for name in names]
