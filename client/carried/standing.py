"""How a site without a network stands: that it is one, and what waits to be carried to the server, since when.

A site is carried from its first file on, until an agent of it has reached the server. Reads the folder of the answers
and changes nothing in it, but for the mark.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fedsite.client.carried import answers
from fedsite.client.health import checks
from fedsite.client.health.findings import Finding
from fedsite.protocol import documents, instants
from fedsite.protocol.storage import private_directory, read, storage_errors, write_atomic

SCHEMA: Final = "fedsite.exchange-exported-answers/1"
_MARK: Final = "carried"
_EXPORTED: Final = "exported.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Answers of a carried site that still count."""

    waiting: int = 0  # in no exported file yet
    since: datetime | None = None  # when the oldest of those was made
    until: datetime | None = None  # when the first of those counts no more
    exported: int = 0  # in an exported file, which may still be on its way
    exported_at: datetime | None = None  # when a file was made last


def mark(directory: Path) -> None:
    """From now on this site is carried.

    Raises:
        StorageError: that cannot be written.
    """
    write_atomic(private_directory(directory / answers.FOLDER) / _MARK, b"")


def unmark(directory: Path) -> None:
    """This site is connected; nothing depends on whether that could be written."""
    with contextlib.suppress(OSError):
        (directory / answers.FOLDER / _MARK).unlink(missing_ok=True)


def is_carried(directory: Path) -> bool:
    """Whether this site took part by files last."""
    return (directory / answers.FOLDER / _MARK).exists()


def note_exported(directory: Path, instructions: Iterable[str], now: datetime) -> None:
    """Remember which instructions' answers are in the file that was just written.

    Raises:
        StorageError: that cannot be written; they count as waiting.
    """
    value = {"schema": SCHEMA, "at": instants.text(now), "answers": sorted(instructions)}
    write_atomic(directory / answers.FOLDER / _EXPORTED, documents.canonical(value))


def look(directory: Path, now: datetime) -> Standing:
    """What waits.

    Raises:
        DocumentError, IntegrityError, StorageError: something in the folder is damaged, or cannot be read.
    """
    folder = directory / answers.FOLDER
    at, known = _exported(folder / _EXPORTED)
    kept = [(path, item) for path, item in answers.kept(folder) if now < item.expires]
    new = [(path, item) for path, item in kept if path.stem not in known]
    with storage_errors(folder):
        made = [datetime.fromtimestamp(path.stat().st_mtime, UTC) for path, _ in new]
    return Standing(
        waiting=len(new),
        since=min(made, default=None),
        until=min((item.expires for _, item in new), default=None),
        exported=len(kept) - len(new),
        exported_at=at,
    )


def finding(found: Standing, now: datetime) -> Finding | None:
    """Whether there is something to carry."""
    last = "" if found.exported_at is None else f"; the last file was made {checks.ago(found.exported_at, now)}"
    if found.waiting and found.since is not None and found.until is not None:
        return Finding(
            code="carried",
            severity="info",
            title=_count(found.waiting, "waits", "wait") + " to be carried",
            text=f"the oldest was made {checks.ago(found.since, now)}; the first counts until "
            f"{instants.text(found.until)}{last}",
            remedy="fedsite exchange export FILE, and carry that to the central team",
        )
    if found.exported:
        return Finding(
            code="carried",
            severity="info",
            title=_count(found.exported, "is", "are") + " in the last file",
            text=last.removeprefix("; "),
            remedy="nothing, once that file was carried; where it was lost: fedsite exchange export FILE",
        )
    return None


def plain(found: Standing | None) -> dict[str, Any] | None:
    """As JSON; null for a connected site."""
    if found is None:
        return None

    def text(moment: datetime | None) -> str | None:
        return None if moment is None else instants.text(moment)

    return {
        "waiting": found.waiting,
        "since": text(found.since),
        "until": text(found.until),
        "exported": found.exported,
        "exported_at": text(found.exported_at),
    }


def _count(number: int, one: str, more: str) -> str:
    return f"an answer {one}" if number == 1 else f"{number} answers {more}"


def _exported(path: Path) -> tuple[datetime | None, set[str]]:
    if not path.exists():
        return None, set()
    value = documents.document(read(path), SCHEMA)
    return instants.read(str(value.get("at"))), {str(name) for name in value.get("answers") or ()}
