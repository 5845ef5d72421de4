"""What a budget's rows say of each run and unit, and which of them concern the same data."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fedsite.client.ledger.budget_rows import Rows
from fedsite.client.ledger.covered import Covered, unknown, unpack
from fedsite.privacy.accounting import Spend, merged
from fedsite.protocol.plan import SITE


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one run has cost one privacy unit."""

    run_id: str
    unit: str
    source: str
    task: str
    epsilon: float | None  # what the run costs this unit as a whole
    delta: float
    created: str
    finished: str | None
    reserved: tuple[Spend, ...]
    spent: tuple[Spend, ...]
    covered: Covered | None  # whose records it reads; None: it has not been asked for anything yet

    @property
    def charged(self) -> tuple[Spend, ...]:
        """What counts against the cap: the larger of reserved and spent while the run is open, then what was spent."""
        return self.spent if self.finished else larger(self.reserved, self.spent)

    def concerns(self, unit: str, source: str, covered: Covered | None) -> bool:
        """Whether what this run costs counts for `unit` of a source, or of what was found to be covered.

        Windows are other windows at other times. An entity is the same at all times, and a site is one whatever it
        reads.
        """
        if self.unit != unit:
            return False
        if unit == SITE or overlap(self.source, source):
            return True
        if self.covered is None:
            return bool(self.spent)  # of whose records, nobody can say
        if self.covered == unknown():
            return True
        return covered is not None and covered.meets(self.covered, timed=unit == "window")


def concerning(entries: Sequence[Entry], unit: str, source: str, covered: Covered | None = None) -> list[Entry]:
    """The entries of one unit that concern a source, or the records in question.

    Args:
        entries: of the whole budget.
        unit: the privacy unit.
        source: the data source.
        covered: the records; None: those that runs on this source are known to read.
    """
    if covered is None:
        for entry in entries:
            if entry.covered is not None and overlap(entry.source, source):
                covered = entry.covered if covered is None else covered.joined(entry.covered)
    return [entry for entry in entries if entry.concerns(unit, source, covered)]


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


def entries_of(rows: Rows) -> list[Entry]:
    """Every run and unit, oldest first."""
    found = []
    for run_id, kept in rows.runs.items():
        reserved, spent, covered = kept.tables["reserved"], kept.tables["spent"], covered_of(rows, run_id)
        for _, unit, source, task, _, epsilon, delta, created, finished in kept.tables["run"]:
            found.append(
                Entry(
                    run_id=run_id, unit=unit, source=source, task=task, epsilon=epsilon, delta=delta, created=created,
                    finished=finished, covered=covered,
                    reserved=merged(from_values([row[2:5] for row in reserved if row[1] == unit])),
                    spent=merged(from_values([row[3:6] for row in spent if row[1] == unit])),
                )
            )  # fmt: skip
    return sorted(found, key=lambda entry: (entry.created, entry.run_id, entry.unit))


def covered_of(rows: Rows, run_id: str) -> Covered | None:
    """Whose records a run reads, where it is known."""
    kept = rows.of(run_id, "coverage")
    return unpack(*kept[0][1:]) if kept else None


def steps_of(spends: Sequence[Spend]) -> dict[tuple[float, float], int]:
    """Steps by mechanism: (noise multiplier, sampling rate)."""
    return {(spend.noise_multiplier, spend.sampling_rate): spend.steps for spend in merged(spends)}


def larger(reserved: Sequence[Spend], spent: Sequence[Spend]) -> tuple[Spend, ...]:
    """Per mechanism, the more of the two: what an open run counts."""
    first, second = steps_of(reserved), steps_of(spent)
    steps = {key: max(first.get(key, 0), second.get(key, 0)) for key in first | second}
    return merged(from_values([[*key, count] for key, count in steps.items()]))
