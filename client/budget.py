"""The site's privacy budget: what every release has cost, over all runs, in a file that survives crashes.

A whole run is reserved before its data is read, each release is committed before it leaves, and what a finished run
did not use is given back. Spends are kept by privacy unit and by data source, never by the name the centre gave the
task: a renamed task inherits what its data has already paid. A run that promises something to two units (windows, and
sites) has an entry for each, and these are never added up. Nothing spent is ever deleted. A file that cannot be read
or does not add up refuses everything (fails closed).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsite.client import budget_file
from fedsite.privacy.accounting import Spend, merged
from fedsite.protocol.errors import BudgetError, RefusalCode, StorageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one run has cost one privacy unit."""

    run_id: str
    unit: str
    source: str
    task: str
    epsilon: float | None  # what the plan claims for the whole run
    delta: float
    created: str
    finished: str | None
    reserved: tuple[Spend, ...]
    spent: tuple[Spend, ...]

    @property
    def charged(self) -> tuple[Spend, ...]:
        """What counts against the cap: the larger of reserved and spent while the run is open, then what was spent."""
        return self.spent if self.finished else _larger(self.reserved, self.spent)


class Budget:
    """One writer of `budget.db`; readers open it with `read_only`."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open the file, made (0600) when it is not there.

        Raises:
            BudgetError: the file is damaged or of a newer version; nothing is allowed until it is restored.
        """
        self.path = path
        with self._guard():
            if read_only:
                self._database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
            else:
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
                self._database = sqlite3.connect(path, isolation_level=None)
                self._database.execute("PRAGMA journal_mode=WAL")
                self._database.execute("PRAGMA synchronous=FULL")
            self._check(read_only)
            if not read_only:
                self._database.execute("PRAGMA foreign_keys=ON")

    def reserve(
        self, *, run_id: str, unit: str, source: str, task: str, plan_hash: str,
        spends: Sequence[Spend], epsilon: float | None, delta: float, now: str,
    ) -> None:  # fmt: skip
        """Set the whole cost of a run to one unit aside; reserving it with the same plan again changes nothing.

        Raises:
            BudgetError: the run is finished, or known with another plan.
        """
        with self._guard(), self._write():
            query = "SELECT unit, plan_hash, finished FROM run WHERE run_id = ?"
            known = self._database.execute(query, (run_id,)).fetchall()
            if any(found[1:] != (plan_hash, None) for found in known):
                raise BudgetError(f"run {run_id} is finished or had another plan", refusal=RefusalCode.WRONG_RUN)
            if any(found[0] == unit for found in known):
                return
            self._database.execute(
                "INSERT INTO run VALUES (?,?,?,?,?,?,?,?,NULL)",
                (run_id, unit, source, task, plan_hash, epsilon, delta, now),
            )
            self._database.executemany(
                "INSERT INTO reserved VALUES (?,?,?,?,?)",
                [(run_id, unit, *row) for row in as_values(merged(spends))],
            )

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
        with self._guard():
            entry = self._entry(run_id, unit)
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
            rows = self._database.execute(
                "SELECT noise, rate, steps FROM spent WHERE run_id = ? AND unit = ? AND release <> ?",
                (run_id, unit, release),
            )
            spent = _steps(from_values(rows.fetchall()))
            held = _steps(entry.reserved)
            for mechanism, steps in _steps(spends).items():
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
        with self._guard(), self._write():
            self._database.executemany(
                "INSERT INTO spent VALUES (?,?,?,?,?,?,?) ON CONFLICT DO NOTHING",
                [
                    (run_id, unit, release, spend.noise_multiplier, spend.sampling_rate, spend.steps, now)
                    for spend in merged(spends)
                ],
            )

    def cancel(self, run_id: str) -> None:
        """Take back what a run reserved, to all units, where nothing was spent because it was refused."""
        with self._guard(), self._write():
            used = self._database.execute("SELECT 1 FROM spent WHERE run_id = ? LIMIT 1", (run_id,)).fetchone()
            if used is None:
                self._database.execute("DELETE FROM reserved WHERE run_id = ?", (run_id,))
                self._database.execute("DELETE FROM run WHERE run_id = ? AND finished IS NULL", (run_id,))

    def finish(self, run_id: str, now: str) -> None:
        """Close a run: what it reserved and did not spend is free again. Unknown or finished runs change nothing."""
        with self._guard(), self._write():
            self._database.execute("UPDATE run SET finished = ? WHERE run_id = ? AND finished IS NULL", (now, run_id))

    def charged(self, unit: str, source: str, *, without: str = "") -> list[Spend]:
        """Everything that counts against the cap of one unit and source, merged, leaving the run `without` out."""
        entries = [entry for entry in self.entries() if entry.unit == unit and overlap(entry.source, source)]
        return list(merged(spend for entry in entries if entry.run_id != without for spend in entry.charged))

    def entries(self) -> list[Entry]:
        """Every run and unit, oldest first."""
        with self._guard():
            runs = self._database.execute("SELECT run_id, unit FROM run ORDER BY created, run_id, unit").fetchall()
            return [entry for run_id, unit in runs if (entry := self._entry(run_id, unit)) is not None]

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _entry(self, run_id: str, unit: str) -> Entry | None:
        row = self._database.execute(
            "SELECT source, task, epsilon, delta, created, finished FROM run WHERE run_id = ? AND unit = ?",
            (run_id, unit),
        ).fetchone()
        if row is None:
            return None
        source, task, epsilon, delta, created, finished = row
        return Entry(
            run_id=run_id, unit=unit, source=source, task=task, epsilon=epsilon, delta=delta, created=created,
            finished=finished, reserved=self._spends("reserved", run_id, unit),
            spent=self._spends("spent", run_id, unit),
        )  # fmt: skip

    def _spends(self, table: str, run_id: str, unit: str) -> tuple[Spend, ...]:
        query = f"SELECT noise, rate, steps FROM {table} WHERE run_id = ? AND unit = ?"  # noqa: S608 - a name of ours
        rows = self._database.execute(query, (run_id, unit))
        return merged(from_values(rows.fetchall()))

    def _check(self, read_only: bool) -> None:
        version = budget_file.version(self._database)
        if version == 1 and read_only:
            self._database = budget_file.copied(self._database)
        elif version in (0, 1) and not read_only:
            with self._write():
                budget_file.bring_up(self._database)
        elif version != budget_file.VERSION:
            raise BudgetError(
                f"{self.path} is of version {version}", allowed=str(budget_file.VERSION), next_step="upgrade fedsite"
            )
        (verdict,) = self._database.execute("PRAGMA quick_check").fetchone()
        if verdict != "ok":
            raise BudgetError(f"{self.path} is damaged ({verdict})", next_step=_restore(self.path))

    @contextlib.contextmanager
    def _write(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        """A database error becomes a refusal: damaged is a budget error, a full or read-only disk a storage error."""
        try:
            yield
        except sqlite3.OperationalError as error:
            where = self.path.parent
            raise StorageError(
                f"{self.path}: {error}", allowed="a writable disk with space left", next_step=f"df -h {where}"
            ) from None
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror}", next_step=f"ls -l {self.path.parent}") from None
        except sqlite3.DatabaseError as error:
            raise BudgetError(f"{self.path} is damaged ({error})", next_step=_restore(self.path)) from None


def overlap(first: str, second: str) -> bool:
    """Whether two sources are the same data: one file, or a folder and what lies in it."""
    longer, shorter = sorted((first, second), key=len, reverse=True)
    return first == second or longer.startswith(shorter.rstrip(os.sep) + os.sep)


def as_values(spends: Sequence[Spend]) -> list[list[Any]]:
    """Spends as plain JSON: [noise multiplier, sampling rate, steps]."""
    return [[spend.noise_multiplier, spend.sampling_rate, spend.steps] for spend in spends]


def from_values(values: Sequence[Sequence[Any]]) -> list[Spend]:
    """The inverse of `as_values`."""
    return [
        Spend(noise_multiplier=float(noise), sampling_rate=float(rate), steps=int(steps))
        for noise, rate, steps in values
    ]


def _steps(spends: Sequence[Spend]) -> dict[tuple[float, float], int]:
    """Steps by mechanism: (noise multiplier, sampling rate)."""
    return {(spend.noise_multiplier, spend.sampling_rate): spend.steps for spend in merged(spends)}


def _larger(reserved: Sequence[Spend], spent: Sequence[Spend]) -> tuple[Spend, ...]:
    """Per mechanism, the more of the two."""
    first, second = _steps(reserved), _steps(spent)
    steps = {key: max(first.get(key, 0), second.get(key, 0)) for key in first | second}
    return merged(from_values([[*key, count] for key, count in steps.items()]))


def _restore(path: Path) -> str:
    return f"restore {path} from a backup; without it this site refuses private runs, because what was spent is unknown"
