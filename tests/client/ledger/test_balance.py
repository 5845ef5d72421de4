"""ε of each data source: counted once for the same charges, and a kept figure is never that of others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from fedsite.client.ledger import balance
from fedsite.client.ledger.budget import Budget
from fedsite.privacy.accounting import Spend

NOW = "2026-03-01T12:00:00Z"


class Counter:
    """Counts its calls; ε is the number of steps."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, spends: Sequence[Spend], delta: float, unit: str) -> float:
        self.calls += 1
        return float(sum(spend.steps for spend in spends))


@pytest.fixture
def budget(tmp_path: Path) -> Budget:
    return Budget(tmp_path / "budget.db")


def reserve(budget: Budget, run: str, steps: int, source: str = "/x.csv", unit: str = "entity") -> None:
    budget.reserve(
        run_id=run, unit=unit, source=source, task="pump", plan_hash="p", epsilon=1.0, delta=1e-5, now=NOW,
        spends=[Spend(noise_multiplier=1.0, sampling_rate=0.1, steps=steps)],
    )  # fmt: skip


def test_a_figure_is_counted_once_and_again_only_when_more_was_charged(budget: Budget, tmp_path: Path) -> None:
    counting = Counter()
    reserve(budget, "A", 4)
    first = balance.balances(budget.entries(), tmp_path, cap=10.0, delta=1e-5, counting=counting)
    again = balance.balances(budget.entries(), tmp_path, cap=10.0, delta=1e-5, counting=counting)
    assert first == again
    assert (first[0].epsilon, first[0].left, first[0].runs, counting.calls) == (4.0, 6.0, 1, 1)
    # Whoever cannot count still tells what was counted.
    assert balance.balances(budget.entries(), tmp_path, cap=10.0, delta=1e-5, counting=None) == first
    reserve(budget, "B", 3)
    (more,) = balance.balances(budget.entries(), tmp_path, cap=10.0, delta=1e-5, counting=counting)
    assert (more.epsilon, more.runs, counting.calls) == (7.0, 2, 2)
    balance.balances(budget.entries(), tmp_path, cap=10.0, delta=1e-6, counting=counting)
    assert counting.calls == 3


def test_sources_and_units_are_told_apart_as_the_budget_tells_them(budget: Budget, tmp_path: Path) -> None:
    reserve(budget, "A", 4)
    reserve(budget, "B", 5, source="/y.csv")
    reserve(budget, "A", 6, unit="site")
    found = balance.balances(budget.entries(), tmp_path, cap=10.0, delta=1e-5, counting=Counter())
    assert [(item.unit, item.source) for item in found] == [
        ("entity", "/x.csv"),
        ("entity", "/y.csv"),
        ("site", "this site"),
    ]
    for item in found:
        assert item.epsilon == sum(spend.steps for spend in budget.charged(item.unit, item.source))


def test_without_a_counter_nothing_is_made_up(budget: Budget, tmp_path: Path) -> None:
    def missing(spends: Sequence[Spend], delta: float, unit: str) -> float:
        raise ImportError("no module named opacus")

    reserve(budget, "A", 4)
    for counting in (None, missing):
        (found,) = balance.balances(budget.entries(), tmp_path, cap=10.0, delta=1e-5, counting=counting)
        assert (found.epsilon, found.left) == (None, None)
    assert not (tmp_path / balance.FILE).exists()


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b'{"schema":"fedsite.epsilon-cache/1","epsilon":3}', b'{"schema":"fedsite.epsilon-cache/2"}'],
)
def test_a_damaged_file_of_figures_only_costs_time(budget: Budget, tmp_path: Path, damage: bytes) -> None:
    reserve(budget, "A", 4)
    (tmp_path / balance.FILE).write_bytes(damage)
    (found,) = balance.balances(budget.entries(), tmp_path, cap=10.0, delta=1e-5, counting=Counter())
    assert found.epsilon == 4.0
    assert balance.balances(budget.entries(), tmp_path, cap=10.0, delta=1e-5, counting=None)[0].epsilon == 4.0


def test_a_place_that_cannot_be_written_is_no_reason_to_fail(budget: Budget, tmp_path: Path) -> None:
    reserve(budget, "A", 4)
    (found,) = balance.balances(budget.entries(), tmp_path / "missing", cap=10.0, delta=1e-5, counting=Counter())
    assert found.epsilon == 4.0


def test_old_figures_are_dropped(budget: Budget, tmp_path: Path) -> None:
    counting = Counter()
    for number in range(balance.KEPT + 5):
        reserve(budget, f"R{number}", 1)
        balance.balances(budget.entries(), tmp_path, cap=10.0, delta=1e-5, counting=counting)
    assert len(balance._kept(tmp_path)) == balance.KEPT
    assert balance.balances(budget.entries(), tmp_path, cap=10.0, delta=1e-5, counting=None)[0].epsilon is not None
