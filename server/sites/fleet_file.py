"""`fedsite.db` as a file: its tables, how it is opened and migrated, and how another process reads the sites."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from fedsite.protocol.errors import StorageError

# Forward only: a migration that was released is never edited.
MIGRATIONS = (
    """
    CREATE TABLE sites (
        site_id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        node_id TEXT NOT NULL,
        identity BLOB NOT NULL UNIQUE,
        node_key BLOB NOT NULL UNIQUE,
        certificate BLOB NOT NULL UNIQUE,
        certified BLOB NOT NULL,
        enrolled TEXT NOT NULL,
        expires TEXT NOT NULL,
        revoked TEXT,
        supernode INTEGER NOT NULL DEFAULT 0,
        labels TEXT NOT NULL DEFAULT '{}'
    ) STRICT;
    CREATE UNIQUE INDEX sites_name ON sites (name) WHERE revoked IS NULL;
    CREATE TABLE tokens (
        nonce TEXT PRIMARY KEY,
        request TEXT NOT NULL,
        answer BLOB NOT NULL,
        used TEXT NOT NULL
    ) STRICT;
    """,
    """
    CREATE TABLE renewals (
        site_id TEXT PRIMARY KEY REFERENCES sites (site_id),
        certificate BLOB NOT NULL,
        expires TEXT NOT NULL,
        stated TEXT NOT NULL
    ) STRICT;
    """,
    "ALTER TABLE sites ADD COLUMN carried INTEGER NOT NULL DEFAULT 0;",
)

_COLUMNS = (
    *("site_id", "name", "node_id", "identity", "node_key", "certificate", "certified"),
    *("enrolled", "expires", "revoked", "supernode", "labels", "carried"),
)
_CARRIED_FROM = 3  # version of the file that says which sites are carried


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One enrolled site."""

    site_id: str  # hex
    name: str
    node_id: str  # decimal text: an unsigned 64-bit integer does not fit JSON
    identity: bytes  # raw Ed25519 public key
    node_key: bytes  # as Flower's header carries it
    certificate: bytes  # DER
    certified: bytes  # identity that other sites believe (protocol.certified), as long as the certificate
    enrolled: str  # RFC 3339
    expires: datetime
    revoked: str | None = None  # RFC 3339
    supernode: bool = False  # admitted without a client certificate
    labels: Mapping[str, str] = field(default_factory=dict)
    carried: bool = False  # without a network: its messages are files that people carry


@dataclass(frozen=True, slots=True, kw_only=True)
class Superseded:
    """The certificate that a site's last renewal was asked for under. It counts beside the new one, to its own end."""

    certificate: bytes  # DER
    expires: datetime
    stated: str  # time in the request, RFC 3339: no older statement counts any more


def read_sites(path: Path) -> list[Site]:
    """Every site by name, read by another process.

    Raises:
        StorageError: there is no such file or it cannot be read.
    """
    if not path.exists():
        raise StorageError(f"no {path}", next_step="start the server once: fedsite server up")
    with storage(), contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5.0)) as db:
        return sorted(sites_in(db), key=lambda site: (site.name, site.enrolled))


@contextlib.contextmanager
def storage() -> Iterator[None]:
    """Turn SQLite's complaints about the disk into ours."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as error:
        remedy = "check free space and rights of the state directory (df -h, ls -ld)"
        raise StorageError(f"fedsite.db: {error}", next_step=remedy) from None


def open_to_write(path: Path) -> sqlite3.Connection:
    """The one writer's connection, with the tables of this version.

    Raises:
        StorageError: it cannot be opened, or is of a later version.
    """
    with storage():
        db = sqlite3.connect(path, check_same_thread=False, timeout=5.0)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise StorageError(
                f"{path.name} is of version {version}",
                allowed=f"up to {len(MIGRATIONS)}",
                next_step="upgrade: pip install --upgrade fedsite",
            )
        for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
            db.executescript(f"BEGIN; {script} PRAGMA user_version = {number}; COMMIT;")
    return db


def sites_in(db: sqlite3.Connection) -> list[Site]:
    """Every site, in no order."""
    columns = list(_COLUMNS)
    if db.execute("PRAGMA user_version").fetchone()[0] < _CARRIED_FROM:
        columns[-1] = "0"  # a reader comes before the server of this version was started
    return [_site(row) for row in db.execute(f"SELECT {', '.join(columns)} FROM sites")]  # noqa: S608


def superseded_in(db: sqlite3.Connection) -> dict[str, Superseded]:
    """What sites were renewed under, by site id."""
    rows = db.execute("SELECT site_id, certificate, expires, stated FROM renewals")
    return {
        row[0]: Superseded(certificate=row[1], expires=datetime.fromisoformat(row[2]), stated=row[3]) for row in rows
    }


def _site(row: tuple[Any, ...]) -> Site:
    return Site(
        site_id=row[0],
        name=row[1],
        node_id=row[2],
        identity=row[3],
        node_key=row[4],
        certificate=row[5],
        certified=row[6],
        enrolled=row[7],
        expires=datetime.fromisoformat(row[8]),
        revoked=row[9],
        supernode=bool(row[10]),
        labels=json.loads(row[11]),
        carried=bool(row[12]),
    )
