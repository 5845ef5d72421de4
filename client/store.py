"""What the site keeps of a run until it ends: the accepted plan, the noised values, and the reply as it was sent.

A reply is on disk before it leaves, so that the same instruction always gets the same bytes, also after kill -9.

What is kept is bounded, and still nothing is answered twice. Of each kind of instruction the last two replies keep
their bytes, by attempt and then round, which both only rise; whatever comes before a reply that was dropped is refused
as replayed, answered or not. A run that ended keeps that it has ended; when nothing was heard of it for `REMEMBERED_S`,
it goes too, and from then on no run is begun whose id, and so its time, is not later.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from fedsite.protocol import audit, documents, ids, messages
from fedsite.protocol.errors import DocumentError, RefusalCode, TrustError
from fedsite.protocol.kept import checked, decode, encode, keep
from fedsite.protocol.messages import NEXT, Frame, Header
from fedsite.protocol.secagg.manifest import Manifest
from fedsite.protocol.storage import private_directory, write_atomic

KEEP_REPLIES = 2  # of each kind
KEEP_ROUNDS = 2  # of released values
SILENT_S = 30 * 86_400.0  # after which an open run ends here; its reservation stays (fedsite privacy --close)
REMEMBERED_S = 90 * 86_400.0  # after which a run that ended is known by the floor alone
_FINISHED = "finished"
_CLOSED = "closed.json"  # kind -> [attempt, round] up to which replies are no longer held
_FLOOR = "floor"  # run id up to which runs that are not here are not begun
# What an instruction brings that its values do not depend on.
_ASIDE = ("plan", "secagg", NEXT, audit.FIELD, audit.HELD)
_AFTER = ("install", "finish")  # what may still come when a run has ended


class Outbox:
    """Files below `site/outbox/<run>`; one writer, the agent."""

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Open the directory, made when it is not there; `clock` gives seconds since 1970."""
        self.directory = directory
        self._clock = clock
        private_directory(directory)

    def accept(self, run_id: str, plan: bytes) -> None:
        """Keep the plan that a run was accepted with."""
        folder = self.folder(run_id)
        private_directory(folder)
        write_atomic(folder / "plan.json", plan)

    def plan(self, run_id: str) -> bytes | None:
        """The accepted plan of a run that is still open."""
        return kept_plan(self.directory, run_id)

    def reply(self, header: Header) -> Frame | None:
        """The stored reply to this very instruction.

        Raises:
            TrustError: it was answered and its bytes are gone, or may have been, or its run has ended (`replayed`).
            IntegrityError: what is kept is damaged (`storage`).
        """
        folder = self.folder(header.run_id)
        path = folder / f"{_name(header)}.reply"
        if path.exists():
            return decode(checked(path))
        ended = header.kind not in _AFTER and (folder / _FINISHED).exists()
        gone = not folder.exists() and header.run_id <= self._floor()
        if ended or gone or [header.attempt, header.round] <= _closed(folder).get(_kind(header), [0, 0]):
            raise _replayed(header)
        return None

    def stored(self, header: Header, instruction: str) -> Frame | None:
        """The stored reply to the instruction with this hash, whatever became of its run; None when there is none.

        Raises:
            IntegrityError: it is damaged.
        """
        path = self.folder(header.run_id) / f"{_name(header)}.reply"
        if not path.exists():
            return None
        frame = decode(checked(path))
        return frame if messages.read_reply(frame.header).instruction == instruction else None

    def values(self, header: Header, terms: str = "") -> bytes | None:
        """The noised values released for an earlier attempt of the same work on the same model.

        Args:
            header: of the instruction.
            terms: of the sum they are for (`terms_of`); empty outside a secure sum.

        Raises:
            IntegrityError: they are damaged (`storage`): others in their place would be a second release.
        """
        path = self.folder(header.run_id) / f"{_work(header)}.values"
        if not path.exists():
            return None
        digest, _, data = checked(path).partition(b"\n")
        return data if digest == basis(header, terms).encode("ascii") else None

    def keep_values(self, header: Header, data: bytes, terms: str = "") -> None:
        """Keep released values: another attempt sends these again instead of paying for new ones."""
        folder = self.folder(header.run_id)
        private_directory(folder)
        keep(folder / f"{_work(header)}.values", basis(header, terms).encode("ascii") + b"\n" + data)

    def keep_reply(self, header: Header, frame: Frame) -> None:
        """Keep a reply, before it is sent; drop older ones of its kind, and values that no attempt will ask for."""
        folder = self.folder(header.run_id)
        private_directory(folder)
        keep(folder / f"{_name(header)}.reply", encode(frame))
        kind = _kind(header)
        held = sorted((_position(path), path) for path in folder.glob(f"*-{kind}-*.reply"))
        if dropped := held[:-KEEP_REPLIES]:
            closed = _closed(folder)
            closed[kind] = max(dropped[-1][0], closed.get(kind, [0, 0]))
            keep(folder / _CLOSED, documents.canonical(closed))
        for _, path in dropped:
            path.unlink(missing_ok=True)
        for path in folder.glob("*.values"):
            # A driver that takes over asks for round 0 again, and then for the round that its predecessor died in.
            if header.round and abs(int(path.name.partition("-")[0]) - header.round) >= KEEP_ROUNDS:
                path.unlink(missing_ok=True)

    def finish(self, run_id: str) -> None:
        """Drop everything of a run but the fact that it has ended, and what is left of runs that ended long ago."""
        self._end(self.folder(run_id))
        self._forget(self._clock() - REMEMBERED_S)

    def tidy(self) -> list[str]:
        """End the runs of which nothing was heard for `SILENT_S`, and forget those that ended long ago.

        Returns:
            The ids of the runs that were still open.
        """
        before = self._clock() - SILENT_S
        old = [folder for folder in self._folders() if not (folder / _FINISHED).exists() and _heard(folder) < before]
        still_open = [folder.name for folder in old if (folder / "plan.json").exists()]
        for folder in old:
            self._end(folder)
        self._forget(self._clock() - REMEMBERED_S)
        return still_open

    def _end(self, folder: Path) -> None:
        private_directory(folder)
        write_atomic(folder / _FINISHED, b"")
        for path in folder.iterdir():
            if path.name not in (_FINISHED, _CLOSED) and "-finish-" not in path.name and "-install-" not in path.name:
                path.unlink(missing_ok=True)

    def _forget(self, before: float) -> None:
        """Let the floor stand for runs that ended, were begun, and were last heard of, before `before`."""
        old = [folder for folder in self._folders() if (folder / _FINISHED).exists() and _heard(folder) < before]
        # An id with a time still to come would keep out every run until then.
        old = [folder for folder in old if _begun(folder.name) < before]
        if not old:
            return
        floor = max(self._floor(), *(folder.name for folder in old))
        keep(self.directory / _FLOOR, floor.encode("ascii"))
        for folder in old:
            shutil.rmtree(folder, ignore_errors=True)

    def _folders(self) -> list[Path]:
        """Of runs: whatever else lies here has another name."""
        return sorted(path for path in self.directory.iterdir() if path.is_dir() and _is_run(path.name))

    def _floor(self) -> str:
        path = self.directory / _FLOOR
        return checked(path).decode("ascii") if path.exists() else ""

    def folder(self, run_id: str) -> Path:
        """Where everything kept of a run lies, and what goes with it; not made here.

        Raises:
            TrustError: not a run's id.
        """
        return _folder(self.directory, run_id)


def kept_plan(directory: Path, run_id: str) -> bytes | None:
    """The plan that an open run was accepted with, from an outbox that is looked at only.

    Raises:
        TrustError: not a run's id.
    """
    path = _folder(directory, run_id) / "plan.json"
    return path.read_bytes() if path.exists() else None


def _folder(directory: Path, run_id: str) -> Path:
    if not run_id.isalnum() or len(run_id) > 64:
        raise TrustError(f"run id {run_id[:64]!r}", allowed="a ULID", refusal=RefusalCode.MALFORMED)
    return directory / run_id


def release_name(header: Header, values: bytes, terms: str = "") -> str:
    """What the budget knows a release by: the same vector again is one release, another one never passes for it."""
    return f"{_work(header)}-{hashlib.sha256(terms.encode('ascii') + values).hexdigest()}"


def failure_name(header: Header) -> str:
    """What the budget knows it by that work failed: each attempt and each graph tells something of its own."""
    return f"{_work(header)}-failed-{header.attempt}-{basis(header, '')}"


def terms_of(header: Header, manifest: Manifest | None) -> str:
    """What values for a sum depend on beside their instruction: its grid, and the attempt where the noise is the sum's.

    A part of the noise is too little for its own values: masked again it would be in a second sum, against which the
    first one's noise does not count. So each attempt draws its own, and is paid for.
    """
    if manifest is None:
        return ""
    return f"{manifest.hash.hex()}-{header.attempt}" if manifest.noise else manifest.hash.hex()


def _kind(header: Header) -> str:
    """A stage of a sum is a kind of its own for each purpose."""
    return f"{header.kind}.{header.purpose}" if header.purpose else header.kind


def _name(header: Header) -> str:
    return f"{header.round:06d}-{_kind(header)}-{header.attempt}"


def _work(header: Header) -> str:
    return f"{header.round:06d}-{header.kind}"


def basis(header: Header, terms: str) -> str:
    """What the values were computed from: the same work on other weights is new work, and is paid for again.

    Under whose masks they go, and which sum comes next, is no part of it.
    """
    blobs = {name: digest for name, digest in header.blobs.items() if name not in _ASIDE}
    body = {name: value for name, value in header.body.items() if name not in _ASIDE}
    parts = [header.plan_hash, header.model_hash, blobs, body] + ([terms] if terms else [])
    return hashlib.sha256(documents.canonical(parts)).hexdigest()


def _position(path: Path) -> list[int]:
    """[attempt, round] of a stored reply: the order in which a run asks for one kind of thing."""
    number, _, attempt = path.stem.split("-")
    return [int(attempt), int(number)]


def _closed(folder: Path) -> dict[str, list[int]]:
    path = folder / _CLOSED
    return dict(json.loads(checked(path))) if path.exists() else {}


def _heard(folder: Path) -> float:
    return folder.stat().st_mtime


def _is_run(name: str) -> bool:
    try:
        return bool(ids.run_bytes(name))
    except DocumentError:
        return False


def _begun(run_id: str) -> float:
    """Seconds since 1970 at which a ULID was made."""
    return int.from_bytes(ids.run_bytes(run_id)[:6], "big") / 1000


def _replayed(header: Header) -> TrustError:
    return TrustError(
        f"{header.kind} of round {header.round}, attempt {header.attempt}, run {header.run_id} was answered before",
        allowed="each instruction once",
        refusal=RefusalCode.REPLAYED,
    )
