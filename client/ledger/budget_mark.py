"""How far the budget was written, in a file of its own: a budget that is gone, or older than that, is noticed.

A database that lost its last writes (a damaged write-ahead log, a copy put back) is whole in itself and says that less
was spent. The mark follows each commit, so it may be behind the budget after a crash, and never ahead.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from fedsite.client.audit.witness import Witness
from fedsite.protocol import documents, shape, storage
from fedsite.protocol.errors import BudgetError, DocumentError

_SCHEMA: Final = "fedsite.budget-mark/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Which budget, and the number of its last change."""

    schema: Literal["fedsite.budget-mark/1"] = _SCHEMA
    budget: str
    sequence: int


def path_of(budget: Path) -> Path:
    """Where the mark of a budget is."""
    return budget.with_suffix(".mark")


def read(budget: Path) -> Mark | None:
    """The mark of a budget; None where none was ever written here.

    Raises:
        BudgetError: it is damaged.
        StorageError: it cannot be read.
    """
    path = path_of(budget)
    if not path.exists():
        return None
    try:
        return shape.read(Mark, documents.document(storage.read(path), _SCHEMA))
    except DocumentError as error:
        raise BudgetError(f"{path} is damaged ({error.found})", next_step=remedy(budget)) from None


def write(budget: Path, mark: Mark) -> None:
    """Replace the mark.

    Raises:
        StorageError: it cannot be written; the one before stays.
    """
    storage.write_atomic(path_of(budget), documents.canonical(shape.plain(mark)))


def check(budget: Path, mark: Mark | None, found: Mark | None, seen: Witness | None = None) -> None:
    """Refuse a budget that is not the one marked, or is older.

    Args:
        budget: its file.
        mark: as it was read before the budget was.
        found: what the budget says of itself; None: it is empty, missing, or of a version without marks.
        seen: what the site's audit log says of it, read before the budget was; None: nothing.

    Raises:
        BudgetError: what was spent is not all in it.
    """
    if seen is not None and seen.set_back:
        held = "" if seen.held is None else f" (entry {seen.held.sequence} of its audit log)"
        raise BudgetError(
            f"{budget} was set back with all of {budget.parent}: the centre has seen more of this site{held}",
            next_step=remedy(budget),
        )
    told = None if seen is None else Mark(budget=seen.budget, sequence=seen.sequence)
    for known, where in ((mark, ""), (told, ", says the audit log")):
        if known is None:
            continue
        if found is None:
            raise BudgetError(
                f"{budget} is missing or empty, and this site has spent before{where}", next_step=remedy(budget)
            )
        if found.budget != known.budget:
            raise BudgetError(
                f"{budget} is another site's, or another budget of this one{where}", next_step=remedy(budget)
            )
        if found.sequence < known.sequence:
            raise BudgetError(
                f"{budget} is older than what was written here (change {found.sequence} of {known.sequence}){where}",
                next_step=remedy(budget),
            )


def remedy(budget: Path) -> str:
    """What to do about it: the operator's decision, and never ours."""
    return (
        f"restore {budget} (with its -wal and .mark files) from a newer backup; until then this site refuses private"
        " runs, because what was spent is unknown. Or end the agent, move a damaged file away, and: fedsite privacy"
        " --accept takes the ledger as it is, and what is not in it is forgotten"
    )
