"""An audit log on the disk: files of whole lines below `audit/<signer>/`, appended to by turns, never written over.

A file is named by the number of its first entry and begins with one that names the log's key, so that each can be
checked alone. Several processes may append (an agent and its operator's commands; a server's link, drivers and
commands): each takes its turn under a lock that the kernel gives back when its holder dies, and first looks where the
log ends now. An entry is on the disk when `append` returns.

After kill -9 in the middle of a line, the next to append completes it where only the end of the line was missing;
otherwise the fragment is set aside in a file of its own, `torn-<number>-….part`, and an entry says so. After an error
of the disk the log is cut back to where it was.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from fedsite.protocol import audit, audit_lines, instants, storage
from fedsite.protocol.audit import Head
from fedsite.protocol.errors import FedsiteError, IntegrityError, StorageError
from fedsite.protocol.keys import SigningKey

FOLDER: Final = "audit"
FILE_BYTES: Final = 4 << 20  # after which a new file is begun
KEEP_FILES: Final = 64  # the newest; older ones are dropped, and an entry says so
HEARD_FILES: Final = 2  # looked through for the last head of each other log
TURN_S: Final = 10.0  # longest wait for another process's turn, seconds
_POLL_S = 0.005


@dataclass(frozen=True, slots=True)
class _End:
    """Where the log ends: its last file, how long that is, and the head."""

    path: Path
    size: int
    head: Head


class AuditFile:
    """One process's hold on one log; any number of processes may have one, and threads may share it."""

    def __init__(
        self,
        folder: Path,
        key: SigningKey,
        *,
        owner: str,
        clock: Callable[[], datetime] = instants.now,
        random: Callable[[int], bytes] = os.urandom,
        file_bytes: int = FILE_BYTES,
        keep_files: int = KEEP_FILES,
        turn_s: float = TURN_S,
    ) -> None:
        """Nothing is opened or written yet.

        Args:
            folder: `audit` in the owner's state directory.
            key: signs; its id names the log.
            owner: "site" or "server", for people.
            clock: UTC.
            random: n random bytes.
            file_bytes: size after which a new file is begun.
            keep_files: so many are kept.
            turn_s: longest wait for another process, seconds.
        """
        self.folder = folder / key.public.id
        self._key = key
        self._owner = owner
        self._clock = clock
        self._random = random
        self._file_bytes = file_bytes
        self._keep_files = keep_files
        self._turn_s = turn_s
        self._threads = threading.Lock()
        self._end: _End | None = None

    def append(self, kind: str, facts: Mapping[str, Any], heads: Mapping[str, Head] | None = None) -> Head:
        """Write one entry; it is on the disk when this returns, and nothing of it is when this raises.

        Args:
            kind: what happened, one word.
            facts: JSON values; never keys, shares, seeds or values.
            heads: of other logs, as they were received.

        Raises:
            StorageError: the disk is full or read-only, or another process does not end its turn.
            IntegrityError: the log's last entry is not what its key signed.
            DocumentError: a fact that JSON cannot hold.
        """
        with self._turn():
            end = self._find_end()
            if end.size >= self._file_bytes:
                end = self._rotate(end)
            end = self._write(end, kind, facts, heads)
            self._end = end
            return end.head

    def head(self) -> Head:
        """Of the log as it is now; it is begun where there is none. Raises as `append`."""
        with self._turn():
            self._end = self._find_end()
            return self._end.head

    def look(self) -> Head | None:
        """Of the last whole entry, without touching anything; None where there is none. For whoever asks how it is.

        Raises:
            StorageError: it cannot be read.
            IntegrityError: it is not what the log's key signed, so that nothing is appended to it.
        """
        for path in reversed(audit_lines.files(self.folder)):
            with storage.storage_errors(path):
                line, _ = audit_lines.last_line(path, path.stat().st_size)
            if line is not None:
                return self._signed(line, path)
        return None

    def heard(self) -> dict[str, Head]:
        """The last head of each other log that the newest files tell of. Raises StorageError."""
        return audit_lines.heard(self.folder, HEARD_FILES)

    def _find_end(self) -> _End:
        """Where the log ends; begins it, or mends its last line, first."""
        paths = audit_lines.files(self.folder)
        if not paths:
            return self._begin(audit.beginning(self._key.public), audit.BEGUN)
        known = self._end
        with storage.storage_errors(paths[-1]):
            size = paths[-1].stat().st_size
        if known is not None and (known.path, known.size) == (paths[-1], size):
            return known
        end = self._read_end(paths)
        # Set aside just now, or by a process that died before it could say so.
        parts = sorted(self.folder.glob(_part(end.head.sequence + 1, "*")))
        return self._write(end, audit.TORN, {"parts": [_told(part) for part in parts]}) if parts else end

    def _read_end(self, paths: list[Path]) -> _End:
        """The last entry of the last file, with what follows it mended; a file without any is begun again."""
        path = paths[-1]
        with storage.storage_errors(path):
            size = path.stat().st_size
            last, rest = audit_lines.last_line(path, size)
        if last is not None:
            head = self._signed(last, path)
        elif len(paths) > 1:
            head = self._read_end(paths[:-1]).head
        else:
            head = audit.beginning(self._key.public)
        end = self._mend(path, size - len(rest), rest, head)
        return end if end.size else self._begin(head, audit.CONTINUED if len(paths) > 1 else audit.BEGUN, path)

    def _mend(self, path: Path, size: int, rest: bytes, head: Head) -> _End:
        """Complete what follows the last whole line of a file, or set it aside."""
        if not rest:
            return _End(path, size, head)
        try:
            entry, made = audit.read_signed(rest, self._key.public)
            if (entry.sequence, entry.previous) == (head.sequence + 1, head.hash):
                self._add(path, size + len(rest), b"\n")
                return _End(path, size + len(rest) + 1, made)
        except FedsiteError:
            pass
        # By the number of the entry that will say so; a file without entries begins with one of another kind.
        number = head.sequence + (1 if size else 2)
        name = _part(number, hashlib.sha256(rest).hexdigest()[:16])
        storage.write_atomic(self.folder / name, rest)
        with storage.storage_errors(path):
            _cut(path, size)
        return _End(path, size, head)

    def _signed(self, line: bytes, path: Path) -> Head:
        try:
            return audit.read_signed(line, self._key.public)[1]
        except FedsiteError as error:
            raise IntegrityError(
                f"the last entry of {path} is not as it was signed ({error.found})",
                allowed="the entry that was written",
                next_step=f"fedsite audit verify; keep {self.folder} for whoever looks into it and move it away, "
                "and a new log begins",
            ) from None

    def _begin(self, head: Head, kind: str, path: Path | None = None) -> _End:
        """Write the first entry of a file."""
        path = self.folder / audit_lines.name(head.sequence + 1) if path is None else path
        own = {"key": self._key.public.text, "owner": self._owner, "version": metadata.version("fedsite")}
        with storage.storage_errors(path):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                storage.give(handle, path)
            finally:
                os.close(handle)
            storage.sync_directory(self.folder)
        return self._write(_End(path, 0, head), kind, own)

    def _rotate(self, end: _End) -> _End:
        """Begin a new file, and drop the oldest ones when that has been said."""
        end = self._begin(end.head, audit.CONTINUED)
        paths = audit_lines.files(self.folder)
        old = paths[: -self._keep_files]
        if old:
            first = paths[len(old)]
            with storage.storage_errors(first), first.open("rb") as file:
                kept = audit.read(file.readline(audit.MAX_LINE).rstrip(b"\n"))
            end = self._write(end, audit.DROPPED, {"through": kept.sequence - 1, "hash": kept.previous})
            for path in old:
                path.unlink(missing_ok=True)
        return end

    def _write(self, end: _End, kind: str, facts: Mapping[str, Any], heads: Mapping[str, Head] | None = None) -> _End:
        at = instants.text(self._clock())
        salt = self._random(audit.SALT_BYTES)
        line, head = audit.make(end.head, self._key, kind=kind, facts=facts, at=at, salt=salt, heads=heads)
        self._add(end.path, end.size, line + b"\n")
        return _End(end.path, end.size + len(line) + 1, head)

    def _add(self, path: Path, size: int, data: bytes) -> None:
        """Append to a file of `size` bytes and wait for the disk; an error leaves it as it was."""
        with storage.storage_errors(path):
            handle = os.open(path, os.O_WRONLY | os.O_APPEND)
            try:
                left = memoryview(data)
                while left:
                    left = left[os.write(handle, left) :]
                os.fsync(handle)
            except OSError:
                self._end = None
                with contextlib.suppress(OSError):
                    os.ftruncate(handle, size)
                    os.fsync(handle)
                raise
            finally:
                os.close(handle)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Hold the log alone."""
        with self._threads:
            storage.private_directory(self.folder)
            path = self.folder / "lock"
            with storage.storage_errors(path):
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                storage.give(handle, path)
                self._wait(handle, path)
                yield
            finally:
                os.close(handle)

    def _wait(self, handle: int, path: Path) -> None:
        until = time.monotonic() + self._turn_s
        while True:
            with storage.storage_errors(path):
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except BlockingIOError:
                    pass
            if time.monotonic() >= until:
                raise StorageError(
                    f"another process has held {path} for {self._turn_s:g} s",
                    allowed="turns that end",
                    next_step=f"look who holds it: fuser {path}",
                )
            time.sleep(_POLL_S)


def _cut(path: Path, size: int) -> None:
    handle = os.open(path, os.O_WRONLY)
    try:
        os.ftruncate(handle, size)
        os.fsync(handle)
    finally:
        os.close(handle)


def _part(sequence: int, which: str) -> str:
    return f"torn-{sequence:012d}-{which}.part"


def _told(path: Path) -> dict[str, Any]:
    data = storage.read(path, limit=4 * audit.MAX_LINE)
    return {"file": path.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
