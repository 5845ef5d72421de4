"""What an instruction brings to a site, read strictly: which sum it is of, and the sets, shares and keys in its blobs.

Whoever signed it may still lie: what has another length than it must, or names somebody who is not there, is refused
before anything is done with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime

from fedsite.client.identity.site import Site
from fedsite.client.sums.store import Place
from fedsite.protocol import certified, ids
from fedsite.protocol.errors import DocumentError, IntegrityError, RefusalCode, TrustError
from fedsite.protocol.keys import SIGNATURE_BYTES, VerifyKey
from fedsite.protocol.messages import CONTROL, NEXT, STAGES, Frame, Header, Purpose
from fedsite.protocol.secagg import context, wire
from fedsite.protocol.secagg.advert import Roster
from fedsite.protocol.secagg.context import NO_MODEL
from fedsite.protocol.secagg.manifest import Manifest
from fedsite.protocol.secagg.site import SHARE_BYTES, SiteState

_MOST = 1_000_000  # of a header's round and attempt

Sites = tuple[bytes, ...]


def blob(frame: Frame, name: str) -> bytes:
    """One blob.

    Raises:
        DocumentError: the instruction does not bring it.
    """
    if name not in frame.blobs:
        raise DocumentError(
            f"the instruction brings no {name}", allowed=f"a blob {name}", refusal=RefusalCode.MALFORMED
        )
    return bytes(frame.blobs[name])


def check_purpose(header: Header) -> None:
    """Refuse a stage without a purpose, and a purpose without a stage.

    Raises:
        DocumentError: one without the other.
    """
    if (header.kind in STAGES) != bool(header.purpose):
        raise DocumentError(f"{header.kind} with purpose {header.purpose!r}", allowed="a purpose with a stage of a sum")


def place_of(header: Header) -> Place:
    """The attempt that a stage, or the mask stage that is a kind of its own, belongs to."""
    purpose: Purpose = header.purpose or header.kind  # type: ignore[assignment]
    return Place(run_id=header.run_id, round=header.round, purpose=purpose, attempt=header.attempt)


def place_of_next(header: Header, purpose: Purpose) -> Place:
    """The attempt whose manifest rides on an instruction.

    Raises:
        DocumentError: the body does not say which, or an `advertise` says another than its header.
    """
    value = header.body.get(NEXT)
    number, attempt = (value.get("round"), value.get("attempt")) if isinstance(value, dict) else (None, None)
    if type(number) is not int or type(attempt) is not int or not (0 <= number <= _MOST and 1 <= attempt <= _MOST):
        raise DocumentError("body.next names no sum", allowed="round and attempt")
    place = Place(run_id=header.run_id, round=number, purpose=purpose, attempt=attempt)
    if header.kind == "advertise" and place != place_of(header):
        raise DocumentError("keys asked for another sum than the header names", allowed="one sum")
    return place


def manifest_of(frame: Frame) -> Manifest:
    """The terms of a sum to come.

    Raises:
        DocumentError: not a manifest, or not the one way to write it: its hash is of these bytes.
    """
    data = blob(frame, NEXT)
    manifest = Manifest.parse(data)
    if manifest.encode() != data:
        raise DocumentError("a manifest that is not in canonical form", allowed="the bytes that its hash is of")
    return manifest


def model_of(header: Header, frame: Frame) -> bytes:
    """What a vector is computed on, 32 bytes: the hash of the weights (with their correction), of a graph, or zeros."""
    if header.kind == "calibrate":
        return hashlib.sha256(blob(frame, "graph")).digest()
    model = ids.hash_bytes(header.model_hash) if header.model_hash else NO_MODEL
    return context.corrected(model, blob(frame, CONTROL)) if CONTROL in frame.blobs else model


def roster_of(state: SiteState) -> Roster:
    """The cohort of an attempt.

    Raises:
        IntegrityError: there is none yet (`replayed`).
    """
    if state.roster is None:
        raise IntegrityError(
            f"a session that is {state.stage}", allowed="the share stage first", refusal=RefusalCode.REPLAYED
        )
    return state.roster


def identities_of(frame: Frame, roster: Roster, site: Site, now: datetime) -> dict[bytes, VerifyKey]:
    """The cohort's identities by site id, each certified by our federation; our own among them.

    Raises:
        TrustError: one is forged, expired, or another site's.
        IntegrityError: not one for each site of the roster, or none for us.
    """
    items = wire.unpack_items(blob(frame, "identities"), roster.sites, certified.SIZE, "certified identities")
    found = {one: certified.verify(item, site.federation, now) for one, item in items.items()}
    for one, key in found.items():
        if key.id != one.hex():
            raise TrustError(f"site {one.hex()} with the identity of another", allowed="its own")
    if site.key.public not in found.values():
        raise IntegrityError(
            "a cohort without this site", allowed="asking the sites in it", refusal=RefusalCode.MALFORMED
        )
    return found


def shared_of(frame: Frame, state: SiteState) -> tuple[Sites, dict[bytes, bytes]]:
    """U2, and the shares made for us by our neighbours in it."""
    packed, rest = _split(frame, roster_of(state))
    u2 = wire.unpack_set(packed, roster_of(state).sites)
    return u2, wire.unpack_items(rest, set(state.near) & set(u2), SHARE_BYTES, "shares")


def survivors_of(frame: Frame, state: SiteState) -> Sites:
    """U3, and nothing else."""
    return wire.unpack_set(blob(frame, "secagg"), roster_of(state).sites)


def confirmed_of(frame: Frame, state: SiteState) -> tuple[Sites, Mapping[bytes, bytes]]:
    """U3, and where the graph is sparse the signatures of those who confirmed it."""
    if not state.size.confirm:
        return survivors_of(frame, state), {}
    roster = roster_of(state)
    packed, rest = _split(frame, roster)
    signed, rest = wire.split(rest, len(packed), "a set of who confirmed")
    signatures = wire.unpack_items(rest, wire.unpack_set(signed, roster.sites), SIGNATURE_BYTES, "confirmations")
    return wire.unpack_set(packed, roster.sites), signatures


def _split(frame: Frame, roster: Roster) -> tuple[bytes, bytes]:
    return wire.split(blob(frame, "secagg"), (len(roster.sites) + 7) // 8, "a set")
