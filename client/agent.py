"""The site's agent: one process that asks for instructions, has them handled one at a time, and sends the answers.

It holds no torch and listens to nobody: it only calls out. A lost connection is taken up again with growing, jittered
pauses; an answer that could not be sent is sent after the next connection. It ends on SIGINT and SIGTERM with its
worker ended and its node signed off.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from fedsite.protocol import messages
from fedsite.protocol.errors import FedsiteError, IntegrityError, TrustError, UnreachableError
from fedsite.protocol.messages import Frame

_log = logging.getLogger(__name__)


class FleetLink(Protocol):
    """The way to the server and back (client/flower_fleet.py). Every call is bounded in time."""

    def activate(self) -> None:
        """Sign this node on and keep it alive from a thread until `close`.

        Raises:
            UnreachableError: the server does not answer.
            TrustError: it is not our server, or it no longer knows us.
        """

    def pull(self) -> tuple[Any, Frame] | None:
        """The next instruction with what `push` needs to answer it, or None; raises as `activate`."""

    def push(self, received: Any, frame: Frame) -> bool:
        """Send the reply; False when nobody waits for it any more. Raises as `activate`."""

    def close(self) -> None:
        """Sign this node off; never raises."""


class Delay(Protocol):
    """Seconds to the next pull (flower_fleet.poll_delay)."""

    def __call__(self, *, failures: int, held_s: float, idle_s: float, uniform: float) -> float:
        """From the failures in a row, how long the last pull was held, how long ago the last instruction came."""


class Answers(Protocol):
    """Whoever answers instructions (handler.Handler)."""

    def handle(self, frame: Frame) -> Frame:
        """The reply; never raises."""


class WarmWorker(Protocol):
    """The agent's hold on its worker (worker_link.WorkerLink)."""

    def close_if_idle(self) -> bool:
        """End it when it has had nothing to do for long."""

    def close(self) -> None:
        """End it."""

    def interrupt(self) -> None:
        """Kill it from a signal handler."""


class Stopped(BaseException):
    """Breaks off a pull or a pause when the agent is to end; never an error."""


class Agent:
    """The loop; everything it touches is handed in."""

    def __init__(
        self,
        *,
        link: FleetLink,
        handler: Answers,
        worker: WarmWorker,
        delay: Delay,
        report: Callable[[Mapping[str, Any]], None] = lambda state: None,
        uniform: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Put the parts together.

        Args:
            link: the way to the server.
            handler: answers instructions.
            worker: ended when idle, and with the agent.
            delay: how long to pause between pulls.
            report: told what the agent is doing, for `fedsite status`.
            uniform: jitter of the pauses, from [0, 1).
            clock: monotonic seconds.
        """
        self._link = link
        self._handler = handler
        self._worker = worker
        self._delay = delay
        self._report = report
        self._uniform = uniform
        self._clock = clock
        self._stopping = threading.Event()
        self._waiting = False
        self._ending = False
        self._unsent: tuple[Any, Frame] | None = None
        self._busy_at = clock()

    def run(self) -> None:
        """Work until `stop`.

        Raises:
            TrustError: the server is not ours, or it does not know this site (any more).
        """
        failures = 0
        try:
            while not self._stopping.is_set():
                try:
                    self._report({"state": "connecting"})
                    self._activate()
                    _log.info("connected")
                    failures = 0
                    self._serve()
                except UnreachableError as error:
                    failures += 1
                    self._report({"state": "unreachable", "error": error.found})
                    pause = self._pause(failures=failures)
                    _log.warning("%s; trying again in %.1f s", error.found, pause)
                    self._sleep(pause)
        except Stopped:
            pass
        finally:
            self._ending = True
            self._worker.close()
            self._link.close()

    def stop(self) -> None:
        """End the loop: at once where it waits or when asked twice, else after the answer. For signal handlers.

        Raises:
            Stopped: the loop was waiting; it is caught by `run`, in whose thread a signal handler runs.
        """
        again = self._stopping.is_set()
        self._stopping.set()
        self._worker.interrupt()
        if (self._waiting or again) and not self._ending:
            self._waiting = False
            raise Stopped

    def _serve(self) -> None:
        """Pull, handle, push, until stopped."""
        self._report({"state": "idle"})
        known = True
        while not self._stopping.is_set():
            try:
                self._send()
                started = self._clock()
                pulled = self._pull()
                known = True
            except TrustError:
                if not known:
                    raise
                # A server that was restarted may have to be told again who we are; once.
                known = False
                self._activate()
                continue
            if pulled is None:
                self._worker.close_if_idle()
                self._sleep(self._pause(held_s=self._clock() - started))
                continue
            self._report({"state": "working", **_about(pulled[1])})
            # Held until it is sent: what the link could not take goes out after the next connection.
            self._unsent = (pulled[0], self._handler.handle(pulled[1]))
            self._busy_at = self._clock()
            self._send()
            self._report({"state": "idle"})

    def _activate(self) -> None:
        self._wait_begins()
        try:
            self._link.activate()
        finally:
            self._waiting = False

    def _pull(self) -> tuple[Any, Frame] | None:
        self._wait_begins()
        try:
            return self._link.pull()
        except IntegrityError as error:
            _log.warning("a message that is no instruction was dropped: %s", error)
            return None
        finally:
            self._waiting = False

    def _send(self) -> None:
        if self._unsent is None:
            return
        if not self._link.push(*self._unsent):
            _log.info("nobody waits for the last answer any more")
        self._unsent = None

    def _pause(self, *, failures: int = 0, held_s: float = 0.0) -> float:
        idle_s = self._clock() - self._busy_at
        return self._delay(failures=failures, held_s=held_s, idle_s=idle_s, uniform=self._uniform())

    def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            self._stopping.wait(seconds)

    def _wait_begins(self) -> None:
        self._waiting = True
        if self._stopping.is_set():  # the signal came just before
            self._waiting = False
            raise Stopped


class StateReport:
    """Tells `fedsite status` what the agent is doing, whenever that changes."""

    def __init__(self, write: Callable[[dict[str, Any]], None], constant: Mapping[str, Any]) -> None:
        self._write = write
        self._constant = dict(constant)
        self._last: dict[str, Any] | None = None

    def __call__(self, state: Mapping[str, Any]) -> None:
        """Write `state` with what never changes; a full disk does not stop the agent."""
        if state == self._last:
            return
        self._last = dict(state)
        with contextlib.suppress(FedsiteError, OSError):
            self._write({**self._constant, **state})


def _about(frame: Frame) -> dict[str, Any]:
    """What an instruction says it is, for the status screen; not checked yet."""
    try:
        header = messages.read_header(frame.header)
    except FedsiteError:
        return {}
    return {"kind": header.kind, "run_id": header.run_id, "round": header.round}
