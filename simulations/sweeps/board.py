"""A simulation as it happens, on stderr: runs, rounds, the metric, seconds a round and what is left."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from fedsite.simulations.demo.figures import number
from fedsite.simulations.engine import Round

_RECENT = 20  # rounds that the pace is taken from


class Board:
    """On a terminal two bars that move; elsewhere a line when a run ends and ten on the way."""

    def __init__(self, console: Console, metric: str = "metric") -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
        self._runs: TaskID | None = None
        self._rounds: TaskID | None = None
        self._metric = metric
        self._name, self._of, self._done = "", 0, 0
        self._seconds: list[float] = []
        self._value: float | None = None

    def cell(self, number: int, of: int, name: str, state: str) -> None:
        """A run begins or has ended."""
        if of > 1:
            if self._runs is None:
                self._runs = self._bars.add_task("runs", total=of, note="")
            ended = state != "running"
            self._bars.update(self._runs, completed=number + ended, note=f"{number + ended}/{of} {name}")
            if ended and (state == "failed" or not self._console.is_terminal):
                self._console.print(f"run {number + 1}/{of} {name}: {state}", highlight=False)
        if state == "running":
            self._name, self._value, self._seconds = name, None, []

    def stage(self, text: str) -> None:
        """What is being done."""
        self._bars.update(self._line(), description=text, note="")
        if not self._console.is_terminal and text.startswith("compiling") and ":" not in text:
            self._console.print(text, highlight=False)

    def begin(self, rounds: int, done: int) -> None:
        """Rounds begin."""
        self._of, self._done = rounds, done
        self._bars.update(self._line(), description="rounds", total=rounds, completed=done, note=f"{done}/{rounds}")
        if done and done < rounds:
            self._console.print(f"going on after round {done} of {rounds}", highlight=False)

    def round(self, done: Round) -> None:
        """A round has ended."""
        self._seconds = [*self._seconds[1 - _RECENT :], done.seconds]
        self._value = done.metric if done.metric is not None else self._value
        pace = statistics.median(self._seconds)
        value = "" if self._value is None else f" · {self._metric} {number(self._value)}"
        left = clock(pace * (self._of - done.number))
        note = f"{done.number}/{self._of}{value} · {number(pace)} s a round · {left} left"
        self._bars.update(self._line(), description="rounds", completed=done.number, note=note)
        step = -(-self._of // 10)
        if not self._console.is_terminal and (done.number % step == 0 or done.number == self._of):
            self._console.print(f"round {note}", highlight=False)

    @contextmanager
    def shown(self) -> Iterator[Board]:
        """Drawn until the block ends."""
        if not self._console.is_terminal:
            yield self
            return
        with self._bars:
            yield self

    def _line(self) -> TaskID:
        if self._rounds is None:
            self._rounds = self._bars.add_task("", total=None, note="")
        return self._rounds


def clock(seconds: float) -> str:
    """A time for people."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
