"""Answers on their way: kept before they are sent, sent in order and once, dropped by name when nobody wants them.

Only the server knows whether an answer still counts, so each is offered to it; this host's clock decides alone where
the server is there and will not take it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol

from fedsite.client.link.unsent import Waiting, describe, expiry, read_header
from fedsite.protocol import instants
from fedsite.protocol.errors import FedsiteError, IntegrityError, StorageError, UnreachableError
from fedsite.protocol.messages import Frame

TRIES = 3  # of an answer that has expired, over connections that were there
UNDATED = timedelta(days=1)  # after which an answer has expired whose instruction does not say when

_log = logging.getLogger(__name__)


class FleetLink(Protocol):
    """The way to the server and back (client/link/flower_fleet.py). Every call is bounded in time."""

    def activate(self) -> None:
        """Sign this node on and keep it alive from a thread until `close`.

        Raises:
            UnreachableError: the server does not answer.
            TrustError: it is not our server, or it no longer knows us.
        """

    def pull(self) -> tuple[Any, Frame] | None:
        """The next instruction with what `push` needs to answer it, or None; raises as `activate`."""

    def push(self, received: Any, frame: Frame, noted: Callable[[bytes], None]) -> bool:
        """Send the reply; False when nobody waits for it any more. Raises as `activate`.

        What was sent before is not sent again, and does not count twice. `noted` is told how far it is, as `note`.
        """

    def note(self, received: Any) -> bytes:
        """What `push` needs, for another process."""

    def recall(self, note: bytes) -> Any:
        """What `note` was made of.

        Raises:
            IntegrityError: it is something else.
        """

    def close(self) -> None:
        """Sign this node off; never raises."""


class Kept(Protocol):
    """What survives this process (unsent.Unsent)."""

    def begin(self, link: bytes, instruction: Frame) -> str:
        """Keep what is needed to answer; returns its name. Raises StorageError."""

    def answered(self, name: str, reply: Frame) -> None:
        """Keep the answer. Raises StorageError."""

    def noted(self, name: str, link: bytes) -> None:
        """Keep how far sending is."""

    def done(self, name: str) -> None:
        """Forget it."""

    def pending(self) -> list[Waiting]:
        """What an earlier agent left."""


@dataclass(slots=True)
class _Unsent:
    """An answer that the server does not have yet."""

    received: Any
    frame: Frame
    name: str  # of what is kept of it; empty where nothing could be
    about: str
    expires: datetime
    failed: int = 0  # times it could not be sent over a connection that was there


class Sending:
    """The answers that the server does not have yet, oldest first."""

    def __init__(self, link: FleetLink, kept: Kept, now: Callable[[], datetime]) -> None:
        """`now` is UTC: whether an answer that cannot be sent has expired."""
        self._link = link
        self._kept = kept
        self._now = now
        self._waiting: deque[_Unsent] = deque()

    def recall(self) -> None:
        """Take up what an earlier agent could not send."""
        for waiting in self._kept.pending():
            try:
                received = self._link.recall(waiting.link)
            except IntegrityError as error:
                _log.warning("the answer to %s was dropped: %s", waiting.about, error)
                self._kept.done(waiting.name)
                continue
            _log.info("the answer to %s was not sent yet", waiting.about)
            expires = waiting.expires or waiting.since + UNDATED
            self._waiting.append(_Unsent(received, waiting.frame, waiting.name, waiting.about, expires))

    def begin(self, received: Any, instruction: Frame) -> str:
        """Keep what answering needs, before an instruction is carried out; returns its name, empty where it cannot."""
        try:
            return self._kept.begin(self._link.note(received), instruction)
        except StorageError as error:
            # What the disk is too full for, the handler refuses by name.
            _log.warning("%s; the answer would not survive this process", error)
            return ""

    def add(self, name: str, received: Any, instruction: Frame, reply: Frame) -> None:
        """Hold an answer until it is sent."""
        if name:
            try:
                self._kept.answered(name, reply)
            except FedsiteError as error:
                _log.warning("%s; the answer would not survive this process", error)
        header = read_header(instruction.header)
        expires = expiry(header) or self._now() + UNDATED
        self._waiting.append(_Unsent(received, reply, name, describe(header), expires))

    def send(self) -> None:
        """Send what waits.

        Raises:
            UnreachableError, TrustError: of the link; what was not sent goes on waiting.
        """
        while self._waiting:
            unsent = self._waiting[0]
            if not self._push(unsent):
                _log.warning("the answer to %s %s and was dropped", unsent.about, self._why(unsent))
            self._waiting.popleft()
            if unsent.name:
                self._kept.done(unsent.name)

    def left(self) -> dict[str, int]:
        """How many answers wait, for the status screen; empty when none does."""
        return {"unsent": len(self._waiting)} if self._waiting else {}

    def _push(self, unsent: _Unsent) -> bool:
        """False when nobody wants it: the server says so, or will not take it, and its attempt has expired."""
        try:
            return self._link.push(unsent.received, unsent.frame, partial(self._kept.noted, unsent.name))
        except UnreachableError as error:
            unsent.failed += 1
            if not self._expired(unsent) or unsent.failed < TRIES:
                raise
            _log.warning("%s", error)
            return False

    def _expired(self, unsent: _Unsent) -> bool:
        return self._now() >= unsent.expires

    def _why(self, unsent: _Unsent) -> str:
        if self._expired(unsent):
            return f"expired with its attempt at {instants.text(unsent.expires)}"
        return "is not waited for any more"
