"""The budget's file: its tables, and the way from the versions before.

Version 1 had one privacy unit a run; since version 2 a run may promise something to several units, each with a
reservation and spends of its own. Version 3 says whose records a run read, and seals what it says. Of runs that are
older nobody knows whose records they read: they count against everything.
"""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from fedsite.client.ledger import budget_mark
from fedsite.client.ledger.covered import unknown
from fedsite.privacy.errors import PrivacyError
from fedsite.protocol.errors import BudgetError, StorageError

VERSION: Final = 3
_ACCOUNTS: Final = """
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
_SEALED: Final = """
CREATE TABLE coverage (
    run_id TEXT NOT NULL PRIMARY KEY, key TEXT NOT NULL, clock TEXT NOT NULL, spans BLOB NOT NULL
) STRICT;
CREATE TABLE seal (run_id TEXT NOT NULL PRIMARY KEY, digest TEXT NOT NULL) STRICT;
CREATE TABLE ledger (id TEXT NOT NULL PRIMARY KEY, sequence INTEGER NOT NULL, digest TEXT NOT NULL) STRICT;
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
_OLD_TABLES: Final = {"run", "reserved", "spent"}
_TABLES: Final = {
    0: set[str](),
    1: _OLD_TABLES,
    2: _OLD_TABLES,
    VERSION: _OLD_TABLES | {"coverage", "seal", "ledger"},
}
_STEPS: Final = {
    0: (_ACCOUNTS, _SEALED),
    1: (_ASIDE, _ACCOUNTS, _OVER, _SEALED),
    2: (_SEALED,),
}
# What SQLite says of the disk and not of the file: everything else is damage, and closes the budget.
_OF_THE_DISK: Final = {
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL,
}  # fmt: skip


def version(database: sqlite3.Connection) -> int:
    """The file's version; 0 for an empty one."""
    (found,) = database.execute("PRAGMA user_version").fetchone()
    return int(found)


def check(database: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that is not what its version says: one flipped bit must not make version 3 into version 2.

    Raises:
        BudgetError: it is damaged, or of a version to come.
    """
    found = version(database)
    if found not in _TABLES:
        raise BudgetError(f"{path} is of version {found}", allowed=str(VERSION), next_step="upgrade fedsite")
    names = {name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if names != _TABLES[found]:
        raise BudgetError(
            f"{path} is damaged (tables {', '.join(sorted(names)) or 'none'} in version {found})",
            next_step=budget_mark.remedy(path),
        )
    (verdict,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    if verdict != "ok":
        raise BudgetError(f"{path} is damaged ({verdict})", next_step=budget_mark.remedy(path))


def bring_up(database: sqlite3.Connection) -> bool:
    """Make the tables, or bring older ones forward: within the caller's transaction, whole or not at all.

    Returns:
        Whether the caller has to seal what is in them (budget_rows.Change); False: somebody else was quicker.
    """
    found = version(database)
    if found == VERSION:
        return False
    for script in _STEPS[found]:
        # Statement by statement: executescript would commit half of it.
        for statement in script.split(";"):
            if statement.strip():
                database.execute(statement)
    nobody = unknown()
    database.execute(
        "INSERT INTO coverage SELECT DISTINCT run_id, ?, ?, ? FROM run", (nobody.key, nobody.clock, nobody.pack())
    )
    database.execute("INSERT INTO ledger VALUES (?,?,?)", (secrets.token_hex(16), 0, ""))
    database.execute(f"PRAGMA user_version = {VERSION}")
    return True


def in_memory(database: sqlite3.Connection) -> sqlite3.Connection:
    """A copy in memory, to be brought up there: a reader writes nothing."""
    copy = sqlite3.connect(":memory:", isolation_level=None)
    database.backup(copy)
    database.close()
    return copy


@contextlib.contextmanager
def guarded(path: Path) -> Iterator[None]:
    """A database error becomes a refusal: damaged is a budget error, a full or read-only disk a storage error.

    Raises:
        BudgetError, StorageError: as said.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _OF_THE_DISK:
            raise StorageError(
                f"{path}: {error}", allowed="a writable disk with space left", next_step=f"df -h {path.parent}"
            ) from None
        raise BudgetError(f"{path} is damaged ({error})", next_step=budget_mark.remedy(path)) from None
    except (PrivacyError, UnicodeDecodeError, OverflowError) as error:
        raise BudgetError(f"{path} is damaged ({error})", next_step=budget_mark.remedy(path)) from None
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}", next_step=f"ls -l {path.parent}") from None
