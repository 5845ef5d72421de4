"""The site's privacy budget: what every release has cost, over all runs, in a file that survives crashes.

A whole run is reserved before its data is read, each release is committed before it leaves, and what a finished run
did not use is given back. Spends are kept by privacy unit, by data source and by the records that were read (keyed
hashes of entities, and times), never by the name the centre gave the task or the file has: renamed, moved, grown or
overlapping data inherits what it has already paid. A run that promises something to two units (windows, and sites) has
an entry for each, and these are never added up. Nothing spent is ever deleted. A file that cannot be read or does not
add up refuses everything (fails closed).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from fedsite.client.audit import witness
from fedsite.client.audit.witness import Witness
from fedsite.client.ledger import budget_file, budget_mark, budget_rows
from fedsite.client.ledger.budget_entries import (
    Entry,
    as_values,
    concerning,
    covered_of,
    entries_of,
    from_values,
    steps_of,
)
from fedsite.client.ledger.budget_rows import Change, Rows
from fedsite.client.ledger.covered import Covered
from fedsite.privacy.accounting import Spend, merged
from fedsite.protocol.errors import BudgetError, RefusalCode


class Budget:
    """One writer of `budget.db`; readers open it with `read_only`."""

    def __init__(self, path: Path, *, read_only: bool = False, seen: Witness | Literal["log"] | None = "log") -> None:
        """Open the file, made (0600) when it is not there.

        Args:
            path: of the file.
            read_only: nothing is written.
            seen: what the site's audit log says of it; None: it is taken as it is (acceptance).

        Raises:
            BudgetError: the file is damaged, older than what was written, or of a newer version; nothing is allowed
                until it is restored.
        """
        self.path = path
        with budget_file.guarded(path):
            mark = budget_mark.read(path)
            # As the mark, it is read before the budget, which then may only be further.
            self._seen = witness.read(path.parent) if seen == "log" else seen
            if not path.exists():
                budget_mark.check(path, mark, None, self._seen)
            if read_only:
                self._database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
            else:
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
                self._database = sqlite3.connect(path, isolation_level=None)
            try:
                self._open(mark, read_only)
            except BaseException:
                self._database.close()
                raise

    def reserve(
        self, *, run_id: str, unit: str, source: str, task: str, plan_hash: str,
        spends: Sequence[Spend], epsilon: float | None, delta: float, now: str,
    ) -> None:  # fmt: skip
        """Set the whole cost of a run to one unit aside; reserving it with the same plan again changes nothing.

        Raises:
            BudgetError: the run is finished, or known with another plan.
        """
        with self._change() as change:
            known = change.rows.of(run_id, "run")
            if any((found[4], found[8]) != (plan_hash, None) for found in known):
                raise BudgetError(f"run {run_id} is finished or had another plan", refusal=RefusalCode.WRONG_RUN)
            if any(found[1] == unit for found in known):
                return
            change.add("run", [(run_id, unit, source, task, plan_hash, epsilon, delta, now, None)])
            change.add("reserved", [(run_id, unit, *row) for row in as_values(merged(spends))])

    def cover(self, run_id: str, covered: Covered) -> None:
        """Write down whose records a run reads, beside what is known already."""
        with self._change() as change:
            if not change.rows.of(run_id, "run"):
                return
            known = covered_of(change.rows, run_id)
            found = covered if known is None else known.joined(covered)
            if found != known:
                change.replace(run_id, "coverage", [(run_id, found.key, found.clock, found.pack())])

    def authorise(self, run_id: str, release: str, spends: Sequence[Spend], *, unit: str, source: str) -> None:
        """Check, before data is read, that a release fits what its run has reserved and not yet spent.

        Args:
            run_id: of the run.
            release: its name when it exists already, which may have been charged; empty for a new one.
            spends: what it costs.
            unit: whom it costs that.
            source: the data it is to be made of.

        Raises:
            BudgetError: it does not fit, the run is unknown or finished, or was reserved on other data.
        """
        rows = self._rows()
        entry = next((found for found in entries_of(rows) if (found.run_id, found.unit) == (run_id, unit)), None)
        if entry is None or entry.finished:
            raise BudgetError(
                f"run {run_id} has no open reservation per {unit}", allowed="a run this site has accepted"
            )
        if entry.source != source:
            raise BudgetError(
                f"run {run_id} was reserved on {entry.source} and would now read {source}",
                allowed="the data that the run was accepted with",
                next_step="put data.path back for this run, or end it: fedsite privacy --close RUN",
                refusal=RefusalCode.WRONG_RUN,
            )
        others = [row[3:6] for row in rows.of(run_id, "spent") if row[1] == unit and row[2] != release]
        spent, held = steps_of(from_values(others)), steps_of(entry.reserved)
        for mechanism, steps in steps_of(spends).items():
            left = max(held.get(mechanism, 0) - spent.get(mechanism, 0), 0)
            if steps > left:
                raise BudgetError(
                    f"release {release} of run {run_id} costs {steps} steps at noise {mechanism[0]:.4g}",
                    allowed=f"{left} steps left of what the run reserved",
                    next_step="fedsite privacy",
                )

    def commit(self, run_id: str, release: str, spends: Sequence[Spend], now: str, *, unit: str) -> None:
        """Write down, for good, that a release has been made; call it before the release can leave.

        The same release committed twice (the agent died before it was sent, or sends it again) is charged once.
        """
        with self._change() as change:
            known = {row[:5] for row in change.rows.of(run_id, "spent")}
            rows = [(run_id, unit, release, *row, now) for row in as_values(merged(spends))]
            change.add("spent", [row for row in rows if row[:5] not in known])

    def cancel(self, run_id: str) -> None:
        """Take back what a run reserved, to all units, where nothing was spent because it was refused."""
        with self._change() as change:
            accounts = change.rows.of(run_id, "run")
            if accounts and not change.rows.of(run_id, "spent") and all(row[8] is None for row in accounts):
                change.remove(run_id, "reserved", "coverage", "run")

    def finish(self, run_id: str, now: str) -> None:
        """Close a run: what it reserved and did not spend is free again. Unknown or finished runs change nothing."""
        with self._change() as change:
            if any(row[8] is None for row in change.rows.of(run_id, "run")):
                change.finish(run_id, now)

    def charged(
        self, unit: str, source: str, *, without: str = "", covered: Covered | None = None, task: str | None = None
    ) -> list[Spend]:
        """Everything that counts against the cap of one unit, merged.

        Args:
            unit: the privacy unit.
            source: the data source.
            without: a run to leave out.
            covered: the records in question; None: those that runs on this source are known to read.
            task: a task's name, where only its runs are asked for.
        """
        wanted = concerning(self.entries(), unit, source, covered)
        others = (entry for entry in wanted if entry.run_id != without and task in (None, entry.task))
        return list(merged(spend for entry in others for spend in entry.charged))

    def covered(self, run_id: str) -> Covered | None:
        """Whose records a run reads, as far as it is known."""
        return covered_of(self._rows(), run_id)

    def entries(self) -> list[Entry]:
        """Every run and unit, oldest first."""
        with budget_file.guarded(self.path):
            return entries_of(self._rows())

    def mark(self) -> budget_mark.Mark:
        """Which budget this is, and the number of its last change."""
        return self._rows().mark

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _open(self, mark: budget_mark.Mark | None, read_only: bool) -> None:
        if not read_only:
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
        budget_file.check(self._database, self.path)
        if budget_file.version(self._database) != budget_file.VERSION:
            budget_mark.check(self.path, mark, None, self._seen)
            if read_only:
                self._database = budget_file.in_memory(self._database)
            self._bring_up(keep_mark=not read_only)
        found = self._rows().mark
        budget_mark.check(self.path, mark, found, self._seen)
        if not read_only:
            self._database.execute("PRAGMA foreign_keys=ON")
            if mark is None:
                budget_mark.write(self.path, found)

    def _bring_up(self, *, keep_mark: bool) -> None:
        with self._transaction("IMMEDIATE"):
            made = budget_file.bring_up(self._database)
            rows = budget_rows.read(self._database, self.path, sealed=not made)
            mark = Change(self._database, rows).seal(everything=True) if made else rows.mark
        if keep_mark:
            budget_mark.write(self.path, mark)

    def _rows(self) -> Rows:
        """Everything, checked: the mark is read before the budget, which then may only be further."""
        with budget_file.guarded(self.path):
            mark = budget_mark.read(self.path)
            with self._transaction("DEFERRED"):
                rows = budget_rows.read(self._database, self.path)
            budget_mark.check(self.path, mark, rows.mark)
            return rows

    @contextlib.contextmanager
    def _change(self) -> Iterator[Change]:
        with budget_file.guarded(self.path):
            with self._transaction("IMMEDIATE"):
                rows = budget_rows.read(self._database, self.path)
                budget_mark.check(self.path, budget_mark.read(self.path), rows.mark)
                change = Change(self._database, rows)
                yield change
                if change.made:
                    change.seal()
            if change.made:
                budget_mark.write(self.path, change.rows.mark)

    @contextlib.contextmanager
    def _transaction(self, kind: str) -> Iterator[None]:
        self._database.execute(f"BEGIN {kind}")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            # A full disk may have rolled it back already.
            with contextlib.suppress(sqlite3.OperationalError):
                self._database.execute("ROLLBACK")
            raise


def reader(path: Path) -> Budget | None:
    """A budget to read; None where none was ever made.

    Raises:
        BudgetError, StorageError: it is damaged, cannot be read, or is gone.
    """
    made = path.exists() or budget_mark.path_of(path).exists() or witness.read(path.parent) is not None
    return Budget(path, read_only=True) if made else None
