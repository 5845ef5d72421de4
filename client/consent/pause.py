"""A pause: the operator's word that this site's data is not to be touched for a while, or until it is taken back.

It is a file, so that it outlives the agent; agent and command line read and write the same one. A paused agent stays
connected, and answers what would begin anything with `not-now` (consent.BEGINS); what is being worked on ends first,
and a secure sum whose values have left is brought to its end. The end of a pause goes by this host's clock.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from fedsite.client.audit import log
from fedsite.client.identity import site
from fedsite.protocol import documents, instants, storage
from fedsite.protocol.errors import ConfigError, DocumentError, FedsiteError

FILE: Final = "pause.json"
SCHEMA: Final = "fedsite.site-pause/1"
MAX_REASON: Final = 200  # characters
MAX_BYTES: Final = 1 << 16
LONGEST: Final = timedelta(days=366)


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
        StorageError, IntegrityError: the audit log cannot be written; the pause holds.
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
    log.record(directory, "paused", {**plain(wanted), "by": site.person()})
    return wanted, True


def end(directory: Path, now: datetime) -> bool:
    """End the pause; False when none held.

    Raises:
        StorageError, IntegrityError: the audit log cannot be written, or the file not be removed; the pause holds.
    """
    held = read(directory, now) is not None
    path = directory / FILE
    if held:
        log.record(directory, "resumed", {"by": site.person()})
    if os.path.lexists(path):
        with storage.storage_errors(path):
            path.unlink(missing_ok=True)
            storage.sync_directory(directory)
    return held


def why_not(directory: Path, clock: Callable[[], datetime] = instants.now) -> str | None:
    """Why nothing begins now, for conditions.gate; None while no pause holds."""
    found = read(directory, clock())
    return None if found is None else f"the agent is paused since {instants.text(found.since)}, {end_of(found)}"


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


def end_of(found: Pause) -> str:
    """When it ends, for people."""
    return "until fedsite resume" if found.until is None else f"until {instants.text(found.until)}"
