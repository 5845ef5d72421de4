"""The enrolled sites and the used tokens: `fedsite.db`, written by the link process alone, read by everybody else.

Rules:
* a name belongs to one unrevoked site, a key to one site for ever;
* a token is used once; the very same request again gets the very same answer;
* a token that replaces a site revokes it and gives its name and labels to the new one, both or neither;
* a renewed site has two certificates in force: the new one, and the one it asked under, which is surely on its disk;
* a revoked site stays listed, keeps its keys blocked, and frees its name.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedsite.protocol.errors import ConfigError, RefusalCode, TrustError
from fedsite.protocol.shape import nearest
from fedsite.server.sites.fleet_file import Site, Superseded, open_to_write, sites_in, storage, superseded_in

SUPERNODE_LABEL = "supernode"

_ENROL = """
    INSERT INTO sites
        (site_id, name, node_id, identity, node_key, certificate, certified, enrolled, expires, labels, carried)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (site_id) DO UPDATE
    SET certificate = excluded.certificate, certified = excluded.certified, expires = excluded.expires,
        carried = excluded.carried
"""
_REVOKE = "UPDATE sites SET revoked = ? WHERE site_id = ? AND revoked IS NULL"


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUse:
    """What a token was used for."""

    request: str  # SHA-256 of the request's keys
    answer: bytes


class Fleet:
    """The one writer. Look-ups are answered from memory: the guard asks on every request."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._db = open_to_write(path)
        self._index()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def by_certificate(self, der: bytes) -> Site | None:
        """The site that this certificate was issued to, revoked or not; `expires` is that of this certificate."""
        return self._certificates.get(der)

    def by_node_key(self, key: bytes) -> Site | None:
        """The site that owns this node key, revoked or not."""
        return self._node_keys.get(key)

    def sites(self) -> list[Site]:
        """Every site by name, revoked ones too."""
        return sorted(self._node_keys.values(), key=lambda site: (site.name, site.enrolled))

    def token_use(self, nonce: str) -> TokenUse | None:
        """What the token with this nonce was used for, if it was."""
        with self._lock:
            row = self._db.execute("SELECT request, answer FROM tokens WHERE nonce = ?", (nonce,)).fetchone()
        return None if row is None else TokenUse(request=row[0], answer=row[1])

    def stated(self, site_id: str) -> str | None:
        """The time of the last statement that was taken from a site, if there was one."""
        known = self._superseded.get(site_id)
        return None if known is None else known.stated

    def by_id(self, site_id: str) -> Site | None:
        """The site of this id, revoked or not."""
        return next((site for site in self._node_keys.values() if site.site_id == site_id), None)

    def check_free(self, name: str, identity: bytes, node_key: bytes, *, replaces: str = "") -> Site | None:
        """The site that these keys and this name already belong to, or None when all of them are free.

        Args:
            name, identity, node_key: of the site that asks.
            replaces: id of the site that gives its name up.

        Raises:
            TrustError: the name or a key is another site's, or the site was revoked.
        """
        for site in self._node_keys.values():
            same_keys = site.identity == identity and site.node_key == node_key
            if same_keys and site.name == name and site.revoked is None:
                return site
            if site.identity == identity or site.node_key == node_key:
                state = f"revoked at {site.revoked}" if site.revoked else f"enrolled as {site.name}"
                raise TrustError(
                    f"these keys were {state}",
                    next_step="remove the site's state directory, so that join makes new keys, and use a new token",
                )
            if site.name == name and site.revoked is None and site.site_id != replaces:
                raise TrustError(
                    f"the name {name} belongs to another site",
                    next_step=f"choose another name; to replace a lost host: fedsite token create --replaces {name}",
                )
        return None

    def enrol(self, site: Site, *, nonce: str, request: str, answer: bytes, replaces: str = "") -> None:
        """Write the site (or its new certificate) and the use of its token in one transaction.

        Args:
            site: with the labels it starts with, which count for a site that is new.
            nonce: of the token.
            request: digest of what was asked.
            answer: what was answered, for the same request again.
            replaces: id of the site that is revoked in the same transaction.

        Raises:
            TrustError: name, key or token were taken meanwhile.
            StorageError: the disk is full or read-only.
        """
        with self._lock, storage():
            try:
                with self._db:
                    if replaces:
                        self._db.execute(_REVOKE, (site.enrolled, replaces))
                    self._db.execute(_ENROL, _row(site))
                    # A new token may be the answer to a stolen key: nothing but the new certificate counts after it.
                    self._db.execute("DELETE FROM renewals WHERE site_id = ?", (site.site_id,))
                    self._db.execute("INSERT INTO tokens VALUES (?, ?, ?, ?)", (nonce, request, answer, site.enrolled))
            except sqlite3.IntegrityError:
                raise TrustError(
                    f"the token, the name {site.name} or its keys are already in use",
                    next_step="ask the central team for a new token: fedsite token create",
                    refusal=RefusalCode.REPLAYED,
                ) from None
            self._index()

    def renew(self, site: Site, presented: Superseded) -> None:
        """Write a site's new certificate, beside the one it asked under.

        A third one, that an earlier answer held and the site never used, ends here.

        Raises:
            StorageError: the disk is full or read-only.
        """
        old = (site.site_id, presented.certificate, presented.expires.isoformat(), presented.stated)
        with self._lock, storage():
            with self._db:
                self._db.execute(_ENROL, _row(site))
                self._db.execute("INSERT OR REPLACE INTO renewals VALUES (?, ?, ?, ?)", old)
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
        with self._lock, storage():
            with self._db:
                self._db.execute(_REVOKE, (when, site_id))
            self._index()

    def carry(self, site_id: str, carried: bool) -> None:
        """Have a site's messages carried by people from now on, or sent again."""
        with self._lock, storage():
            with self._db:
                self._db.execute("UPDATE sites SET carried = ? WHERE site_id = ?", (int(carried), site_id))
            self._index()

    def label(self, site_id: str, changes: Mapping[str, str | None]) -> None:
        """Set labels; None removes one. `supernode=true` admits the site without a client certificate."""
        with self._lock, storage():
            site = next(item for item in self._node_keys.values() if item.site_id == site_id)
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
        sites = sites_in(self._db)
        earlier = superseded_in(self._db)
        # New dictionaries, swapped in whole: readers in other threads never see half of a change.
        certificates = {
            old.certificate: dataclasses.replace(site, certificate=old.certificate, expires=old.expires)
            for site in sites
            if (old := earlier.get(site.site_id)) is not None
        }
        self._superseded = earlier
        self._certificates = certificates | {site.certificate: site for site in sites}
        self._node_keys = {site.node_key: site for site in sites}


def _row(site: Site) -> tuple[str | bytes | int, ...]:
    return (
        site.site_id,
        site.name,
        site.node_id,
        site.identity,
        site.node_key,
        site.certificate,
        site.certified,
        site.enrolled,
        site.expires.isoformat(),
        json.dumps(dict(site.labels), sort_keys=True),
        int(site.carried),
    )
