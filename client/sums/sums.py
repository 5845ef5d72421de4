"""The site's side of a secure sum: each message is checked, the new state stored, and only then is it answered.

What the machine (protocol/secagg/site.py) decides about one attempt stands there; here is what it cannot know: whether
the manifest is the accepted plan's, what this site has answered before, and whether this sum has been opened already.
An attempt's secrets live until it is opened, until a later one of its purpose begins, or until the run ends.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from fedsite.client.identity.site import Site
from fedsite.client.sums import incoming, terms
from fedsite.client.sums.store import Kept, Place, SumStore
from fedsite.protocol import ids, shape, signing
from fedsite.protocol.errors import FedsiteError, IntegrityError, RefusalCode, TrustError
from fedsite.protocol.keys import VerifyKey
from fedsite.protocol.messages import NEXT, Frame, Header
from fedsite.protocol.plan import RoundPlan
from fedsite.protocol.secagg import context, wire
from fedsite.protocol.secagg import site as machine
from fedsite.protocol.secagg.advert import Roster
from fedsite.protocol.secagg.context import NO_MODEL, Attempt
from fedsite.protocol.secagg.manifest import Manifest
from fedsite.protocol.secagg.site import SiteState

_log = logging.getLogger(__name__)

_KEY_BYTES = 32
_THREADS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Coming:
    """A sum to come, for which the server asks this site's keys."""

    place: Place
    manifest: Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """This site's turn to send its vector: everything about it is checked, and no data has been read."""

    place: Place
    kept: Kept
    u2: tuple[bytes, ...]
    sealed: Mapping[bytes, bytes]
    instruction: str

    @property
    def manifest(self) -> Manifest:
        """What is summed."""
        return self.kept.state.manifest


class Sums:
    """A site's part in secure sums. Every method raises, and then nothing has changed, what it does not answer."""

    def __init__(self, site: Site, store: SumStore, clock: Callable[[], datetime]) -> None:
        """`clock`: UTC, for the validity of identities."""
        self._site = site
        self._store = store
        self._clock = clock

    def coming(self, header: Header, frame: Frame, plan: RoundPlan, *, limit: int) -> Coming | None:
        """The sum whose manifest rides on an instruction, checked against the accepted plan; None where none does.

        Args:
            header: of the instruction.
            frame: the instruction.
            plan: the accepted one.
            limit: the largest vector in bytes.

        Raises:
            DocumentError: malformed, or not of this plan.
            TrustError: this site has opened that sum, or gone past it (`replayed`).
            PolicyError, IntegrityError: as `terms.check`.
        """
        if header.kind != "advertise" and NEXT not in {*frame.blobs, *header.body}:
            return None
        manifest = incoming.manifest_of(frame)
        terms.check(manifest, plan, limit=limit)
        place = incoming.place_of_next(header, manifest.purpose)
        terms.check_round(plan, place.purpose, place.round)
        self._not_opened(place)
        later = [other for other in self._store.places(place.run_id, place.purpose) if other.order >= place.order]
        kept = self._store.load(place) if place in later else None
        if later and (kept is None or kept.stage != "advertised" or kept.state.manifest.hash != manifest.hash):
            raise _replayed(f"keys for {place}")
        return Coming(place=place, manifest=manifest)

    def advert(self, coming: Coming) -> bytes:
        """This site's signed keys for a sum to come: new ones once, then the same."""
        place, kept = coming.place, self._store.load(coming.place)
        if kept is None:
            attempt = Attempt(
                run_id=place.run_id, round=place.round, attempt=place.attempt, manifest_hash=coming.manifest.hash
            )
            state, _ = machine.advertise(coming.manifest, attempt, self._site.key)
            kept = Kept(state=state)
            self._store.save(place, kept)
            self._forget(place, lambda other, stage: other.round == place.round or stage == "advertised")
        return kept.state.advert.raw

    def share(self, header: Header, frame: Frame) -> dict[str, bytes]:
        """Check the cohort; an encrypted share of both secrets for every neighbour."""
        place, kept, instruction = self._attempt(header, frame)
        if kept.instruction != instruction:
            roster = Roster.parse(incoming.blob(frame, "roster"), most=kept.state.manifest.sites)
            identities = incoming.identities_of(frame, roster, self._site, self._clock())
            model_hash = ids.hash_bytes(header.model_hash) if header.model_hash else NO_MODEL
            state, sealed = machine.share(kept.state, roster, identities, model_hash)
            kept = Kept(
                state=state,
                model_hash=model_hash,
                identities=b"".join(identities[site].raw for site in roster.sites),
                instruction=instruction,
                answer=wire.pack_items(sealed),
            )
            self._store.save(place, kept)
            self._forget(place, lambda _other, _stage: True)
            _log.info("%s: keys shared in a cohort of %s, session %s", place, len(roster.sites), state.session.hex())
        return {"shares": kept.answer}

    def turn(self, header: Header, frame: Frame) -> Turn:
        """Check that it is this site's turn to send its vector, before data is read or anything is charged.

        Raises:
            TrustError: this sum was opened (`replayed`).
            IntegrityError, PolicyError: as protocol.secagg.site.check_mask, or another model than the session's.
        """
        place, kept, instruction = self._attempt(header, frame)
        state = _unmasked(kept.state) if kept.instruction == instruction else kept.state
        u2, sealed = incoming.shared_of(frame, state)
        machine.check_mask(state, u2, sealed)
        if incoming.model_of(header, frame) != kept.model_hash:
            raise IntegrityError("another model than this sum was begun with", allowed="the model of the share stage")
        return Turn(place=place, kept=kept, u2=u2, sealed=sealed, instruction=instruction)

    def check_again(self, turn: Turn, vector: bytes | None) -> None:
        """Check that what is to be masked is what this attempt's masks were used for, if they were.

        Raises:
            TrustError: it is another vector, or gone: two under one mask would show their difference.
        """
        used = turn.kept.vector
        if used and (vector is None or hashlib.sha256(vector).hexdigest() != used):
            raise _replayed(f"another vector for {turn.place}")

    def masked(self, turn: Turn, vector: bytes) -> dict[str, bytes]:
        """The vector under this attempt's masks, which are for this one vector for ever.

        Args:
            turn: of `turn`.
            vector: little-endian uint32, clipped, noised, charged, and on disk, so that it is the same after a crash.
        """
        self.check_again(turn, vector)
        kept, words = turn.kept, np.frombuffer(bytearray(vector), "<u4").astype(np.uint32, copy=False)
        threads = min(_THREADS, os.cpu_count() or 1)
        state, words = machine.mask(_unmasked(kept.state), turn.u2, turn.sealed, words, threads=threads)
        if not kept.vector:
            digest = hashlib.sha256(vector).hexdigest()
            kept = dataclasses.replace(kept, state=state, instruction=turn.instruction, answer=b"", vector=digest)
            self._store.save(turn.place, kept)
        masked = words.astype("<u4", copy=False).tobytes()
        _log.info("%s: masked for %s sites, SHA-256 %s", turn.place, len(turn.u2), hashlib.sha256(masked).hexdigest())
        return {"masked": masked}

    def confirm(self, header: Header, frame: Frame) -> dict[str, bytes]:
        """Sign who survived, where the graph is sparse."""
        place, kept, instruction = self._attempt(header, frame)
        if kept.instruction != instruction:
            u3 = incoming.survivors_of(frame, kept.state)
            state, signature = machine.confirm(kept.state, u3, self._site.key)
            kept = dataclasses.replace(kept, state=state, instruction=instruction, answer=signature)
            self._store.save(place, kept)
        return {"confirmation": kept.answer}

    def unmask(self, header: Header, frame: Frame) -> dict[str, bytes]:
        """One share of each neighbour: of its self-mask when it survived, of its mask key when it did not. Once."""
        place, kept, instruction = self._attempt(header, frame, opens=True)
        if kept.instruction != instruction:
            u3, signatures = incoming.confirmed_of(frame, kept.state)
            sources = {kept.state.site, *kept.state.sealed}
            state, opened = machine.unmask(kept.state, u3, _identities(kept), signatures)
            answer = wire.pack_opened(opened, sources)
            self._store.mark_opened(place, instruction)
            kept = dataclasses.replace(kept, state=state, instruction=instruction, answer=answer)
            self._store.save(place, kept)
            _log.info("%s: opened in the sum over %s of %s sites", place, len(u3), len(state.u2))
        return {"opened": kept.answer}

    def told(self, header: Header, frame: Frame) -> dict[str, Any]:
        """What the audit log says of the sum that an answered instruction is a stage of: its terms, and hashes of who
        was in it. The server's log lists the sites, and these hashes say whether those are the ones shown here."""
        kept = self._store.load(incoming.place_of(header))
        if kept is None or kept.state.roster is None:
            return {}
        state, roster = kept.state, kept.state.roster
        found = {
            "manifest_hash": state.manifest.hash.hex(),
            "session": state.session.hex(),
            "model_hash": kept.model_hash.hex(),
            "roster_hash": context.roster_hash([advert.raw for advert in roster.adverts]).hex(),
            "noise": shape.plain(state.manifest.noise),
            "u1": _set(roster.sites),
            "u2": _set(state.u2),
        }
        if header.kind == "unmask":
            survivors, signatures = incoming.confirmed_of(frame, state)
            found |= {"u3": _set(survivors), "confirmed": _set(tuple(signatures))}
        return found

    def _attempt(self, header: Header, frame: Frame, *, opens: bool = False) -> tuple[Place, Kept, str]:
        """The attempt that an instruction belongs to, which has been neither opened nor left behind."""
        place, instruction = incoming.place_of(header), signing.instruction_hash(frame)
        self._not_opened(place, instruction if opens else "")
        kept = self._store.load(place)
        if kept is None:
            raise IntegrityError(
                f"{place}, for which this site holds no keys",
                allowed="a sum that it sent keys for, and no later one",
                refusal=RefusalCode.REPLAYED,
            )
        if kept.state.manifest.plan_hash != header.plan_hash:
            raise IntegrityError(
                f"{place} was begun under another plan",
                allowed="the plan its manifest names",
                refusal=RefusalCode.PLAN_INVALID,
            )
        return place, kept, instruction

    def _not_opened(self, place: Place, instruction: str = "") -> None:
        """Refuse a sum that was opened, unless by this very instruction."""
        last, by = self._store.opened(place.run_id, place.purpose)
        if place.round < last or (place.round == last and (not instruction or by != instruction)):
            raise _replayed(f"{place} when round {last} was opened")

    def _forget(self, than: Place, which: Callable[[Place, str], bool]) -> None:
        """Drop other attempts of the same purpose, and those that nobody can read any more."""
        for other in self._store.places(than.run_id, than.purpose):
            if other == than:
                continue
            try:
                kept = self._store.load(other)
            except FedsiteError:
                kept = None
            if kept is None or which(other, kept.stage):
                self._store.drop(other)


def _unmasked(state: SiteState) -> SiteState:
    """A masked state before its vector: masking is a function of it, so that the same vector gets the same bytes."""
    return dataclasses.replace(state, stage="shared", u2=(), sealed={}) if state.stage == "masked" else state


def _identities(kept: Kept) -> dict[bytes, VerifyKey]:
    """By site; read only where confirmations are."""
    if not kept.state.size.confirm:
        return {}
    sites, size = incoming.roster_of(kept.state).sites, _KEY_BYTES
    return {site: VerifyKey(kept.identities[place * size : (place + 1) * size]) for place, site in enumerate(sites)}


def _set(sites: Sequence[bytes]) -> dict[str, Any]:
    return {"sites": len(sites), "hash": context.set_hash(sites).hex()}


def _replayed(found: str) -> TrustError:
    return TrustError(found, allowed="each sum opened once, attempts that rise", refusal=RefusalCode.REPLAYED)
