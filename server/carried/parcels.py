"""Files to and from carried sites at the server: everything open goes out in one file, verified replies come back in.

A reply counts when its site signed it as the answer to an instruction that is still open; each counts once. A file is
taken in as a whole or refused as a whole, and a command that was killed half-way is repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from fedsite.protocol import audit, instants, messages, signing, storage
from fedsite.protocol.errors import ConfigError, IntegrityError, RefusalCode, TrustError
from fedsite.protocol.exchange_file import Address, Parcel, open_parcel, pack
from fedsite.protocol.keys import VerifyKey
from fedsite.protocol.messages import Frame
from fedsite.protocol.release import MAX_MODEL
from fedsite.server.audit_log import Append
from fedsite.server.carried.spool import Open, Spool
from fedsite.server.home import ServerHome
from fedsite.server.release.delivery import FILES, release_file
from fedsite.server.sites.fleet_file import Site, read_sites

_SITES: Final = "fedsite sites list"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A file for a site, or that there is nothing to carry."""

    site: Site
    data: bytes | None
    sequence: int | None
    instructions: Sequence[Open]


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What a file of replies brought."""

    site: Site
    sequence: int
    taken: int  # replies that are read now
    closed: int  # replies to what is no longer open


def export(home: ServerHome, name: str, now: datetime) -> Exported:
    """Pack what is open for a site.

    Args:
        home: the server's state.
        name: the site's name or id.
        now: UTC.

    Raises:
        ConfigError: no such site, or one that is connected.
        IntegrityError, StorageError: a release that is to be installed is not there, or the disk.
    """
    site = _find(home, name)
    spool = Spool(home.exchange, site.site_id)
    with spool.locked():
        found = spool.open(now)
        if not found:
            return Exported(site=site, data=None, sequence=None, instructions=())
        address = Address(
            direction="instructions",
            federation=home.federation().id,
            site_id=site.site_id,
            sequence=spool.counts.next(now),
            created=now,
            expires=max(instants.read(item.header.expires) for item in found),
        )
        data = pack(address, [item.frame for item in found], _releases(home, found), home.signing_key())
    return Exported(site=site, data=data, sequence=address.sequence, instructions=found)


def take_in(home: ServerHome, data: bytes, now: datetime, told: Append) -> Imported:
    """Take in a file of replies.

    Args:
        home: the server's state.
        data: the file.
        now: UTC.
        told: the audit log.

    Raises:
        DocumentError, IntegrityError, TrustError: it is damaged, somebody else's, expired, or was taken in before.
        StorageError: the disk; the command is repeated.
    """
    sites = {site.site_id: site for site in read_sites(home.database)}

    def key_of(site_id: str) -> VerifyKey:
        site = sites.get(site_id)
        if site is None or site.revoked is not None:
            raise TrustError(
                f"this file is of site {site_id[:8]}, which {'is not enrolled' if site is None else 'was revoked'}",
                allowed="a site of this federation",
                next_step=_SITES,
                refusal=RefusalCode.WRONG_SITE,
            )
        return VerifyKey(site.identity)

    parcel = open_parcel(data, "replies", home.federation(), key_of, now)
    site = sites[parcel.head.site_id]
    if not site.carried:
        raise _connected(site)
    spool = Spool(home.exchange, site.site_id)
    with spool.locked():
        if spool.counts.known(parcel):
            raise TrustError(
                f"file {parcel.head.sequence} of site {site.name} was taken in before",
                allowed="each file once",
                next_step="nothing: its replies have counted",
                refusal=RefusalCode.REPLAYED,
            )
        good = _checked(parcel, {item.name: item for item in spool.open(now)}, VerifyKey(site.identity))
        facts = {"sequence": parcel.head.sequence, "replies": len(good), "file": parcel.digest}
        told("carried-in", {"site_id": site.site_id, "name": site.name, **facts})
        for name, frame in good.items():
            spool.answer(name, frame)
        spool.counts.note(parcel)
    return Imported(site=site, sequence=parcel.head.sequence, taken=len(good), closed=len(parcel.frames) - len(good))


def _checked(parcel: Parcel, found: Mapping[str, Open], key: VerifyKey) -> dict[str, Frame]:
    """The replies to what is open, by its name; every one that is not what it says refuses the file."""
    good: dict[str, Frame] = {}
    for frame in parcel.frames:
        reply = messages.read_reply(frame.header)
        item = found.get(f"{reply.run_id}-{reply.instruction}")
        if item is None:
            continue
        verified = signing.open_reply(frame, key, instruction=item.frame.header)
        if audit.FIELD in verified.body:
            audit.read_head(verified.body[audit.FIELD])
        good[item.name] = frame
    return good


def _releases(home: ServerHome, found: Sequence[Open]) -> dict[str, bytes]:
    """The files of every release that is to be installed, by the path they have over the network."""
    files: dict[str, bytes] = {}
    for item in found:
        if item.header.kind != "install":
            continue
        version = str(item.header.body.get("version"))
        for name in FILES:
            path = release_file(home.releases, version, name)
            if path is None:
                raise IntegrityError(f"release {version} has no {name}", allowed=f"a file in {home.releases}")
            files[f"/releases/{version}/{name}"] = storage.read(path, limit=MAX_MODEL)
    return files


def _find(home: ServerHome, name: str) -> Site:
    sites = [site for site in read_sites(home.database) if site.revoked is None]
    for site in sites:
        if name in (site.name, site.site_id):
            if not site.carried:
                raise _connected(site)
            return site
    carried = ", ".join(site.name for site in sites if site.carried) or "none is carried"
    raise ConfigError(f"no site {name}", allowed=carried, next_step=_SITES)


def _connected(site: Site) -> ConfigError:
    return ConfigError(
        f"site {site.name} is connected", allowed="a carried site", next_step=f"fedsite sites carry {site.name}"
    )


def summary(item: Open) -> dict[str, Any]:
    """One instruction, for people and scripts."""
    header = item.header
    return {"run_id": header.run_id, "kind": header.kind, "round": header.round, "expires": header.expires}
