"""A budget's file: refused when damaged or of a version to come, brought up to date without losing a charge."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from fedsite.client.ledger import budget_file, budget_mark
from fedsite.client.ledger.budget import Budget
from fedsite.privacy.accounting import Spend
from fedsite.protocol.errors import BudgetError
from tests.budgets import AT, OTHERS, ROUND, RUN_COST, VERSION_1, VERSION_2, old_budget, reserve


@pytest.fixture(params=[VERSION_1, VERSION_2], ids=["version 1", "version 2"])
def old(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A budget as an earlier version left it: one run open, one finished."""
    return old_budget(tmp_path / "budget.db", request.param)


def test_a_file_of_an_older_version_keeps_every_charge(old: Path) -> None:
    budget = Budget(old)
    first, second = budget.entries()
    assert (first.run_id, first.unit, first.finished, first.spent) == ("run1", "window", None, (ROUND,))
    assert first.reserved == tuple(sorted(RUN_COST))
    assert (second.unit, second.finished, second.epsilon) == ("entity", "then", 2.0)
    assert second.spent == (Spend(noise_multiplier=3.0, sampling_rate=0.5, steps=4),)
    assert budget.charged("window", "/data.csv") == sorted(RUN_COST)
    # Nobody noted whose records these runs read: they count wherever the data may have gone since.
    assert budget.charged("window", "/moved.csv") == sorted(RUN_COST)
    assert budget.charged("entity", "/moved.csv", covered=OTHERS) == list(second.spent)
    assert budget.charged("window", "/moved.csv", without="run1") == []
    budget.authorise("run1", "2/train/1", [ROUND], unit="window", source="/data.csv")
    budget.commit("run1", "2/train/1", [ROUND], AT, unit="window")
    with pytest.raises(BudgetError):
        reserve(budget, "run2", unit="site")  # it is finished, whatever the unit
    budget.close()
    again = Budget(old)
    assert sum(spend.steps for spend in again.entries()[0].spent) == 10
    again.close()
    database = sqlite3.connect(old)
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert tables == {"run", "reserved", "spent", "coverage", "seal", "ledger"}
    assert database.execute("PRAGMA foreign_key_check").fetchall() == []
    database.close()


def test_a_reader_of_an_older_version_changes_nothing(old: Path) -> None:
    before = old.read_bytes()
    reader = Budget(old, read_only=True)
    assert [entry.unit for entry in reader.entries()] == ["window", "entity"]
    reader.close()
    assert old.read_bytes() == before
    assert not budget_mark.path_of(old).exists()


def test_a_migration_that_fails_leaves_the_old_version(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = ("INSERT INTO run SELECT * FROM nowhere;",)
    monkeypatch.setattr(
        budget_file, "_STEPS", {1: (*budget_file._STEPS[1], *wrong), 2: (*budget_file._STEPS[2], *wrong)}
    )
    with pytest.raises(BudgetError, match="nowhere"):
        Budget(old)
    monkeypatch.undo()
    budget = Budget(old)
    assert budget.charged("window", "/data.csv") == sorted(RUN_COST)
    budget.close()


@pytest.mark.parametrize("damage", [b"", b"\xff" * 4096])
def test_a_damaged_file_refuses_everything(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "budget.db"
    budget = Budget(path)
    reserve(budget)
    budget.close()
    data = bytearray(path.read_bytes())
    data[100:] = damage or data[100:2000]  # cut in the middle, or overwritten
    path.write_bytes(bytes(data))
    with pytest.raises(BudgetError, match="damaged"):
        Budget(path).entries()


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "budget.db"
    Budget(path).close()
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 4")
    database.close()
    with pytest.raises(BudgetError, match="version 4"):
        Budget(path)


def test_a_budget_that_is_gone_or_emptied_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "budget.db"
    budget = Budget(path)
    reserve(budget)
    budget.close()
    for left in (b"", None):
        path.unlink() if left is None else path.write_bytes(left)
        for read_only in (False, True):
            with pytest.raises(BudgetError, match="missing or empty"):
                Budget(path, read_only=read_only)
    assert not path.exists()


def test_a_budget_put_back_is_refused_until_the_operator_accepts_it(tmp_path: Path) -> None:
    path = tmp_path / "budget.db"
    budget = Budget(path)
    reserve(budget)
    budget.close()
    backup = path.read_bytes()
    budget = Budget(path)
    budget.commit("run1", "1/train/1", [ROUND], AT, unit="window")
    budget.close()
    path.write_bytes(backup)
    with pytest.raises(BudgetError, match="older than what was written") as refused:
        Budget(path)
    assert "fedsite privacy --accept" in refused.value.next_step
    budget_mark.path_of(path).unlink()
    accepted = Budget(path)
    assert accepted.entries()[0].spent == ()
    accepted.close()


def test_another_site_s_budget_is_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Budget(tmp_path / name / "budget.db").close()
    (tmp_path / "one" / "budget.db").write_bytes((tmp_path / "two" / "budget.db").read_bytes())
    with pytest.raises(BudgetError, match="another site's"):
        Budget(tmp_path / "one" / "budget.db")


@pytest.mark.parametrize("mark", [b"", b"{", b'{"schema":"fedsite.budget-mark/1","budget":"x"}', b"[1]"])
def test_a_damaged_mark_is_named(tmp_path: Path, mark: bytes) -> None:
    path = tmp_path / "budget.db"
    Budget(path).close()
    budget_mark.path_of(path).write_bytes(mark)
    with pytest.raises(BudgetError, match=r"budget\.mark is damaged"):
        Budget(path)


def test_a_version_that_does_not_fit_its_tables_is_damage(tmp_path: Path) -> None:
    """One flipped bit must not send a file of version 3 through an older one's migration, which knows no seals."""
    path = tmp_path / "budget.db"
    budget = Budget(path)
    reserve(budget)
    budget.close()
    whole = path.read_bytes()
    for version in (0, 1, 2):
        database = sqlite3.connect(path)
        database.execute(f"PRAGMA user_version = {version}")
        database.close()
        with pytest.raises(BudgetError, match="damaged"):
            Budget(path)
        path.write_bytes(whole)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE spent SET steps = 4",
        "UPDATE spent SET noise = 200.0",
        "DELETE FROM spent",
        "UPDATE run SET finished = 'now'",
        "UPDATE run SET source = '/elsewhere.csv'",
        "UPDATE coverage SET clock = 'hours'",
        "DELETE FROM coverage",
        "UPDATE ledger SET sequence = 99",
        "DELETE FROM ledger",
        "DELETE FROM seal",
    ],
)
def test_a_row_that_changed_by_itself_is_noticed(tmp_path: Path, change: str) -> None:
    path = tmp_path / "budget.db"
    budget = Budget(path)
    reserve(budget)
    budget.cover("run1", OTHERS)
    budget.commit("run1", "1/train/1", [ROUND], AT, unit="window")
    budget.close()
    database = sqlite3.connect(path)
    database.execute(change)
    database.commit()
    database.close()
    for read_only in (False, True):
        with pytest.raises(BudgetError, match="damaged"):
            Budget(path, read_only=read_only)
