"""Child processes that never outlive their parent, restarted with back-off, given up after five deaths in a minute."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from fedsite.protocol.errors import FedsiteError

GIVE_UP_AFTER = 5  # deaths
GIVE_UP_WITHIN_S = 60.0
LONGEST_PAUSE_S = 8.0
GRACE_S = 8.0  # from the polite signal to the other one
_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """End this process when `parent` does: by the kernel where it can, by looking twice a second anywhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    on_parent_death(parent, lambda: os.kill(os.getpid(), signal.SIGTERM))


def on_parent_death(parent: int, act: Callable[[], None]) -> None:
    """Call `act` from a thread, half a second after `parent` has gone at the latest."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        act()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def restart_pause(deaths: Sequence[float], now: float) -> float | None:
    """Seconds to wait before a restart, or None to give up.

    Args:
        deaths: moments of the child's ends so far, this one too, oldest first.
        now: the same clock, in seconds.
    """
    recent = sum(1 for moment in deaths if now - moment <= GIVE_UP_WITHIN_S)
    if recent >= GIVE_UP_AFTER:
        return None
    return float(min(LONGEST_PAUSE_S, 0.25 * 2.0 ** max(recent - 1, 0)))


@dataclass(slots=True, eq=False)
class Child:
    """One supervised process in a session of its own, with everything it starts."""

    name: str
    command: Callable[[], Sequence[str]]  # asked anew at each start
    environment: Mapping[str, str]
    log: Path
    capture: bool = False  # stdout is read by the launcher instead of logged
    _process: subprocess.Popen[bytes] | None = None
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=2 * GIVE_UP_AFTER))
    restart_at: float = 0.0

    def start(self) -> None:
        """Start it; its output is appended to its log."""
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C reaches the launcher alone, and the whole group can be ended at once.
            self._process = subprocess.Popen(
                list(self.command()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if self.capture else log,
                stderr=log,
                env=dict(self.environment),
                start_new_session=True,
            )

    @property
    def output(self) -> IO[bytes]:
        """What a captured child prints."""
        if self.process.stdout is None:
            raise RuntimeError(f"{self.name} is not captured")
        return self.process.stdout

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process."""
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process

    @property
    def pid(self) -> int:
        """Its process id, which is its group's too."""
        return self.process.pid

    @property
    def started(self) -> bool:
        """Whether it ever was."""
        return self._process is not None

    def check(self, now: float) -> bool:
        """Note a death and restart when its pause is over; True when it was restarted.

        Raises:
            FedsiteError: it died too often.
        """
        code = self.process.poll()
        if code is None:
            return False
        if self.restart_at == 0.0:
            self.deaths.append(now)
            pause = restart_pause(list(self.deaths), now)
            self.sweep()
            if pause is None:
                raise FedsiteError(
                    f"{self.name} ended {GIVE_UP_AFTER} times within {GIVE_UP_WITHIN_S:.0f} s (last with {code})",
                    next_step=f"look into {self.log}, then fedsite server up",
                )
            self.restart_at = now + pause
        if now < self.restart_at:
            return False
        self.restart_at = 0.0
        self.start()
        return True

    def signal(self, number: int) -> None:
        """Signal the whole group; one that is gone already is not an error."""
        if self.started:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def gone(self) -> bool:
        """True when nobody of its group is left."""
        if self.process.poll() is None:
            return False
        try:
            os.killpg(self.pid, 0)
        except (ProcessLookupError, PermissionError):
            return True
        return False

    def sweep(self) -> None:
        """End what a dead child left behind in its group."""
        self.signal(signal.SIGKILL)


def stop_all(children: Sequence[Child], *, grace_s: float = GRACE_S) -> None:
    """End one child after the other, each with everything it started: who is named first may still use the others.

    Args:
        children: in the order of their end.
        grace_s: seconds each group has before it is ended without being asked.
    """
    for child in children:
        if child.started:
            child.signal(signal.SIGTERM)
            until = time.monotonic() + grace_s
            while time.monotonic() < until and not child.gone():
                time.sleep(0.02)
            child.sweep()
            child.process.wait()
