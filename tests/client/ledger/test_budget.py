"""The budget never under-counts: reserved before, charged once, kept through kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsite.client.ledger.budget import Budget
from fedsite.privacy.accounting import Spend
from fedsite.protocol.errors import BudgetError, StorageError
from tests.budgets import AT, ROUND, RUN_COST, STATISTICS, reserve


@pytest.fixture
def budget(tmp_path: Path) -> Iterator[Budget]:
    opened = Budget(tmp_path / "budget.db")
    yield opened
    opened.close()


def test_an_open_run_counts_whole_a_finished_one_what_it_spent(budget: Budget) -> None:
    reserve(budget)
    assert budget.charged("window", "/data.csv") == sorted(RUN_COST)
    budget.commit("run1", "1/train/1", [ROUND], AT, unit="window")
    assert budget.charged("window", "/data.csv") == sorted(RUN_COST)
    budget.finish("run1", AT)
    assert budget.charged("window", "/data.csv") == [ROUND]


def test_a_release_committed_twice_is_charged_once(budget: Budget) -> None:
    reserve(budget)
    for _ in range(2):
        budget.authorise("run1", "1/train/1", [ROUND], unit="window", source="/data.csv")
        budget.commit("run1", "1/train/1", [ROUND], AT, unit="window")
    assert budget.entries()[0].spent == (ROUND,)


def test_no_more_than_reserved(budget: Budget) -> None:
    reserve(budget)
    for number in (1, 2, 3):
        budget.authorise("run1", f"{number}/train/1", [ROUND], unit="window", source="/data.csv")
        budget.commit("run1", f"{number}/train/1", [ROUND], AT, unit="window")
    with pytest.raises(BudgetError, match="costs 5 steps"):
        budget.authorise("run1", "3/train/2", [ROUND], unit="window", source="/data.csv")
    with pytest.raises(BudgetError):  # another mechanism than reserved
        budget.authorise(
            "run1",
            "4/x/1",
            [Spend(noise_multiplier=1.9, sampling_rate=0.1, steps=1)],
            unit="window",
            source="/data.csv",
        )


def test_units_and_sources_are_apart_and_names_are_nothing(budget: Budget) -> None:
    reserve(budget, "run1", unit="window")
    reserve(budget, "run2", unit="entity")
    reserve(budget, "run3", source="/other.csv")
    reserve(budget, "run4", task="renamed")
    double = [
        Spend(noise_multiplier=s.noise_multiplier, sampling_rate=s.sampling_rate, steps=2 * s.steps) for s in RUN_COST
    ]
    assert budget.charged("window", "/data.csv") == sorted(double)  # the renamed task inherits
    assert budget.charged("entity", "/data.csv") == sorted(RUN_COST)
    assert budget.charged("window", "/data.csv", without="run4") == sorted(RUN_COST)


def test_a_folder_and_the_files_in_it_are_the_same_data(budget: Budget) -> None:
    reserve(budget, "run1", source="/data/plant")
    for same in ("/data/plant", "/data/plant/pumps.csv", "/data"):
        assert budget.charged("window", same) == sorted(RUN_COST)
    assert budget.charged("window", "/data/plant2") == budget.charged("window", "/data/plan") == []


def test_a_release_is_of_the_data_that_was_reserved(budget: Budget) -> None:
    reserve(budget)
    with pytest.raises(BudgetError, match="would now read"):
        budget.authorise("run1", "", [ROUND], unit="window", source="/other.csv")


def test_a_run_is_reserved_once_and_never_again_when_finished(budget: Budget) -> None:
    reserve(budget)
    reserve(budget)
    assert len(budget.entries()) == 1
    with pytest.raises(BudgetError, match="another plan"):
        reserve(budget, plan="q")
    budget.finish("run1", AT)
    with pytest.raises(BudgetError, match="finished"):
        reserve(budget)
    with pytest.raises(BudgetError, match="no open reservation"):
        budget.authorise("run1", "1/train/1", [ROUND], unit="window", source="/data.csv")


def test_cancel_takes_back_only_what_nothing_was_spent_of(budget: Budget) -> None:
    reserve(budget, "run1")
    budget.cancel("run1")
    assert budget.entries() == []
    reserve(budget, "run2")
    budget.commit("run2", "0/prepare/1", [STATISTICS], AT, unit="window")
    budget.cancel("run2")
    assert budget.charged("window", "/data.csv") == sorted(RUN_COST)


def test_it_survives_reopening_and_is_its_owners_alone(budget: Budget, tmp_path: Path) -> None:
    reserve(budget)
    budget.commit("run1", "1/train/1", [ROUND], AT, unit="window")
    again = Budget(tmp_path / "budget.db")
    assert again.entries() == budget.entries()
    again.close()
    readonly = Budget(tmp_path / "budget.db", read_only=True)
    assert readonly.entries() == budget.entries()
    with pytest.raises(StorageError):
        readonly.finish("run1", AT)
    readonly.close()
    assert (tmp_path / "budget.db").stat().st_mode & 0o077 == 0


def test_kill_minus_nine_after_commit_loses_nothing(tmp_path: Path) -> None:
    script = f"""
import os, signal
from fedsite.client.ledger.budget import Budget
from fedsite.privacy.accounting import Spend
budget = Budget(__import__("pathlib").Path({str(tmp_path / "budget.db")!r}))
spend = Spend(noise_multiplier=2.0, sampling_rate=0.1, steps=5)
budget.reserve(run_id="run1", unit="window", source="s", task="t", plan_hash="p", spends=[spend], epsilon=1.0,
               delta=1e-5, now="x")
budget.commit("run1", "1/train/1", [spend], "x", unit="window")
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == -signal.SIGKILL
    budget = Budget(tmp_path / "budget.db")
    assert budget.entries()[0].spent == (ROUND,)
    budget.close()


def test_two_units_of_a_run_have_accounts_of_their_own(budget: Budget) -> None:
    reserve(budget, unit="window")
    reserve(budget, unit="site")
    budget.commit("run1", "1/train/1", [ROUND], AT, unit="site")
    by_unit = {entry.unit: entry for entry in budget.entries()}
    assert by_unit["site"].spent == (ROUND,)
    assert by_unit["window"].spent == ()
    for number in (1, 2):
        budget.authorise("run1", f"{number}/train/1", [ROUND], unit="window", source="/data.csv")
    with pytest.raises(BudgetError, match="per entity"):
        budget.authorise("run1", "", [ROUND], unit="entity", source="/data.csv")
    budget.cancel("run1")  # something was spent: nothing is taken back
    assert len(budget.entries()) == 2
    budget.finish("run1", AT)
    assert budget.charged("site", "/data.csv") == [ROUND]
    assert budget.charged("window", "/data.csv") == []


@settings(max_examples=30, deadline=None)
@given(rounds=st.lists(st.integers(1, 6), max_size=8), finished=st.booleans())
def test_what_counts_is_never_less_than_what_was_spent(rounds: list[int], finished: bool) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        budget = Budget(Path(folder) / "budget.db")
        reserve(budget)
        allowed = 0
        for number, steps in enumerate(rounds):
            spend = Spend(noise_multiplier=2.0, sampling_rate=0.1, steps=steps)
            try:
                budget.authorise("run1", f"{number}/train/1", [spend], unit="window", source="/data.csv")
            except BudgetError:
                continue
            budget.commit("run1", f"{number}/train/1", [spend], AT, unit="window")
            allowed += steps
        if finished:
            budget.finish("run1", AT)
        charged = {s.noise_multiplier: s.steps for s in budget.charged("window", "/data.csv")}
        assert allowed <= 15
        assert charged.get(2.0, 0) == (allowed if finished else 15)
        budget.close()
