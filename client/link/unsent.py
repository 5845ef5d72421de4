"""Instructions whose answers the server does not have yet, as far as this site knows: kept across kill -9, sent once.

An entry is on disk before an instruction is carried out. It holds what the transport needs to send the answer, and
which instruction it is to; the answer itself lies in the run's folder of the outbox, or here where it is a refusal,
which is kept nowhere else. The entry goes when the server has answered for good. What was not finished when the agent
ended has no answer: its entry is dropped by name, and what was released for it is sent when the server asks again.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from fedsite.client.store import Outbox
from fedsite.protocol import documents, instants, messages, storage
from fedsite.protocol.errors import DocumentError, FedsiteError, IntegrityError
from fedsite.protocol.kept import checked, damaged, decode, encode, keep
from fedsite.protocol.messages import Frame, Header

SCHEMA = "fedsite.unsent/1"
FOLDER = "unsent"  # in the outbox; no run is called that
MAX_BYTES = 64 << 20  # a header, and a refusal

_SUFFIX = ".entry"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An answer that waits to be sent."""

    name: str
    link: bytes  # what the transport needs (FleetLink.note)
    frame: Frame = field(repr=False)
    about: str  # the instruction, in words
    expires: datetime | None  # after which the answer does not count; None where nobody says
    since: datetime


class Unsent:
    """Files below `outbox/unsent`; one writer, the agent."""

    def __init__(self, outbox: Outbox, *, clock: Callable[[], datetime] = instants.now) -> None:
        """Open the directory, made when it is not there; `clock` gives UTC."""
        self.directory = outbox.directory / FOLDER
        self._outbox = outbox
        self._clock = clock
        storage.private_directory(self.directory)

    def begin(self, link: bytes, instruction: Frame) -> str:
        """Keep what is needed to answer an instruction, before it is carried out; returns the entry's name.

        Raises:
            StorageError: the disk is full or read-only.
        """
        name = hashlib.sha256(link + instruction.header).hexdigest()[:32]
        value = {
            "schema": SCHEMA,
            "at": instants.text(self._clock()),
            "link": _text(link),
            "instruction": _text(instruction.header),
            "reply": None,
        }
        keep(self._path(name), documents.canonical(value))
        return name

    def answered(self, name: str, reply: Frame) -> None:
        """Keep an answer that is in no run's folder: a refusal.

        Raises:
            StorageError: the disk is full or read-only.
        """
        if messages.read_reply(reply.header).code is not None:
            self._change(name, {"reply": _text(encode(reply))})

    def noted(self, name: str, link: bytes) -> None:
        """Keep how far sending is. Not worth waiting for the disk: after a power cut it begins anew."""
        with contextlib.suppress(FedsiteError, OSError):
            self._change(name, {"link": _text(link)}, durable=False)

    def done(self, name: str) -> None:
        """Forget it: the server has it, or does not want it."""
        with contextlib.suppress(OSError):
            self._path(name).unlink(missing_ok=True)

    def pending(self) -> list[Waiting]:
        """The answers that wait, oldest first; what has none any more is dropped, and named in the log."""
        found = []
        for path in self.directory.iterdir():  # what a process that was killed was writing
            if path.suffix != _SUFFIX:
                with contextlib.suppress(OSError):
                    path.unlink()
        for path in self.directory.glob(f"*{_SUFFIX}"):
            name = path.name.removesuffix(_SUFFIX)
            try:
                found.append(self._read(name))
            except (FedsiteError, OSError) as error:
                _log.warning("an instruction stays unanswered: %s", error)
                self.done(name)
        return sorted(found, key=lambda waiting: (waiting.since, waiting.name))

    def waiting(self) -> tuple[int, datetime | None]:
        """How many answers wait, and since when the oldest does; changes nothing, for another process to ask."""
        found = []
        for path in self.directory.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(FedsiteError, OSError):
                found.append(self._read(path.name.removesuffix(_SUFFIX)).since)
        return len(found), min(found, default=None)

    def _read(self, name: str) -> Waiting:
        """One entry with its answer.

        Raises:
            IntegrityError: the entry is damaged, or there is no answer to send.
        """
        value = self._value(name)
        try:
            link, instruction = _bytes(value["link"]), _bytes(value["instruction"])
            since = instants.read(str(value["at"]))
            inline = value["reply"]
            frame = None if inline is None else decode(_bytes(inline))
        except (KeyError, TypeError, ValueError):
            raise damaged(self._path(name)) from None
        header = read_header(instruction)
        about = describe(header)
        if frame is None and header is not None:
            frame = self._outbox.stored(header, hashlib.sha256(instruction).hexdigest())
        if frame is None:
            raise IntegrityError(
                f"{about} was being worked on when the agent ended",
                allowed="an answer that is on disk",
                next_step="nothing: what was released for it is sent when the server asks again",
            )
        return Waiting(name=name, link=link, frame=frame, about=about, expires=expiry(header), since=since)

    def _change(self, name: str, changes: dict[str, Any], *, durable: bool = True) -> None:
        keep(self._path(name), documents.canonical({**self._value(name), **changes}), durable=durable)

    def _value(self, name: str) -> dict[str, Any]:
        return documents.document(checked(self._path(name)), SCHEMA, limit=MAX_BYTES)

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}{_SUFFIX}"


def describe(header: Header | None) -> str:
    """An instruction in words, for a log."""
    if header is None:
        return "an instruction that could not be read"
    kind = " of ".join(filter(None, (header.kind, header.purpose)))
    return f"{kind} of run {header.run_id} (round {header.round}, attempt {header.attempt})"


def expiry(header: Header | None) -> datetime | None:
    """When the answer to an instruction counts no more; None where it does not say."""
    try:
        return None if header is None or not header.expires else instants.read(header.expires)
    except DocumentError:
        return None


def read_header(data: bytes) -> Header | None:
    """An instruction's header, not checked; None where it cannot be read."""
    try:
        return messages.read_header(data)
    except DocumentError:
        return None


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
