"""The operator takes a ledger that is older than what was spent, or a new one, as it is: told in the audit log.

Nothing else makes such a ledger count again. A damaged file is not accepted: it is moved away, and a new one begins.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedsite.client import state_directory
from fedsite.client.audit import log as audit_log
from fedsite.client.audit import witness
from fedsite.client.ledger import budget_mark
from fedsite.client.ledger.budget import Budget, reader
from fedsite.protocol import shape, storage
from fedsite.protocol.errors import BudgetError, ConfigError, FedsiteError


def accept(directory: Path, by: str) -> dict[str, Any]:
    """Take the ledger in a state directory as it is; no agent may run.

    Args:
        directory: the site's.
        by: who decides, for the audit log.

    Returns:
        `before` (what was known of it) and `after`, each {budget, sequence} or None.

    Raises:
        ConfigError: there is nothing to accept, or an agent runs.
        BudgetError: the file is damaged.
        StorageError: it cannot be written; the ledger is refused as before.
    """
    path = directory / state_directory.BUDGET
    with state_directory.only_one(directory):
        try:
            whole = reader(path)
        except BudgetError:
            whole = None
        else:
            if whole is not None:
                whole.close()
            raise ConfigError(
                "the ledger is as it was written", allowed="one that is refused", next_step="fedsite privacy"
            )
        seen = witness.read(directory)
        before = None if seen is None or seen.set_back else {"budget": seen.budget, "sequence": seen.sequence}
        budget = _unmarked(path)
        try:
            after = shape.plain(budget.mark())
        finally:
            budget.close()
        ledger = {"before": before, "after": {name: after[name] for name in ("budget", "sequence")}}
        held = {} if seen is None or seen.held is None else {"held": shape.plain(seen.held)}
        audit_log.record(directory, witness.ACCEPTED, {"by": by, "ledger": ledger, **held})
        return ledger


def _unmarked(path: Path) -> Budget:
    """The budget without its mark; one that is damaged keeps it."""
    beside = budget_mark.path_of(path)
    kept = beside.read_bytes() if beside.exists() else None
    beside.unlink(missing_ok=True)
    try:
        return Budget(path, seen=None)
    except FedsiteError:
        if kept is not None:
            storage.write_atomic(beside, kept)
        raise
