"""A budget's file: refused when damaged or of a version to come, brought up to date without losing a charge."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from fedsite.client import budget_file
from fedsite.client.budget import Budget
from fedsite.privacy.accounting import Spend
from fedsite.protocol.errors import BudgetError, StorageError
from tests.budgets import AT, ROUND, RUN_COST, reserve

VERSION_1 = """
CREATE TABLE run (
    run_id TEXT PRIMARY KEY, unit TEXT NOT NULL, source TEXT NOT NULL, task TEXT NOT NULL, plan_hash TEXT NOT NULL,
    epsilon REAL, delta REAL NOT NULL, created TEXT NOT NULL, finished TEXT
) STRICT;
CREATE TABLE reserved (
    run_id TEXT NOT NULL REFERENCES run(run_id), noise REAL NOT NULL CHECK (noise > 0),
    rate REAL NOT NULL CHECK (rate > 0 AND rate <= 1), steps INTEGER NOT NULL CHECK (steps > 0),
    PRIMARY KEY (run_id, noise, rate)
) STRICT;
CREATE TABLE spent (
    run_id TEXT NOT NULL REFERENCES run(run_id), release TEXT NOT NULL, noise REAL NOT NULL CHECK (noise > 0),
    rate REAL NOT NULL CHECK (rate > 0 AND rate <= 1), steps INTEGER NOT NULL CHECK (steps > 0), at TEXT NOT NULL,
    PRIMARY KEY (run_id, release, noise, rate)
) STRICT;
INSERT INTO run VALUES ('run1', 'window', '/data.csv', 'pump', 'p', 1.0, 1e-5, '2026-03-01T12:00:00Z', NULL);
INSERT INTO run VALUES ('run2', 'entity', '/data.csv', 'pump', 'q', 2.0, 1e-5, '2026-03-02T12:00:00Z', 'then');
INSERT INTO reserved VALUES ('run1', 2.0, 0.1, 15), ('run1', 20.0, 1.0, 1), ('run2', 3.0, 0.5, 8);
INSERT INTO spent VALUES ('run1', '1/train/1', 2.0, 0.1, 5, 'at'), ('run2', '1/train/1', 3.0, 0.5, 4, 'at');
PRAGMA user_version = 1;
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A budget as version 1 left it: one run open, one finished."""
    path = tmp_path / "budget.db"
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode=WAL")
    database.executescript(VERSION_1)
    database.close()
    return path


def test_a_file_of_version_1_keeps_every_charge(old: Path) -> None:
    budget = Budget(old)
    first, second = budget.entries()
    assert (first.run_id, first.unit, first.finished, first.spent) == ("run1", "window", None, (ROUND,))
    assert first.reserved == tuple(sorted(RUN_COST))
    assert (second.unit, second.finished, second.epsilon) == ("entity", "then", 2.0)
    assert second.spent == (Spend(noise_multiplier=3.0, sampling_rate=0.5, steps=4),)
    assert budget.charged("window", "/data.csv") == sorted(RUN_COST)
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
    assert tables == {"run", "reserved", "spent"}
    assert database.execute("PRAGMA foreign_key_check").fetchall() == []
    database.close()


def test_a_reader_of_version_1_changes_nothing(old: Path) -> None:
    before = old.read_bytes()
    reader = Budget(old, read_only=True)
    assert [entry.unit for entry in reader.entries()] == ["window", "entity"]
    reader.close()
    assert old.read_bytes() == before


def test_a_migration_that_fails_leaves_version_1(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_file, "_OVER", "INSERT INTO run SELECT * FROM nowhere;")
    with pytest.raises(StorageError, match="nowhere"):
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
    database.execute("PRAGMA user_version = 3")
    database.close()
    with pytest.raises(BudgetError, match="version 3"):
        Budget(path)
