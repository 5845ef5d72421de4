"""A run's journal: what happened, in order, written before it is acted upon. One SQLite file, one writer, many readers.

An event is one JSON object, `fedsite.event/1` (docs/rounds.md lists the kinds); `fedsite runs watch` streams them. The
journal also decides which process drives the run: the launcher offers an epoch, a driver claims it by compare-and-set.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedsite.protocol.errors import IntegrityError, StorageError

SCHEMA = "fedsite.event/1"
FILE = "journal.db"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An event that is not on the disk yet."""

    at: str
    kind: str
    fields: dict[str, Any]


class Journal:
    """The writer of one run's journal.

    Raises:
        StorageError: the disk is full, read-only, or the directory cannot be written.
        IntegrityError: the file is of a newer version, or of another run.
    """

    def __init__(self, path: Path, run_id: str, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        # Told of each event before it is written; it may raise.
        self.audit: Callable[[str, Mapping[str, Any]], None] = lambda kind, fields: None
        self._run_id = run_id
        self._clock = clock
        with _storage(path):
            self._db = sqlite3.connect(path, timeout=10.0, isolation_level=None)
            path.chmod(0o600)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._migrate()

    def record(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Append one event and return it; it is on the disk when this returns."""
        self.audit(kind, fields)
        return self.record_all([self.draft(kind, **fields)])[0]

    def draft(self, kind: str, **fields: Any) -> Draft:
        """An event of this moment that `record_all` will write."""
        return Draft(at=timestamp(self._clock()), kind=kind, fields=fields)

    def record_all(self, drafts: Sequence[Draft]) -> list[dict[str, Any]]:
        """Append events in one write: a hundred small ones cost the disk as much as one."""
        found = []
        with _storage(self._path), self._whole():
            for draft in drafts:
                row = self._db.execute(
                    "INSERT INTO events (at, kind, fields) VALUES (?, ?, ?) RETURNING sequence",
                    (draft.at, draft.kind, json.dumps(draft.fields, ensure_ascii=False, allow_nan=False)),
                ).fetchone()
                found.append(_event(self._run_id, row[0], draft.at, draft.kind, draft.fields))
        return found

    def offer(self, epoch: int) -> None:
        """Let one driver claim `epoch`; earlier epochs can no longer be claimed."""
        with _storage(self._path):
            self._db.execute("INSERT INTO epochs (epoch) VALUES (?)", (epoch,))

    def claim(self, epoch: int, owner: str) -> bool:
        """Take `epoch` for `owner`; True for one owner ever, and only if `epoch` is the newest that was offered."""
        with _storage(self._path):
            changed = self._db.execute(
                "UPDATE epochs SET owner = ?"
                " WHERE epoch = ? AND owner IS NULL AND epoch = (SELECT max(epoch) FROM epochs)",
                (owner, epoch),
            )
        return changed.rowcount == 1

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """All of it or nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _migrate(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise IntegrityError(
                f"{self._path} is of version {version}", allowed=f"up to {VERSION}", next_step="upgrade fedsite"
            )
        self._db.executescript(
            "BEGIN IMMEDIATE;"
            "CREATE TABLE IF NOT EXISTS run (run_id TEXT NOT NULL) STRICT;"
            "CREATE TABLE IF NOT EXISTS epochs (epoch INTEGER PRIMARY KEY, owner TEXT) STRICT;"
            "CREATE TABLE IF NOT EXISTS events (sequence INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL,"
            " kind TEXT NOT NULL, fields TEXT NOT NULL) STRICT;"
            f"PRAGMA user_version = {VERSION};"
            "COMMIT;"
        )
        found = self._db.execute("SELECT run_id FROM run").fetchone()
        if found is None:
            self._db.execute("INSERT INTO run VALUES (?)", (self._run_id,))
        elif found[0] != self._run_id:
            raise IntegrityError(f"{self._path} is the journal of run {found[0]}", allowed=f"run {self._run_id}")


class Reader:
    """Reads a journal while another process writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def events(self, after: int = 0) -> list[dict[str, Any]]:
        """The events with a sequence number above `after`, in order; none while there is no file yet.

        Raises:
            StorageError: the file cannot be read.
        """
        if not self._path.exists():
            return []
        with _storage(self._path), closing(self._connect()) as db:
            run = db.execute("SELECT run_id FROM run").fetchone()
            rows = db.execute(
                "SELECT sequence, at, kind, fields FROM events WHERE sequence > ? ORDER BY sequence", (after,)
            ).fetchall()
        return [_event(run[0], sequence, at, kind, json.loads(fields)) for sequence, at, kind, fields in rows]

    def owner(self) -> tuple[int, str | None]:
        """The newest epoch offered (0: none) and who claimed it."""
        if not self._path.exists():
            return 0, None
        with _storage(self._path), closing(self._connect()) as db:
            row = db.execute("SELECT epoch, owner FROM epochs ORDER BY epoch DESC LIMIT 1").fetchone()
        return (0, None) if row is None else (row[0], row[1])

    def follow(self, wait: Callable[[float], None], after: int = 0, poll_s: float = 0.1) -> Iterator[dict[str, Any]]:
        """Every event from `after` on, until the run has finished.

        Args:
            wait: called with the seconds to pause when there is nothing new; it may raise to end the stream.
            after: sequence number of the last event known.
            poll_s: the pause.
        """
        while True:
            found = self.events(after)
            for event in found:
                after = event["sequence"]
                yield event
                if event["kind"] == "finished":
                    return
            if not found:
                wait(poll_s)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=10.0)


def timestamp(seconds: float) -> str:
    """UTC, RFC 3339, milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _event(run: str, sequence: int, at: str, kind: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {"schema": SCHEMA, "run": run, "sequence": sequence, "at": at, "kind": kind, **fields}


@contextmanager
def _storage(path: Path) -> Iterator[None]:
    """SQLite's own errors as ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(
            f"{path}: {error}", next_step="check that the disk has space and the directory is writable: df -h"
        ) from None
