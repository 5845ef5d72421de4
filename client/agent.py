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
from dataclasses import dataclass
from typing import Any, Protocol

from fedsite.client.settings import AgentSettings
from fedsite.protocol import messages
from fedsite.protocol.errors import FedsiteError, UnreachableError
from fedsite.protocol.messages import Frame

_log = logging.getLogger(__name__)

OPEN_POLL_S = 0.5  # longest pause between polls while a run is open here
GROWTH = 1.3  # of the pause between polls that found nothing
RETRY_FIRST_S = 0.5  # pause before the first reconnection
RETRY_LONGEST_S = 30.0
JITTER = 0.25  # pauses vary by this fraction, so that many sites do not ask at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One instruction as the link handed it over."""

    ticket: Any  # what the link needs to send the answer to it
    frame: Frame


class FleetLink(Protocol):
    """The way to the server and back (client/flower_fleet.py). Every call is bounded in time."""

    def connect(self) -> None:
        """Sign this node on and keep it alive from a thread until `close`.

        Raises:
            UnreachableError: the server does not answer.
            TrustError: it is not our server, or it no longer knows us.
        """

    def pull(self) -> Delivery | None:
        """The next instruction, or None when there is none. Raises as `connect`."""

    def push(self, delivery: Delivery, reply: Frame) -> None:
        """Send the answer to a delivery. Raises as `connect`."""

    def fetch(self, path: str, limit: int) -> bytes:
        """GET `path` (`/releases/<version>/<file>`) with the site's certificate, at most `limit` bytes."""

    def close(self) -> None:
        """Sign this node off; never raises."""


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


class Agent:
    """The loop; everything it touches is handed in."""

    def __init__(
        self,
        *,
        link: FleetLink,
        handler: Answers,
        worker: WarmWorker,
        settings: AgentSettings,
        run_open: Callable[[], bool],
        report: Callable[[Mapping[str, Any]], None] = lambda state: None,
        rng: random.Random | None = None,
        stopping: threading.Event | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            link: the way to the server.
            handler: answers instructions.
            worker: ended when idle, and with the agent.
            settings: pauses.
            run_open: True while a run that this site accepted has not ended; polls stay short then.
            report: told what the agent is doing, for `fedsite status`.
            rng: jitter only.
            stopping: set to end the loop.
        """
        self._link = link
        self._handler = handler
        self._worker = worker
        self._settings = settings
        self._run_open = run_open
        self._report = report
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secret
        self._stopping = stopping or threading.Event()
        self._unsent: tuple[Delivery, Frame] | None = None
        self._pause_s = settings.poll_fast_s

    def run(self) -> None:
        """Work until `stop`.

        Raises:
            TrustError: the server is not ours, or this site was revoked.
        """
        retry_s = RETRY_FIRST_S
        try:
            while not self._stopping.is_set():
                try:
                    self._report({"state": "connecting"})
                    self._link.connect()
                    self._report({"state": "idle"})
                    _log.info("connected")
                    retry_s = RETRY_FIRST_S
                    self._serve()
                except UnreachableError as error:
                    self._report({"state": "unreachable", "error": error.found})
                    _log.warning("%s; trying again in about %.1f s", error.found, retry_s)
                    self._sleep(retry_s)
                    retry_s = min(retry_s * 2, RETRY_LONGEST_S)
        finally:
            self._worker.close()
            self._link.close()

    def stop(self) -> None:
        """End the loop soon, and what the worker is doing at once; safe in a signal handler."""
        self._stopping.set()
        self._worker.interrupt()

    def _serve(self) -> None:
        """Pull, handle, push, until stopped."""
        self._pause_s = self._settings.poll_fast_s
        while not self._stopping.is_set():
            if self._unsent is not None:
                self._link.push(*self._unsent)
                self._unsent = None
            delivery = self._link.pull()
            if delivery is None:
                self._worker.close_if_idle()
                longest = (
                    min(OPEN_POLL_S, self._settings.poll_slow_s) if self._run_open() else self._settings.poll_slow_s
                )
                self._sleep(self._pause_s)
                self._pause_s = min(self._pause_s * GROWTH, max(longest, self._settings.poll_fast_s))
                continue
            self._report({"state": "working", **_about(delivery.frame)})
            # Held until it is sent: what the link could not take goes out after the next connection.
            self._unsent = (delivery, self._handler.handle(delivery.frame))
            self._pause_s = self._settings.poll_fast_s
            self._link.push(*self._unsent)
            self._unsent = None
            self._report({"state": "idle"})

    def _sleep(self, seconds: float) -> None:
        self._stopping.wait(seconds * (1 + JITTER * (2 * self._rng.random() - 1)))


class StateReport:
    """Writes what the agent is doing to a file for `fedsite status`, at most once a second unless the link changed."""

    def __init__(self, write: Callable[[dict[str, Any]], None], constant: Mapping[str, Any]) -> None:
        self._write = write
        self._constant = dict(constant)
        self._last: dict[str, Any] = {}
        self._at = 0.0

    def __call__(self, state: Mapping[str, Any]) -> None:
        """Write `state` with the moment and what never changes; a full disk does not stop the agent."""
        busy = {"idle", "working"}
        quick = state.get("state") in busy and self._last.get("state") in busy
        if quick and time.monotonic() - self._at < 1.0:
            return
        self._at, self._last = time.monotonic(), dict(state)
        with contextlib.suppress(FedsiteError):
            self._write({**self._constant, **state})


def _about(frame: Frame) -> dict[str, Any]:
    """What an instruction says it is, for the status screen; not checked yet."""
    try:
        header = messages.read_header(frame.header)
    except FedsiteError:
        return {}
    return {"kind": header.kind, "run_id": header.run_id, "round": header.round}
