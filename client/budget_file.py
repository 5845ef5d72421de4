"""The budget's file: its tables, and the way from the version before.

Version 1 had one privacy unit a run; since version 2 a run may promise something to several units, each with a
reservation and spends of its own.
"""

from __future__ import annotations

import sqlite3
from typing import Final

VERSION: Final = 2
_SCHEMA: Final = """
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
"""
_ASIDE: Final = """
ALTER TABLE run RENAME TO run_1;
ALTER TABLE reserved RENAME TO reserved_1;
ALTER TABLE spent RENAME TO spent_1;
"""
_OVER: Final = """
INSERT INTO run SELECT run_id, unit, source, task, plan_hash, epsilon, delta, created, finished FROM run_1;
INSERT INTO reserved SELECT run_id, unit, noise, rate, steps FROM reserved_1 JOIN run_1 USING (run_id);
INSERT INTO spent SELECT run_id, unit, release, noise, rate, steps, at FROM spent_1 JOIN run_1 USING (run_id);
DROP TABLE spent_1;
DROP TABLE reserved_1;
DROP TABLE run_1;
"""


def version(database: sqlite3.Connection) -> int:
    """The file's version; 0 for an empty one."""
    (found,) = database.execute("PRAGMA user_version").fetchone()
    return int(found)


def bring_up(database: sqlite3.Connection) -> None:
    """Make the tables, or bring those of version 1 forward: within the caller's transaction, whole or not at all."""
    found = version(database)
    if found == VERSION:
        return  # somebody else was quicker
    steps = (_SCHEMA,) if found == 0 else (_ASIDE, _SCHEMA, _OVER)
    for script in steps:
        # Statement by statement: executescript would commit half of it.
        for statement in script.split(";"):
            if statement.strip():
                database.execute(statement)
    database.execute(f"PRAGMA user_version = {VERSION}")


def copied(database: sqlite3.Connection) -> sqlite3.Connection:
    """An older file in memory, brought up there: a reader writes nothing."""
    copy = sqlite3.connect(":memory:", isolation_level=None)
    database.backup(copy)
    database.close()
    bring_up(copy)
    return copy
