"""A pause: the operator's word that this site's data is not to be touched for a while, or until it is taken back.

It is a file, so that it outlives the agent; agent and command line read and write the same one. A paused agent stays
connected, and answers instructions that touch data with `not-now`; what is being worked on ends first, and a secure sum
that has begun is brought to its end, because its masks touch no data. The end of a pause goes by this host's clock.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from fedsite.protocol import documents, instants, storage
from fedsite.protocol.errors import ConfigError, DocumentError, FedsiteError, PolicyError, RefusalCode

FILE: Final = "pause.json"
SCHEMA: Final = "fedsite.site-pause/1"
TOUCHES_DATA: Final = frozenset({"prepare", "statistics", "train", "evaluate", "calibrate"})  # kinds of instructions
MAX_REASON: Final = 200  # characters
MAX_BYTES: Final = 1 << 16
LONGEST: Final = timedelta(days=366)
_LENGTH: Final = re.compile("(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?")
_SECONDS: Final = (86_400, 3600, 60, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A pause that holds."""

    since: datetime
    until: datetime | None = None  # None: until it is resumed
    reason: str = ""

    def holds(self, now: datetime) -> bool:
        """True before its end."""
        return self.until is None or now < self.until


def read(directory: Path, now: datetime) -> Pause | None:
    """The pause that holds now, or None; a damaged file counts as a pause without an end, because somebody made one.

    Args:
        directory: the site's state directory.
        now: UTC.
    """
    try:
        found = _kept(directory)
    except FedsiteError as error:
        return Pause(since=_whole(now), reason=f"{FILE} is damaged: {error.found}"[:MAX_REASON])
    return found if found is not None and found.holds(now) else None


def begin(directory: Path, lasting: timedelta | None, reason: str, now: datetime) -> tuple[Pause, bool]:
    """Pause from now, or change the end of the pause that holds; returns it, and whether anything changed.

    Args:
        directory: the site's state directory.
        lasting: from now; None: until it is resumed.
        reason: for the operator's own screens.
        now: UTC.

    Raises:
        ConfigError: a length or reason out of range. StorageError: it cannot be written; nothing has changed.
    """
    if lasting is not None and not timedelta(0) < lasting <= LONGEST:
        raise ConfigError(f"a pause of {lasting}", allowed=f"more than 0, at most {LONGEST.days} days")
    if len(reason) > MAX_REASON:
        raise ConfigError(f"a reason of {len(reason)} characters", allowed=f"at most {MAX_REASON}")
    try:
        kept = _kept(directory)
    except FedsiteError:
        kept = None  # damaged: written anew
    before = kept if kept is not None and kept.holds(now) else None
    wanted = Pause(
        since=_whole(now) if before is None else before.since,
        until=None if lasting is None else _whole(now + lasting),
        reason=reason or ("" if before is None else before.reason),
    )
    if wanted == before:
        return wanted, False
    storage.write_atomic(directory / FILE, documents.canonical({"schema": SCHEMA, **plain(wanted)}))
    return wanted, True


def end(directory: Path, now: datetime) -> bool:
    """End the pause; False when none held.

    Raises:
        StorageError: the file cannot be removed; the pause still holds.
    """
    held = read(directory, now) is not None
    path = directory / FILE
    if os.path.lexists(path):
        with storage.storage_errors(path):
            path.unlink(missing_ok=True)
            storage.sync_directory(directory)
    return held


def check(directory: Path, kind: str, now: datetime) -> None:
    """Refuse an instruction of this kind while a pause holds and it touches data.

    Raises:
        PolicyError: not now.
    """
    if kind not in TOUCHES_DATA:
        return
    found = read(directory, now)
    if found is not None:
        raise PolicyError(
            f"the agent is paused since {instants.text(found.since)}",
            allowed="instructions that touch no data, " + _end(found),
            next_step="fedsite resume",
            refusal=RefusalCode.NOT_NOW,
        )


def length(text: str) -> timedelta:
    """How long "2h", "90m", "1d 12h" or "1h30m" is.

    Raises:
        ConfigError: anything else, or longer than a year.
    """
    found = _LENGTH.fullmatch(text.replace(" ", "").lower())
    parts = zip(found.groups(), _SECONDS, strict=True) if found is not None else ()
    total = timedelta(seconds=sum(int(part or 0) * unit for part, unit in parts))
    if not timedelta(0) < total <= LONGEST:
        raise ConfigError(
            f"a pause of {text!r:.40}",
            allowed=f"such as 90m, 2h or 1d12h, at most {LONGEST.days}d",
            next_step="fedsite pause 2h, or fedsite pause until fedsite resume",
        )
    return total


def plain(found: Pause) -> dict[str, Any]:
    """A pause as JSON."""
    return {
        "since": instants.text(found.since),
        "until": None if found.until is None else instants.text(found.until),
        "reason": found.reason,
    }


def _kept(directory: Path) -> Pause | None:
    """What the file says, whether it still holds or not; None without a file.

    Raises:
        DocumentError, StorageError: it is there and cannot be understood.
    """
    path = directory / FILE
    try:
        value = documents.document(storage.read(path, limit=MAX_BYTES), SCHEMA)
    except FedsiteError:
        if not os.path.lexists(path):
            return None
        raise
    until, reason = value.get("until"), value.get("reason", "")
    if not isinstance(reason, str) or not isinstance(value.get("since"), str) or not isinstance(until, str | None):
        raise DocumentError("not a pause", allowed="texts since, until (or null) and reason")
    return Pause(
        since=instants.read(value["since"]), until=None if until is None else instants.read(until), reason=reason
    )


def _whole(moment: datetime) -> datetime:
    """As it is written: whole seconds."""
    return instants.read(instants.text(moment))


def _end(found: Pause) -> str:
    return "until fedsite resume" if found.until is None else f"until {instants.text(found.until)}"
