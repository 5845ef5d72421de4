"""What the site keeps of a run until it ends: the accepted plan, the noised values, and the reply as it was sent.

A reply is on disk before it leaves, so that the same instruction always gets the same bytes, also after kill -9. Only
the last two rounds of a run keep their bytes; what is older is known to be answered and is refused as replayed.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

from fedsite.protocol import documents
from fedsite.protocol.errors import IntegrityError, RefusalCode, TrustError
from fedsite.protocol.messages import Frame, Header
from fedsite.protocol.storage import private_directory, write_atomic

KEEP_ROUNDS = 2
_LENGTH = struct.Struct(">Q")
_FINISHED = "finished"
_AFTER = ("install", "finish")  # what may still come when a run has ended


class Outbox:
    """Files below `site/outbox/<run>`; one writer, the agent."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        private_directory(directory)

    def accept(self, run_id: str, plan: bytes) -> None:
        """Keep the plan that a run was accepted with."""
        folder = self._run(run_id)
        private_directory(folder)
        write_atomic(folder / "plan.json", plan)

    def plan(self, run_id: str) -> bytes | None:
        """The accepted plan of a run that is still open."""
        path = self._run(run_id) / "plan.json"
        return path.read_bytes() if path.exists() else None

    def reply(self, header: Header) -> Frame | None:
        """The stored reply to this very instruction.

        Raises:
            TrustError: it was answered and its bytes are gone, or its run has ended (`replayed`).
        """
        folder = self._run(header.run_id)
        path = folder / f"{_name(header)}.reply"
        if path.exists():
            data = path.read_bytes()
            if data:
                return decode(data)
            raise _replayed(header)
        if header.kind not in _AFTER and (folder / _FINISHED).exists():
            raise _replayed(header)
        return None

    def values(self, header: Header) -> bytes | None:
        """The noised values released for an earlier attempt of the same work on the same model."""
        path = self._run(header.run_id) / f"{_work(header)}.values"
        if not path.exists():
            return None
        digest, _, data = path.read_bytes().partition(b"\n")
        return data if digest.decode("ascii") == _basis(header) else None

    def keep_values(self, header: Header, data: bytes) -> None:
        """Keep released values: another attempt sends these again instead of paying for new ones."""
        folder = self._run(header.run_id)
        private_directory(folder)
        write_atomic(folder / f"{_work(header)}.values", _basis(header).encode("ascii") + b"\n" + data)

    def keep_reply(self, header: Header, frame: Frame) -> None:
        """Keep a reply, before it is sent, and drop the bytes of rounds that nobody can ask for again."""
        folder = self._run(header.run_id)
        private_directory(folder)
        write_atomic(folder / f"{_name(header)}.reply", encode(frame))
        for path in folder.glob("[0-9]*-*"):
            if int(path.name.partition("-")[0]) <= header.round - KEEP_ROUNDS:
                _forget(path)

    def finish(self, run_id: str) -> None:
        """Drop everything of a run but the fact that it has ended."""
        folder = self._run(run_id)
        private_directory(folder)
        write_atomic(folder / _FINISHED, b"")
        for path in folder.iterdir():
            if path.name != _FINISHED and "-finish-" not in path.name and "-install-" not in path.name:
                path.unlink(missing_ok=True)

    def end_old(self, before: float) -> list[str]:
        """End the runs of which nothing was heard since `before` (seconds since 1970); their ids."""
        folders = [self._run(run_id) for run_id in self.open_runs()]
        old = [folder.name for folder in folders if folder.stat().st_mtime < before]
        for run_id in old:
            self.finish(run_id)
        return old

    def open_runs(self) -> list[str]:
        """Runs that were accepted and have not ended."""
        return sorted(path.parent.name for path in self.directory.glob("*/plan.json"))

    def _run(self, run_id: str) -> Path:
        if not run_id.isalnum() or len(run_id) > 64:
            raise TrustError(f"run id {run_id[:64]!r}", allowed="a ULID", refusal=RefusalCode.MALFORMED)
        return self.directory / run_id


def encode(frame: Frame) -> bytes:
    """A frame as one byte string: each part with its length before it."""
    parts = [frame.header, frame.signature]
    for name in sorted(frame.blobs):
        parts += [name.encode("utf-8"), frame.blobs[name]]
    return b"".join(_LENGTH.pack(len(part)) + part for part in parts)


def decode(data: bytes) -> Frame:
    """The inverse of `encode`.

    Raises:
        IntegrityError: cut short.
    """
    parts: list[bytes] = []
    at = 0
    while at < len(data):
        if at + _LENGTH.size > len(data):
            raise IntegrityError("a stored message is cut short")
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if at + length > len(data):
            raise IntegrityError("a stored message is cut short")
        parts.append(data[at : at + length])
        at += length
    if len(parts) < 2 or len(parts) % 2:
        raise IntegrityError("a stored message is cut short")
    names = [part.decode("utf-8") for part in parts[2::2]]
    return Frame(header=parts[0], signature=parts[1], blobs=dict(zip(names, parts[3::2], strict=True)))


def release_name(header: Header, values: bytes) -> str:
    """What the budget knows a release by: the same vector again is one release, another one never passes for it."""
    return f"{_work(header)}-{hashlib.sha256(values).hexdigest()}"


def _name(header: Header) -> str:
    return f"{header.round:06d}-{header.kind}-{header.attempt}"


def _work(header: Header) -> str:
    return f"{header.round:06d}-{header.kind}"


def _basis(header: Header) -> str:
    """What the values were computed from: the same work on other weights is new work, and is paid for again."""
    blobs = {name: digest for name, digest in header.blobs.items() if name != "plan"}
    return hashlib.sha256(documents.canonical([header.plan_hash, header.model_hash, blobs, header.body])).hexdigest()


def _forget(path: Path) -> None:
    """Values go; a reply becomes an empty file, which says that it was answered."""
    if path.suffix == ".values":
        path.unlink(missing_ok=True)
    elif path.stat().st_size:
        write_atomic(path, b"")


def _replayed(header: Header) -> TrustError:
    return TrustError(
        f"{header.kind} of round {header.round}, attempt {header.attempt}, run {header.run_id} was answered before",
        allowed="each instruction once",
        refusal=RefusalCode.REPLAYED,
    )
