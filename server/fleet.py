"""The enrolled sites and the used tokens: `fedsite.db`, written by the link process alone, read by everybody else.

Rules:
* a name belongs to one unrevoked site, a key to one site for ever;
* a token is used once; the very same request again gets the very same answer;
* a revoked site stays listed, keeps its keys blocked, and frees its name.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from fedsite.protocol.errors import ConfigError, StorageError, TrustError
from fedsite.protocol.shape import nearest

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
)

SUPERNODE_LABEL = "supernode"

_COLUMNS = (
    *("site_id", "name", "node_id", "identity", "node_key", "certificate", "certified"),
    *("enrolled", "expires", "revoked", "supernode", "labels"),
)
_ENROL = """
    INSERT INTO sites (site_id, name, node_id, identity, node_key, certificate, certified, enrolled, expires)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (site_id) DO UPDATE
    SET certificate = excluded.certificate, certified = excluded.certified, expires = excluded.expires
"""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUse:
    """What a token was used for."""

    request: str  # SHA-256 of the request's keys
    answer: bytes


class Fleet:
    """The one writer. Look-ups are answered from memory: the guard asks on every request."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._db = _open(path)
        self._index()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def by_certificate(self, der: bytes) -> Site | None:
        """The site that this certificate was issued to, revoked or not."""
        return self._certificates.get(der)

    def by_node_key(self, key: bytes) -> Site | None:
        """The site that owns this node key, revoked or not."""
        return self._node_keys.get(key)

    def sites(self) -> list[Site]:
        """Every site by name, revoked ones too."""
        return sorted(self._certificates.values(), key=lambda site: (site.name, site.enrolled))

    def token_use(self, nonce: str) -> TokenUse | None:
        """What the token with this nonce was used for, if it was."""
        with self._lock:
            row = self._db.execute("SELECT request, answer FROM tokens WHERE nonce = ?", (nonce,)).fetchone()
        return None if row is None else TokenUse(request=row[0], answer=row[1])

    def check_free(self, name: str, identity: bytes, node_key: bytes) -> Site | None:
        """The site that these keys and this name already belong to, or None when all of them are free.

        Raises:
            TrustError: the name or a key is another site's, or the site was revoked.
        """
        for site in self._certificates.values():
            same_keys = site.identity == identity and site.node_key == node_key
            if same_keys and site.name == name and site.revoked is None:
                return site
            if site.identity == identity or site.node_key == node_key:
                state = f"revoked at {site.revoked}" if site.revoked else f"enrolled as {site.name}"
                raise TrustError(
                    f"these keys were {state}",
                    next_step="remove the site's state directory, so that join makes new keys, and use a new token",
                )
            if site.name == name and site.revoked is None:
                raise TrustError(
                    f"the name {name} belongs to another site",
                    next_step=f"choose another name, or on the server: fedsite sites revoke {name}",
                )
        return None

    def enrol(self, site: Site, *, nonce: str, request: str, answer: bytes) -> None:
        """Write the site (or its new certificate) and the use of its token in one transaction.

        Raises:
            TrustError: name, key or token were taken meanwhile.
            StorageError: the disk is full or read-only.
        """
        row = (
            site.site_id,
            site.name,
            site.node_id,
            site.identity,
            site.node_key,
            site.certificate,
            site.certified,
            site.enrolled,
            site.expires.isoformat(),
        )
        with self._lock, _storage():
            try:
                with self._db:
                    self._db.execute(_ENROL, row)
                    self._db.execute("INSERT INTO tokens VALUES (?, ?, ?, ?)", (nonce, request, answer, site.enrolled))
            except sqlite3.IntegrityError:
                raise TrustError(
                    f"the token, the name {site.name} or its keys are already in use",
                    next_step="ask the central team for a new token: fedsite token create",
                ) from None
            self._index()

    def find(self, name_or_id: str) -> Site:
        """The unrevoked site of this name, else the site of this id, else the last one revoked under this name.

        Raises:
            ConfigError: there is none.
        """
        sites = self.sites()
        for site in sites:
            if (site.name == name_or_id and site.revoked is None) or site.site_id == name_or_id:
                return site
        for site in reversed(sites):
            if site.name == name_or_id:
                return site
        known = [site.name for site in sites if site.revoked is None]
        allowed = nearest(name_or_id, known) if known else "none is enrolled"
        raise ConfigError(f"no site {name_or_id}", allowed=allowed, next_step="fedsite sites list")

    def revoke(self, site_id: str, when: str) -> None:
        """Revoke a site; already revoked is not an error."""
        with self._lock, _storage():
            with self._db:
                self._db.execute("UPDATE sites SET revoked = ? WHERE site_id = ? AND revoked IS NULL", (when, site_id))
            self._index()

    def label(self, site_id: str, changes: Mapping[str, str | None]) -> None:
        """Set labels; None removes one. `supernode=true` admits the site without a client certificate."""
        with self._lock, _storage():
            site = next(item for item in self._certificates.values() if item.site_id == site_id)
            labels = dict(site.labels)
            supernode = site.supernode
            for key, value in changes.items():
                if key == SUPERNODE_LABEL:
                    supernode = value == "true"
                elif value is None:
                    labels.pop(key, None)
                else:
                    labels[key] = value
            with self._db:
                self._db.execute(
                    "UPDATE sites SET labels = ?, supernode = ? WHERE site_id = ?",
                    (json.dumps(labels, sort_keys=True), int(supernode), site_id),
                )
            self._index()

    def _index(self) -> None:
        sites = _read(self._db)
        # New dictionaries, swapped in whole: readers in other threads never see half of a change.
        self._certificates = {site.certificate: site for site in sites}
        self._node_keys = {site.node_key: site for site in sites}


def read_sites(path: Path) -> list[Site]:
    """Every site by name, read by another process.

    Raises:
        StorageError: there is no such file or it cannot be read.
    """
    if not path.exists():
        raise StorageError(f"no {path}", next_step="start the server once: fedsite server up")
    with _storage(), contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5.0)) as db:
        return sorted(_read(db), key=lambda site: (site.name, site.enrolled))


@contextlib.contextmanager
def _storage() -> Iterator[None]:
    """Turn SQLite's complaints about the disk into ours."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as error:
        remedy = "check free space and rights of the state directory (df -h, ls -ld)"
        raise StorageError(f"fedsite.db: {error}", next_step=remedy) from None


def _open(path: Path) -> sqlite3.Connection:
    with _storage():
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


def _read(db: sqlite3.Connection) -> list[Site]:
    return [_site(row) for row in db.execute(f"SELECT {', '.join(_COLUMNS)} FROM sites")]  # noqa: S608


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
    )
