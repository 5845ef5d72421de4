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
from datetime import datetime
from typing import Any, Protocol

from fedsite.client.link.clocks import ClockError
from fedsite.client.link.sending import FleetLink, Kept, Sending
from fedsite.client.link.unsent import read_header
from fedsite.protocol import instants
from fedsite.protocol.errors import FedsiteError, IntegrityError, TrustError, UnreachableError
from fedsite.protocol.messages import Frame

_log = logging.getLogger(__name__)


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
        unsent: Kept,
        report: Callable[[Mapping[str, Any]], None] = lambda state: None,
        between: Callable[[], None] = lambda: None,
        uniform: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = instants.now,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            link: the way to the server.
            handler: answers instructions.
            worker: ended when idle, and with the agent.
            delay: how long to pause between pulls.
            unsent: keeps what was not sent, for the next agent.
            report: told what the agent is doing, for `fedsite status`.
            between: called once connected, and where a pull brought nothing, for what can wait that long; never raises.
            uniform: jitter of the pauses, from [0, 1).
            clock: monotonic seconds.
            now: UTC; whether an answer that cannot be sent has expired.
            wait: sleeps, until the agent is stopped.
        """
        self._link = link
        self._handler = handler
        self._worker = worker
        self._delay = delay
        self._report = report
        self._between = between
        self._uniform = uniform
        self._clock = clock
        self._stopping = threading.Event()
        self._waiting = False
        self._ending = False
        self._sending = Sending(link, unsent, now)
        self._wait = wait or self._stopping.wait
        self._failures = 0  # in a row, of a connection that came as far as a pull
        self._busy_at = clock()

    def run(self) -> None:
        """Work until `stop`.

        Raises:
            TrustError: the server is not ours, or it does not know this site (any more).
        """
        self._sending.recall()
        try:
            while not self._stopping.is_set():
                try:
                    self._report({"state": "connecting", **self._sending.left()})
                    self._activate()
                    _log.info("connected")
                    self._serve()
                except (UnreachableError, ClockError) as error:
                    self._failures += 1
                    state = "clock" if isinstance(error, ClockError) else "unreachable"
                    self._report({"state": state, "error": error.found, **self._sending.left()})
                    pause = self._pause(failures=self._failures)
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
        self._between()
        known = True
        while not self._stopping.is_set():
            try:
                self._sending.send()
                started = self._clock()
                pulled = self._pull()
                known, self._failures = True, 0
            except ClockError:
                raise
            except TrustError:
                if not known:
                    raise
                # A server that was restarted may have to be told again who we are; once.
                known = False
                self._activate()
                continue
            if pulled is None:
                self._worker.close_if_idle()
                self._between()
                self._sleep(self._pause(held_s=self._clock() - started))
                continue
            self._answer(*pulled)
            self._sending.send()
            self._report({"state": "idle"})

    def _answer(self, received: Any, instruction: Frame) -> None:
        """Have an instruction carried out, and hand its answer over to be sent."""
        self._report({"state": "working", **_about(instruction)})
        name = self._sending.begin(received, instruction)
        reply = self._handler.handle(instruction)
        self._busy_at = self._clock()
        self._sending.add(name, received, instruction, reply)

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

    def _pause(self, *, failures: int = 0, held_s: float = 0.0) -> float:
        idle_s = self._clock() - self._busy_at
        return self._delay(failures=failures, held_s=held_s, idle_s=idle_s, uniform=self._uniform())

    def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            self._wait(seconds)

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
    header = read_header(frame.header)
    return {} if header is None else {"kind": header.kind, "run_id": header.run_id, "round": header.round}
