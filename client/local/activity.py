"""What the agent is doing, for whoever wants to watch: told by its loop, read by the threads of the local API."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fedsite.protocol import instants

_ROUNDS = 1 << 32  # what a round on the socket stays below


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What the agent is doing; as `agent.json` says it."""

    state: str  # starting, connecting, idle, working, unreachable, clock
    since: str  # when the agent started; RFC 3339
    at: str  # when this state began
    pid: int
    kind: str = ""  # of the instruction, while working
    run_id: str = ""
    round: int = 0
    error: str = ""  # while unreachable or clock


class Board:
    """The agent's latest activity, with a number that grows whenever there is something new to see."""

    def __init__(self, *, pid: int, clock: Callable[[], datetime] = instants.now) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._number = 0
        self._closed = False
        moment = instants.text(clock())
        self._activity = Activity(state="starting", since=moment, at=moment, pid=pid)

    def report(self, state: Mapping[str, Any]) -> None:
        """Take what the loop says; never waits for anybody who watches."""
        number = state.get("round", 0)
        found = Activity(
            state=_text(state.get("state", "starting")),
            since=self._activity.since,
            at=instants.text(self._clock()),
            pid=self._activity.pid,
            kind=_text(state.get("kind", "")),
            run_id=_text(state.get("run_id", "")),
            round=number if isinstance(number, int) and 0 <= number < _ROUNDS else 0,
            error=_text(state.get("error", "")),
        )
        with self._changed:
            self._activity = found
            self._number += 1
            self._changed.notify_all()

    def touch(self) -> None:
        """Say that something else changed that watchers see, such as a pause."""
        with self._changed:
            self._number += 1
            self._changed.notify_all()

    def wake(self) -> None:
        """Let who waits look whether anybody still wants to know."""
        with self._changed:
            self._changed.notify_all()

    def look(self) -> tuple[int, Activity]:
        """The number and the activity as they are now."""
        with self._changed:
            return self._number, self._activity

    def wait(self, seen: int, timeout_s: float, *, alive: Callable[[], bool] = lambda: True) -> bool:
        """Wait until there is something newer than number `seen`, or the time has passed.

        Args:
            seen: the number that `look` gave.
            timeout_s: seconds.
            alive: asked twice a second; False ends the wait.

        Returns:
            False when the board is closed or nobody waits any more.
        """
        until = time.monotonic() + timeout_s
        with self._changed:
            while self._number == seen and not self._closed and alive():
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(min(left, 0.5))
            return not self._closed and alive()

    def close(self) -> None:
        """Let everybody go who waits, now and later."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _text(value: object) -> str:
    """As a message can hold it: an error may name a file whose name is no text."""
    return str(value).encode("utf-8", "replace").decode("utf-8")
