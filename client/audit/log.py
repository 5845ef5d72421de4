"""The site's audit log: `site/audit/`, written by the agent and, by turns, by the operator's commands.

The site's identity signs it. Each entry that says what left this site also says how far the budget was written before
and after, and holds the centre's head as it came with the instruction; replies bring the centre this log's head.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from fedsite.client.audit import witness
from fedsite.client.identity import site
from fedsite.client.identity.site import Site
from fedsite.client.ledger import budget_mark
from fedsite.protocol import audit, audit_lines, shape
from fedsite.protocol.audit import Head
from fedsite.protocol.audit_file import FOLDER, AuditFile
from fedsite.protocol.errors import FedsiteError
from fedsite.protocol.messages import Header

SPENDING: Final = ("accepted", "released", "masked", "ended")  # kinds that say what became of the budget

_REMEMBERED: Final = 1000  # heads

_log = logging.getLogger(__name__)


class SiteAudit:
    """What the handler tells, and what it is told of the centre's log."""

    def __init__(self, who: Site, budget: Path) -> None:
        """Nothing is opened yet.

        Args:
            who: the site; its key signs.
            budget: file of the budget, whose mark is read.
        """
        self._log = open_log(who)
        self._federation = who.federation.id
        self._budget = budget
        self._before: dict[str, Any] | None = None
        self._heard: Head | None = None  # the newest head of the centre's
        self._noted: Head | None = None  # the newest that stands in this log
        self._known: dict[int, str] = {}  # hashes of the centre's entries that were heard of, by number
        self._told: dict[int, str] = {}  # and of this log's, that were told to the centre or found here

    def __call__(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Write an entry; it is on the disk when this returns.

        Raises:
            StorageError, IntegrityError: it is not, and what it tells of must not happen.
        """
        told = dict(facts)
        if kind in SPENDING:
            told |= {
                "ledger": {"before": self._before, "after": self._ledger()},
                "version": metadata.version("fedsite"),
            }
        heads = {} if self._heard is None or self._heard == self._noted else {self._federation: self._heard}
        self._log.append(kind, told, heads)
        self._noted = self._heard

    def received(self, header: Header) -> None:
        """Take the centre's head from a checked instruction, where it brings one; it goes into the next entry.

        Raises:
            DocumentError: what it brings is no head.
            StorageError, IntegrityError: this log cannot be read or written.
        """
        self._before = self._ledger()
        if audit.HELD in header.body:
            self._compare(audit.read_head(header.body[audit.HELD]))
        if audit.FIELD not in header.body:
            return
        head = audit.read_head(header.body[audit.FIELD])
        known = self._known.setdefault(head.sequence, head.hash)
        if known != head.hash:
            # Runs are driven side by side, so a lower number alone says nothing; another hash under one number does.
            _log.warning(
                "the centre's audit log has another entry %s than before: it was rewritten, or restored from a backup;"
                " keep this site's log, it holds both: %s", head.sequence, self._log.folder,
            )  # fmt: skip
        while len(self._known) > _REMEMBERED:
            self._known.pop(next(iter(self._known)))
        self._heard = head

    def head(self) -> dict[str, Any]:
        """What a reply's body brings of this log; empty where it cannot be read."""
        with contextlib.suppress(FedsiteError):
            head = self._log.head()
            self._remember(head)
            return {audit.FIELD: shape.plain(head)}
        return {}

    def _compare(self, held: Head) -> None:
        """Note where the centre has heard of an entry that is not in this log: then all of this site was set back."""
        if self._told.get(held.sequence) == held.hash:
            return
        if audit_lines.holds(self._log.folder, held):
            self._remember(held)
            return
        seen = witness.read(self._budget.parent)
        if seen is not None and (seen.set_back or seen.held == held):
            return
        _log.error(
            "this site's state is older than what the centre has seen of it (audit entry %s): it was set back to a"
            " backup, and what was spent since then is not in the ledger; private runs are refused: fedsite privacy",
            held.sequence,
        )  # fmt: skip
        self._log.append(witness.SET_BACK, {audit.HELD: shape.plain(held)})

    def _remember(self, head: Head) -> None:
        self._told[head.sequence] = head.hash
        while len(self._told) > _REMEMBERED:
            self._told.pop(next(iter(self._told)))

    def _ledger(self) -> dict[str, Any] | None:
        """How far the budget was written: its id and the number of its last change; None before the first.

        Where the files are behind what this log says already, that is said again: the newest entry knows all there is.
        """
        try:
            mark = budget_mark.read(self._budget)
        except FedsiteError as error:
            return {"unreadable": str(error.refusal)}
        seen = witness.read(self._budget.parent)
        if seen is not None and (mark is None or seen.ahead(mark.budget, mark.sequence)):
            return seen.ledger
        return None if mark is None else {"budget": mark.budget, "sequence": mark.sequence}


def open_log(who: Site) -> AuditFile:
    """The log of a site; nothing is written yet."""
    return AuditFile(who.directory / FOLDER, who.key, owner="site")


def record(directory: Path, kind: str, facts: Mapping[str, Any]) -> None:
    """Write one entry of a command of the operator's; a host that has not joined has no log.

    Raises:
        StorageError, IntegrityError: it is not written.
    """
    if site.joined(directory):
        open_log(site.load(directory)).append(kind, facts)
