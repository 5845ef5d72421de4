"""A simulated site's part in secure sums, on the pure machine of protocol.secagg.site: states in a dictionary."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedsite.protocol import certified
from fedsite.protocol.errors import IntegrityError, RefusalCode
from fedsite.protocol.federation import Federation
from fedsite.protocol.instants import now
from fedsite.protocol.keys import SigningKey, VerifyKey
from fedsite.protocol.messages import Frame, Header
from fedsite.protocol.secagg import site, wire
from fedsite.protocol.secagg.advert import Roster
from fedsite.protocol.secagg.context import NO_MODEL, Attempt
from fedsite.protocol.secagg.manifest import Manifest
from fedsite.protocol.secagg.site import SHARE_BYTES, SiteState

STAGES = ("advertise", "share", "confirm", "unmask")
Place = tuple[int, str, int]  # round, purpose, attempt
Vector = Callable[[Manifest, Header, Frame], NDArray[np.uint32]]


class SecureSite:
    """Answers stages; each once, each sum opened once."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self._id = bytes.fromhex(key.public.id)
        self._states: dict[Place, SiteState] = {}
        self._identities: dict[Place, dict[bytes, VerifyKey]] = {}
        self._opened: set[tuple[int, str]] = set()

    def riding(self, header: Header, frame: Frame) -> dict[str, bytes]:
        """The advert for a sum to come, where the instruction asks for one."""
        if "next" not in frame.blobs:
            return {}
        manifest, wanted = Manifest.parse(frame.blobs["next"]), header.body["next"]
        place = (int(wanted["round"]), str(manifest.purpose), int(wanted["attempt"]))
        known = self._states.get(place)
        if known is not None and known.stage == "advertised" and known.manifest.hash == manifest.hash:
            return {"advert": known.advert.raw}
        if known is not None or place[:2] in self._opened:
            raise IntegrityError(f"keys for {place} a second time", refusal=RefusalCode.REPLAYED)
        attempt = Attempt(run_id=header.run_id, round=place[0], attempt=place[2], manifest_hash=manifest.hash)
        self._states[place], advert = site.advertise(manifest, attempt, self._key)
        return {"advert": advert.raw}

    def answer(self, header: Header, frame: Frame, federation: Federation, vector: Vector) -> dict[str, bytes]:
        """The blobs that answer a stage.

        Raises:
            FedsiteError: refused.
        """
        if header.kind == "advertise":
            return {}  # what rides is the answer
        place = (header.round, header.purpose or header.kind, header.attempt)
        state = self._states.get(place)
        if state is None:
            raise IntegrityError(f"no keys for {place}", refusal=RefusalCode.MALFORMED)
        if header.kind == "share":
            return self._share(place, state, header, frame, federation)
        assert state.roster is not None
        roster = state.roster.sites
        part, rest = wire.split(frame.blobs["secagg"], (len(roster) + 7) // 8, "a set")
        named = wire.unpack_set(part, roster)
        if header.kind == "confirm":
            self._states[place], signature = site.confirm(state, named, self._key)
            return {"confirmation": signature}
        if header.kind == "unmask":
            return self._unmask(place, state, named, rest)
        near = [one for one in named if one in site._near(state)]
        shares = wire.unpack_items(rest, near, SHARE_BYTES, "shares")
        self._states[place], masked = site.mask(state, named, shares, vector(state.manifest, header, frame))
        return {"masked": masked.astype("<u4").tobytes()}

    def _share(
        self, place: Place, state: SiteState, header: Header, frame: Frame, federation: Federation
    ) -> dict[str, bytes]:
        roster = Roster.parse(frame.blobs["roster"], most=state.manifest.sites)
        packed = wire.unpack_items(frame.blobs["identities"], roster.sites, certified.SIZE, "identities")
        self._identities[place] = {one: certified.verify(data, federation, now()) for one, data in packed.items()}
        model = bytes.fromhex(header.model_hash) or NO_MODEL
        self._states[place], sealed = site.share(state, roster, self._identities[place], model)
        return {"shares": wire.pack_items(sealed)}

    def _unmask(self, place: Place, state: SiteState, u3: tuple[bytes, ...], rest: bytes) -> dict[str, bytes]:
        assert state.roster is not None
        roster, confirmations = state.roster.sites, {}
        if rest:
            part, signatures = wire.split(rest, (len(roster) + 7) // 8, "a set")
            signed = wire.unpack_set(part, roster)
            confirmations = wire.unpack_items(signatures, signed, 64, "confirmations")
        sources = {*state.sealed, self._id}
        self._states[place], opened = site.unmask(state, u3, self._identities[place], confirmations)
        self._opened.add(place[:2])
        return {"opened": wire.pack_opened(opened, sources)}
