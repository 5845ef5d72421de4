"""What a budget's file holds, read whole and checked before a figure is made of it: each run under a seal of its own.

A page can rot without SQLite noticing, and then a step less was spent. So every figure is made of rows that were read
and checked together, and every change begins with that check: nothing damaged is ever sealed anew. The seals are
against accidents; whoever owns the file can write it anew.
"""

from __future__ import annotations

import hashlib
import json
import marshal
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fedsite.client.ledger import budget_mark
from fedsite.client.ledger.budget_mark import Mark
from fedsite.protocol.errors import BudgetError

Row = tuple[Any, ...]
_MOST_DIGESTS: Final = 1 << 15
# Of rows that were read before, by a hash that is made faster: they are read and compared anew each time all the same.
_DIGESTS: Final[dict[bytes, str]] = {}
TABLES: Final = ("run", "reserved", "spent", "coverage")  # each begins with the run's id


@dataclass(slots=True, kw_only=True)
class RunRows:
    """Everything of one run, by table."""

    tables: dict[str, list[Row]] = field(default_factory=lambda: {name: [] for name in TABLES})

    def digest(self) -> str:
        """SHA-256 over all rows, hex; their order does not matter."""
        key = hashlib.sha256(marshal.dumps([self.tables[name] for name in TABLES], 2)).digest()
        found = _DIGESTS.get(key)
        if found is None:
            found = _digest([[name, sorted(map(_text, self.tables[name]))] for name in TABLES])
            if len(_DIGESTS) >= _MOST_DIGESTS:
                _DIGESTS.clear()
            _DIGESTS[key] = found
        return found


@dataclass(slots=True, kw_only=True)
class Rows:
    """A whole budget."""

    mark: Mark
    runs: dict[str, RunRows]
    seals: dict[str, str]

    def of(self, run_id: str, table: str) -> list[Row]:
        """The rows of one run; none where it is not known."""
        found = self.runs.get(run_id)
        return [] if found is None else found.tables[table]


def read(database: sqlite3.Connection, path: Path, *, sealed: bool = True) -> Rows:
    """Every row, from one transaction of the caller's.

    Args:
        database: of version 3.
        path: for messages.
        sealed: whether the seals must fit; they are not there yet in a file that is brought up.

    Raises:
        BudgetError: a seal does not fit its run, or the whole.
    """
    runs: dict[str, RunRows] = {}
    for table in TABLES:
        for row in database.execute(f"SELECT * FROM {table} NOT INDEXED"):  # noqa: S608 - a name of ours
            if row[0] not in runs:
                runs[row[0]] = RunRows()
            runs[row[0]].tables[table].append(row)
    lines = database.execute("SELECT id, sequence, digest FROM ledger NOT INDEXED").fetchall()
    if len(lines) != 1:
        raise damaged(path, f"{len(lines)} lines about itself")
    budget, sequence, total = lines[0]
    digests = {run_id: found.digest() for run_id, found in runs.items()}
    if sealed:
        seals = dict(database.execute("SELECT run_id, digest FROM seal NOT INDEXED").fetchall())
        wrong = [run_id for run_id in {**digests, **seals} if digests.get(run_id) != seals.get(run_id)]
        if wrong:
            raise damaged(path, f"run {wrong[0]} does not fit its seal")
        if total != _total(budget, sequence, digests):
            raise damaged(path, "its runs do not fit the seal over all of them")
    return Rows(mark=Mark(budget=budget, sequence=sequence), runs=runs, seals=digests)


class Change:
    """Rows added and taken away within one transaction, which ends with new seals."""

    def __init__(self, database: sqlite3.Connection, rows: Rows) -> None:
        """Begin with what was read in this transaction."""
        self.rows = rows
        self._database = database
        self._touched: set[str] = set()

    @property
    def made(self) -> bool:
        """Whether there is anything to write."""
        return bool(self._touched)

    def add(self, table: str, rows: Iterable[Row]) -> None:
        """Put rows into a table."""
        for row in rows:
            self._database.execute(f"INSERT INTO {table} VALUES ({','.join('?' * len(row))})", row)  # noqa: S608
            self.rows.runs.setdefault(row[0], RunRows()).tables[table].append(row)
            self._touched.add(row[0])

    def remove(self, run_id: str, *tables: str) -> None:
        """Take all rows of a run out of some tables, the first one first."""
        for table in tables:
            self._database.execute(f"DELETE FROM {table} WHERE run_id = ?", (run_id,))  # noqa: S608
            self.rows.runs[run_id].tables[table] = []
        self._touched.add(run_id)

    def replace(self, run_id: str, table: str, rows: Iterable[Row]) -> None:
        """Other rows of a run in place of what a table holds of it; nothing may refer to them."""
        self.remove(run_id, table)
        self.add(table, rows)

    def finish(self, run_id: str, now: str) -> None:
        """Close the accounts of a run."""
        self._database.execute("UPDATE run SET finished = ? WHERE run_id = ? AND finished IS NULL", (now, run_id))
        accounts = self.rows.runs[run_id].tables
        accounts["run"] = [row if row[-1] is not None else (*row[:-1], now) for row in accounts["run"]]
        self._touched.add(run_id)

    def seal(self, *, everything: bool = False) -> Mark:
        """Write the seals of what was touched, and the one over all; returns the budget's new mark."""
        runs, seals = self.rows.runs, self.rows.seals
        for run_id in sorted(runs if everything else self._touched):
            if any(runs[run_id].tables.values()):
                seals[run_id] = runs[run_id].digest()
                self._database.execute("REPLACE INTO seal VALUES (?,?)", (run_id, seals[run_id]))
            else:
                del runs[run_id], seals[run_id]
                self._database.execute("DELETE FROM seal WHERE run_id = ?", (run_id,))
        budget, sequence = self.rows.mark.budget, self.rows.mark.sequence + 1
        total = _total(budget, sequence, seals)
        self._database.execute("UPDATE ledger SET sequence = ?, digest = ?", (sequence, total))
        self.rows.mark = Mark(budget=budget, sequence=sequence)
        return self.rows.mark


def damaged(path: Path, why: str) -> BudgetError:
    """The refusal of a file that cannot be believed."""
    return BudgetError(f"{path} is damaged ({why})", next_step=budget_mark.remedy(path))


def _total(budget: str, sequence: int, seals: Mapping[str, str]) -> str:
    return _digest([budget, sequence, sorted(_text(seal) for seal in seals.items())])


# Python writes a float with the digits that read back as the same one; a blob stands as hex.
_text: Final = json.JSONEncoder(separators=(",", ":"), default=lambda value: value.hex()).encode


def _digest(value: Any) -> str:
    return hashlib.sha256(_text(value).encode("ascii")).hexdigest()
