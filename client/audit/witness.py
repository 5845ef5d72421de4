"""What this site's own audit log knows of its ledger, so that one set back to a backup, with its mark, is noticed.

An entry tells how far the ledger was written once that is on the disk: the log may be behind the ledger, never ahead.
Where the log itself is behind what the centre has heard of it, the whole state was set back; an entry says so, and
holds until the operator accepts the ledger as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fedsite.protocol import audit, audit_lines, documents, shape, storage
from fedsite.protocol.audit import Head
from fedsite.protocol.audit_file import FOLDER
from fedsite.protocol.errors import FedsiteError

SET_BACK: Final = "set-back"  # kind of the entry that says that this log was ahead of where it is
ACCEPTED: Final = "ledger-accepted"  # kind of the entry that says that the operator takes the ledger as it is
_SITE: Final = "site.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """The newest that a log says of the ledger."""

    at: str  # RFC 3339
    budget: str = ""  # id of the ledger; empty where it was set back
    sequence: int = 0  # of its last change that is known of
    held: Head | None = None  # of this log, as the centre held it when it was found set back, or that was accepted

    def ahead(self, budget: str, sequence: int) -> bool:
        """Whether a ledger with this id and last change is not the one that the log knows, or is behind it."""
        return self.set_back or budget != self.budget or sequence < self.sequence

    @property
    def ledger(self) -> dict[str, Any]:
        """As an entry says it."""
        if self.set_back:
            return {SET_BACK: None if self.held is None else shape.plain(self.held)}
        return {"budget": self.budget, "sequence": self.sequence}

    @property
    def set_back(self) -> bool:
        """Whether this site's state is older than what the centre has seen of it, and nobody has accepted that."""
        return not self.budget


def read(directory: Path) -> Witness | None:
    """What the log in a site's state directory says; None where it says nothing.

    A site that joined anew has a log for each of its identities: its present one decides, if it says anything.

    Raises:
        StorageError: it cannot be read.
    """
    folder = directory / FOLDER
    if not folder.is_dir():
        return None
    found = {path.name: _newest(path) for path in folder.iterdir() if path.is_dir()}
    known = [one for one in found.values() if one is not None]
    return found.get(_own(directory)) or max(known, key=lambda one: one.at, default=None)


def _newest(folder: Path) -> Witness | None:
    """What the newest entry that speaks of the ledger says of it; None where that knows of none, or none speaks."""
    for line in audit_lines.backwards(audit_lines.files(folder)):
        if b'"ledger"' not in line and SET_BACK.encode() not in line:
            continue
        try:
            value = documents.parse(line, limit=audit.MAX_LINE)
            return _witness(value)
        except (FedsiteError, KeyError, TypeError):
            continue  # a line that is damaged, or about something else, says nothing: fedsite audit verify names it
    return None


def _witness(entry: Any) -> Witness | None:
    """What an entry says of the ledger; None: that there is none.

    Raises:
        KeyError, TypeError, DocumentError: it says nothing of it.
    """
    facts, at = entry["facts"], str(entry["at"])
    held = audit.read_head(facts[audit.HELD]) if facts.get(audit.HELD) else None
    if entry["kind"] == SET_BACK:
        return Witness(at=at, held=held)
    after = facts["ledger"]["after"]
    if after is None:
        return None
    if SET_BACK in after:
        return Witness(at=at, held=None if after[SET_BACK] is None else audit.read_head(after[SET_BACK]))
    if not isinstance(after["budget"], str) or not isinstance(after["sequence"], int):
        raise TypeError
    return Witness(at=at, budget=after["budget"], sequence=after["sequence"], held=held)


def _own(directory: Path) -> str:
    """Id of the site that this directory is of; empty where it has not joined."""
    try:
        value = documents.parse(storage.read(directory / _SITE))
    except FedsiteError:
        return ""
    return str(value.get("site_id")) if isinstance(value, Mapping) else ""
