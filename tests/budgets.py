"""A run that a budget has reserved, for tests of what it counts and of its file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from fedsite.client.ledger.budget import Budget
from fedsite.client.ledger.covered import hashed
from fedsite.privacy.accounting import Spend
from fedsite.telemetry.coverage import Coverage

STATISTICS = Spend(noise_multiplier=20.0, sampling_rate=1.0, steps=1)
ROUND = Spend(noise_multiplier=2.0, sampling_rate=0.1, steps=5)
RUN_COST = [STATISTICS, Spend(noise_multiplier=2.0, sampling_rate=0.1, steps=15)]
AT = "2026-03-01T12:00:00Z"
KEY = bytes(32)
OTHERS = hashed(Coverage(clock="utc", entities={"pump-1": (0.0, 10.0)}), KEY)

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
VERSION_2 = """
CREATE TABLE run (
    run_id TEXT NOT NULL, unit TEXT NOT NULL, source TEXT NOT NULL, task TEXT NOT NULL, plan_hash TEXT NOT NULL,
    epsilon REAL, delta REAL NOT NULL, created TEXT NOT NULL, finished TEXT,
    PRIMARY KEY (run_id, unit)
) STRICT;
CREATE TABLE reserved (
    run_id TEXT NOT NULL, unit TEXT NOT NULL, noise REAL NOT NULL CHECK (noise > 0),
    rate REAL NOT NULL CHECK (rate > 0 AND rate <= 1), steps INTEGER NOT NULL CHECK (steps > 0),
    PRIMARY KEY (run_id, unit, noise, rate), FOREIGN KEY (run_id, unit) REFERENCES run(run_id, unit)
) STRICT;
CREATE TABLE spent (
    run_id TEXT NOT NULL, unit TEXT NOT NULL, release TEXT NOT NULL, noise REAL NOT NULL CHECK (noise > 0),
    rate REAL NOT NULL CHECK (rate > 0 AND rate <= 1), steps INTEGER NOT NULL CHECK (steps > 0), at TEXT NOT NULL,
    PRIMARY KEY (run_id, unit, release, noise, rate), FOREIGN KEY (run_id, unit) REFERENCES run(run_id, unit)
) STRICT;
INSERT INTO run VALUES ('run1', 'window', '/data.csv', 'pump', 'p', 1.0, 1e-5, '2026-03-01T12:00:00Z', NULL);
INSERT INTO run VALUES ('run2', 'entity', '/data.csv', 'pump', 'q', 2.0, 1e-5, '2026-03-02T12:00:00Z', 'then');
INSERT INTO reserved VALUES ('run1', 'window', 2.0, 0.1, 15), ('run1', 'window', 20.0, 1.0, 1);
INSERT INTO reserved VALUES ('run2', 'entity', 3.0, 0.5, 8);
INSERT INTO spent VALUES ('run1', 'window', '1/train/1', 2.0, 0.1, 5, 'at');
INSERT INTO spent VALUES ('run2', 'entity', '1/train/1', 3.0, 0.5, 4, 'at');
PRAGMA user_version = 2;
"""


def old_budget(path: Path, script: str) -> Path:
    """A budget as `VERSION_1` or `VERSION_2` left it."""
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode=WAL")
    database.executescript(script)
    database.close()
    return path


def reserve(
    budget: Budget,
    run: str = "run1",
    unit: str = "window",
    source: str = "/data.csv",
    task: str = "pump",
    plan: str = "p",
) -> None:
    budget.reserve(
        run_id=run,
        unit=unit,
        source=source,
        task=task,
        plan_hash=plan,
        spends=RUN_COST,
        epsilon=1.0,
        delta=1e-5,
        now=AT,
    )
