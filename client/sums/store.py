"""What a site keeps of its secure sums: one encrypted file for each attempt, and which sums it has opened.

The files lie in the run's folder of the outbox and go with it. A file is on disk before the answer it belongs to is
sent. What was opened is a mark of its own that outlives every attempt: a run's rounds of one purpose only rise, so the
last one says all.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedsite.client.store import Outbox
from fedsite.protocol import at_rest, documents, storage
from fedsite.protocol.errors import DocumentError
from fedsite.protocol.kept import checked, damaged, keep
from fedsite.protocol.messages import Purpose
from fedsite.protocol.secagg.advert import Advert, Roster
from fedsite.protocol.secagg.context import Attempt
from fedsite.protocol.secagg.manifest import Manifest
from fedsite.protocol.secagg.site import SiteState

MAX_BYTES = 1 << 28
_OPENED = "opened.json"  # purpose -> [round, instruction]
_SUFFIX = ".sum"
_SECRETS = ("site", "mask_private", "share_private", "secret", "session", "own_share")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Which sum, and which try at it."""

    run_id: str
    round: int
    purpose: Purpose
    attempt: int

    @property
    def order(self) -> tuple[int, int]:
        """In which a run asks for sums of one purpose: attempts rise through a run, rounds within an attempt."""
        return (self.attempt, self.round)

    @property
    def name(self) -> str:
        """Of the file."""
        return f"{self.round:06d}-{self.purpose}-{self.attempt}"

    def __str__(self) -> str:
        return f"{self.purpose} of round {self.round}, attempt {self.attempt}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A site's part in one attempt, and what it last answered."""

    state: SiteState
    model_hash: bytes = b""  # of the session, 32 bytes
    identities: bytes = b""  # certified keys of the roster, 32 bytes each, in its order
    instruction: str = ""  # hash of the instruction that the state has answered
    answer: bytes = field(default=b"", repr=False)  # to it; empty for a masked vector, which can be made again
    vector: str = ""  # SHA-256 of the vector under the masks: another one must never get them

    @property
    def stage(self) -> str:
        """How far it is."""
        return self.state.stage


class SumStore:
    """Files `<round>-<purpose>-<attempt>.sum` and `opened.json` of every run; one writer, the agent."""

    def __init__(self, outbox: Outbox, key: bytes) -> None:
        """`key`: 32 bytes, of this site alone."""
        self._outbox = outbox
        self._key = key

    def load(self, place: Place) -> Kept | None:
        """What is kept of an attempt.

        Raises:
            IntegrityError: the file is damaged, or was written under another key.
        """
        path = self._path(place)
        if not path.exists():
            return None
        data = at_rest.unlock(self._key, storage.read(path, limit=MAX_BYTES), _what(place))
        try:
            return _kept(documents.parse(data, limit=MAX_BYTES))
        except (DocumentError, KeyError, TypeError, ValueError):
            raise damaged(path) from None

    def save(self, place: Place, kept: Kept) -> None:
        """Keep it, before anything of it is sent."""
        storage.private_directory(self._outbox.folder(place.run_id))
        data = documents.canonical(_plain(kept))
        storage.write_atomic(self._path(place), at_rest.lock(self._key, data, _what(place)))

    def drop(self, place: Place) -> None:
        """Forget it, secrets and all."""
        self._path(place).unlink(missing_ok=True)

    def places(self, run_id: str, purpose: Purpose) -> list[Place]:
        """Every attempt kept of one purpose, in order."""
        found = []
        for path in self._outbox.folder(run_id).glob(f"*-{purpose}-*{_SUFFIX}"):
            number, _, attempt = path.stem.split("-")
            found.append(Place(run_id=run_id, round=int(number), purpose=purpose, attempt=int(attempt)))
        return sorted(found, key=lambda place: place.order)

    def opened(self, run_id: str, purpose: Purpose) -> tuple[int, str]:
        """The last round of this purpose that was opened, -1 for none, and the instruction that opened it.

        Raises:
            IntegrityError: the mark is damaged: nothing is opened then.
        """
        path = self._outbox.folder(run_id) / _OPENED
        if not path.exists():
            return -1, ""
        number, instruction = _read(path).get(purpose, [-1, ""])
        return int(number), str(instruction)

    def mark_opened(self, place: Place, instruction: str) -> None:
        """Write down, for good, that this sum is opened; call it before anything is."""
        path = self._outbox.folder(place.run_id) / _OPENED
        known = _read(path) if path.exists() else {}
        keep(path, documents.canonical({**known, place.purpose: [place.round, instruction]}))

    def _path(self, place: Place) -> Path:
        return self._outbox.folder(place.run_id) / f"{place.name}{_SUFFIX}"


def _plain(kept: Kept) -> dict[str, Any]:
    """As JSON."""
    state = kept.state
    attempt = state.attempt
    return {
        "stage": state.stage,
        "manifest": _text(state.manifest.encode()),
        "attempt": [attempt.run_id, attempt.round, attempt.attempt],
        "advert": _text(state.advert.raw),
        "roster": None if state.roster is None else _text(state.roster.raw),
        "u2": _text(b"".join(state.u2)),
        "u3": _text(b"".join(state.u3)),
        "sealed": {source.hex(): _text(item) for source, item in state.sealed.items()},
        "secrets": {name: _text(getattr(state, name)) for name in _SECRETS},
        "model_hash": _text(kept.model_hash),
        "identities": _text(kept.identities),
        "instruction": kept.instruction,
        "answer": _text(kept.answer),
        "vector": kept.vector,
    }


def _kept(value: Mapping[str, Any]) -> Kept:
    """The inverse of `_plain`."""
    manifest = Manifest.parse(_bytes(value["manifest"]))
    run_id, number, attempt = value["attempt"]
    roster = None
    if value["roster"] is not None:
        roster = Roster.parse(_bytes(value["roster"]), most=manifest.sites)
    state = SiteState(
        stage=value["stage"],
        manifest=manifest,
        attempt=Attempt(run_id=run_id, round=number, attempt=attempt, manifest_hash=manifest.hash),
        advert=Advert(_bytes(value["advert"])),
        roster=roster,
        u2=_sites(value["u2"]),
        u3=_sites(value["u3"]),
        sealed={bytes.fromhex(source): _bytes(item) for source, item in value["sealed"].items()},
        **{name: _bytes(value["secrets"][name]) for name in _SECRETS},
    )
    return Kept(
        state=state,
        model_hash=_bytes(value["model_hash"]),
        identities=_bytes(value["identities"]),
        instruction=value["instruction"],
        answer=_bytes(value["answer"]),
        vector=value["vector"],
    )


def _sites(text: str) -> tuple[bytes, ...]:
    data = _bytes(text)
    return tuple(data[start : start + 16] for start in range(0, len(data), 16))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _what(place: Place) -> str:
    return f"sum {place.run_id} {place.name}"


def _read(path: Path) -> dict[str, Any]:
    return dict(documents.parse(checked(path)))
