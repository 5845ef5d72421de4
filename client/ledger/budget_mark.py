"""How far the budget was written, in a file of its own: a budget that is gone, or older than that, is noticed.

A database that lost its last writes (a damaged write-ahead log, a copy put back) is whole in itself and says that less
was spent. The mark follows each commit, so it may be behind the budget after a crash, and never ahead.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

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


def check(budget: Path, mark: Mark | None, found: Mark | None) -> None:
    """Refuse a budget that is not the one marked, or is older.

    Args:
        budget: its file.
        mark: as it was read before the budget was.
        found: what the budget says of itself; None: it is empty, missing, or of a version without marks.

    Raises:
        BudgetError: what was spent is not all in it.
    """
    if mark is None:
        return
    if found is None:
        raise BudgetError(f"{budget} is missing or empty, and this site has spent before", next_step=remedy(budget))
    if found.budget != mark.budget:
        raise BudgetError(f"{budget} is another site's, or another budget of this one", next_step=remedy(budget))
    if found.sequence < mark.sequence:
        raise BudgetError(
            f"{budget} is older than what was written here (change {found.sequence} of {mark.sequence})",
            next_step=remedy(budget),
        )


def remedy(budget: Path) -> str:
    """What to do about it: the operator's decision, and never ours."""
    return (
        f"restore {budget} (with its -wal file) from a newer backup; until then this site refuses private runs, because"
        f" what was spent is unknown. Deleting {path_of(budget).name} accepts the file as it is: spends that are not in"
        " it are then forgotten"
    )
