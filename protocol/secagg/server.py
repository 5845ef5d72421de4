"""The server's side of SA-1 as a pure machine: it collects, routes, adds, and opens exactly one sum.

The server is not trusted with anything here: what it could do wrong, the sites refuse (site.py). What a site sends is
checked before it counts; a site that sends nonsense is left out of the next set, never the end of the sum by itself.
Memory: one vector, one masked vector at a time, and the shares.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fedsite.protocol.encoding import sha256
from fedsite.protocol.errors import IntegrityError, PolicyError, RefusalCode
from fedsite.protocol.secagg import agreement, context, graph, masking
from fedsite.protocol.secagg.advert import Advert, Roster
from fedsite.protocol.secagg.context import Attempt
from fedsite.protocol.secagg.manifest import Manifest
from fedsite.protocol.secagg.masking import Mask, Ring
from fedsite.protocol.secagg.rebuild import Finder
from fedsite.protocol.secagg.site import SHARE_BYTES, Identities
from fedsite.protocol.secagg.wire import OPENED_BYTES

BATCH = 128  # masks that are taken off while the next ones' seeds are made
Stage = Literal["advertise", "share", "mask", "confirm", "unmask", "ended"]


@dataclass(slots=True, kw_only=True)
class Sum:
    """One sum in the making; methods are called in the order of the stages, `close_…` ends each."""

    manifest: Manifest
    attempt: Attempt
    model_hash: bytes  # 32 bytes; zeros where there is no model
    stage: Stage = "advertise"
    roster: Roster = field(default_factory=lambda: Roster(()))
    session: bytes = b""
    u2: tuple[bytes, ...] = ()
    u3: tuple[bytes, ...] = ()
    confirmations: dict[bytes, bytes] = field(default_factory=dict)
    total: Ring = field(default_factory=lambda: np.zeros(0, np.uint32), repr=False)
    _adverts: dict[bytes, Advert] = field(default_factory=dict)
    _keys: set[bytes] = field(default_factory=set)  # of all adverts
    _near: dict[bytes, tuple[bytes, ...]] = field(default_factory=dict)
    _places: dict[bytes, dict[bytes, int]] = field(default_factory=dict)  # by source, then holder: x
    _sealed: dict[bytes, Mapping[bytes, bytes]] = field(default_factory=dict)  # by source, then holder
    _confirmed: bytes = b""  # what a confirmation signs
    _summed: list[bytes] = field(default_factory=list)
    _opened: dict[bytes, dict[bytes, bytes]] = field(default_factory=dict)  # by source, then holder: x ‖ share
    _answered: set[bytes] = field(default_factory=set)
    at_fault: tuple[bytes, ...] = ()  # sites that made shares which give no secret; known once `open` has failed

    def add_advert(self, site: bytes, raw: bytes, identities: Identities) -> None:
        """Take the keys of a site.

        Raises:
            IntegrityError: malformed, of another site, twice, or too late.
            TrustError: the signature does not verify.
        """
        self._turn("advertise")
        advert = Advert(raw)
        if advert.site != site or site in self._adverts or site not in identities:
            raise _wrong(f"an advert of site {advert.site.hex()}", f"one of site {site.hex()}, once")
        advert.check(self.attempt.adv_ctx, identities[site])
        if self._keys & set(advert.keys) or len(set(advert.keys)) < len(advert.keys):
            raise _wrong(f"keys of site {site.hex()} that another advert has", "keys of its own for every site")
        self._adverts[site] = advert
        self._keys.update(advert.keys)

    def close_adverts(self) -> Roster:
        """U1: the cohort.

        Raises:
            PolicyError: fewer sites than the manifest's minimum, or more than its scale leaves room for.
        """
        self._turn("advertise")
        terms = self.manifest.terms
        _between(len(self._adverts), terms.min_cohort, self.manifest.sites, "sites sent keys")
        self.roster = Roster.of(list(self._adverts.values()))
        hashed = context.roster_hash([advert.raw for advert in self.roster.adverts])
        self.session = context.session(self.attempt.ctx(self.model_hash), hashed)
        size = terms.size(len(self.roster.sites))
        self._near = graph.neighbours(graph.ring(self.session, self.roster.sites), size.neighbours)
        for site, near in self._near.items():
            self._places[site] = {holder: place + 1 for place, holder in enumerate(graph.holders(site, near))}
        self.stage = "share"
        return self.roster

    def add_shares(self, site: bytes, sealed: Mapping[bytes, bytes]) -> None:
        """Take the encrypted shares of a site.

        Raises:
            IntegrityError: not exactly one for each neighbour, twice, or not this stage.
        """
        self._turn("share")
        if site not in self._near or site in self._sealed:
            raise _wrong(f"shares of site {site.hex()}", "a site of the cohort, once")
        if set(sealed) != set(self._near[site]) or any(len(item) != SHARE_BYTES for item in sealed.values()):
            raise _wrong(f"{len(sealed)} shares", f"{SHARE_BYTES} bytes for each of {len(self._near[site])} neighbours")
        self._sealed[site] = dict(sealed)

    def close_shares(self) -> tuple[bytes, ...]:
        """U2: the sites that are asked for their vectors.

        Raises:
            PolicyError: too few are left.
        """
        self._turn("share")
        self.u2 = self._survivors(self._sealed)
        self.total = np.zeros(self.manifest.words, np.uint32)
        self.stage = "mask"
        return self.u2

    def shares_for(self, site: bytes) -> dict[bytes, bytes]:
        """The shares made for one site of U2 by its neighbours in U2."""
        shared = set(self.u2)
        return {source: self._sealed[source][site] for source in self._near[site] if source in shared}

    def neighbours_of(self, site: bytes) -> tuple[bytes, ...]:
        """Who shares masks with a site of U1, and holds shares of its secrets, sorted by id.

        Raises:
            IntegrityError: not of U1, or U1 is not closed.
        """
        if site not in self._near:
            raise _wrong(f"site {site.hex()}", "a site of the cohort")
        return self._near[site]

    def add_vector(self, site: bytes, vector: Ring) -> None:
        """Add one masked vector; it is not kept.

        Raises:
            IntegrityError: not of U2, twice, of another length, or not this stage.
        """
        self._turn("mask")
        if site not in self.u2 or site in self._summed:
            raise _wrong(f"a vector of site {site.hex()}", "a site of U2, once")
        if vector.dtype != np.uint32 or vector.shape != self.total.shape:
            raise _wrong(f"a vector of {vector.size} {vector.dtype}", f"{self.manifest.words} words of uint32")
        np.add(self.total, vector, out=self.total)
        self._summed.append(site)

    def close_vectors(self) -> tuple[bytes, ...]:
        """U3: the sites in the sum.

        Raises:
            PolicyError: too few are left: nothing can be opened.
        """
        self._turn("mask")
        self.u3 = self._survivors(self._summed)
        self._confirmed = context.survivors_message(self.session, self.u3)
        self.stage = "confirm" if self.manifest.terms.size(len(self.roster.sites)).confirm else "unmask"
        return self.u3

    def add_confirmation(self, site: bytes, signature: bytes, identities: Identities) -> None:
        """Take a site's signature over U3.

        Raises:
            IntegrityError: not of U3, twice, or not this stage.
            TrustError: it does not verify.
        """
        self._turn("confirm")
        if site not in self.u3 or site in self.confirmations:
            raise _wrong(f"a confirmation of site {site.hex()}", "a site of U3, once")
        identities[site].verify(signature, self._confirmed, f"confirmation of site {site.hex()}")
        self.confirmations[site] = signature

    def close_confirmations(self) -> dict[bytes, bytes]:
        """As many signatures as a site wants to see before it opens anything; more would only be more to check.

        Raises:
            PolicyError: fewer than the quorum.
        """
        self._turn("confirm")
        needed = self.manifest.terms.quorum(len(self.roster.sites))
        _between(len(self.confirmations), needed, len(self.u3), "sites confirmed")
        self.stage = "unmask"
        return {site: self.confirmations[site] for site in sorted(self.confirmations)[:needed]}

    def add_opened(self, site: bytes, opened: Mapping[bytes, bytes]) -> None:
        """Take the shares that a site of U3 opens; one at another position than its own is left out.

        Raises:
            IntegrityError: of sites it holds nothing of, malformed, twice, or not this stage.
        """
        self._turn("unmask")
        if site not in self.u3 or site in self._answered:
            raise _wrong(f"opened shares of site {site.hex()}", "a site of U3, once")
        if not set(opened) <= {site, *self._near[site]} or any(len(item) != OPENED_BYTES for item in opened.values()):
            raise _wrong(f"{len(opened)} opened shares", f"{OPENED_BYTES} bytes for each neighbour in U2")
        self._answered.add(site)
        for source, item in opened.items():
            if item[0] == self._places[source][site]:  # else its maker may have written another: that share only
                self._opened.setdefault(source, {})[site] = item

    @property
    def can_open(self) -> bool:
        """Whether every secret that is needed has as many shares as its threshold."""
        threshold = self.manifest.terms.size(len(self.roster.sites)).threshold
        return all(len(self._opened.get(site, {})) >= threshold for site in self._needed())

    def open(self, *, threads: int = 1, progress: Callable[[int, int], None] = lambda done, of: None) -> Ring:
        """The sum over U3, [word] uint32; the session is over.

        Args:
            threads: for the streams.
            progress: called with secrets rebuilt, of how many.

        Raises:
            IntegrityError: the shares of some site do not give its secret.
            PolicyError: too few shares.
        """
        self._turn("unmask")
        secrets = self._secrets(progress)  # all of them before the first mask comes off: the sum stays whole
        alive = set(self.u3)
        salt, masks = context.salt(self.session, self.u2), []
        with masking.applying(self.total, stream=self.manifest.terms.stream, threads=threads) as take_off:
            for site, secret in secrets.items():
                masks += self._masks_of(site, secret, salt, alive)
                if len(masks) >= BATCH:
                    take_off(masks)
                    masks = []
            take_off(masks)
        self.stage = "ended"
        self._opened.clear()
        self._sealed.clear()
        return self.total

    def _masks_of(self, site: bytes, secret: bytes, salt: bytes, alive: Collection[bytes]) -> list[Mask]:
        """What takes off a site's own mask, or the pair masks that a lost site left in the others' vectors."""
        if site in alive:
            return [Mask(agreement.self_seed(secret, salt, site), -1)]
        found, key = [], agreement.key_of(secret)
        for other in self._near[site]:
            if other in alive:
                public = self.roster.of_site(other).mask_public
                found.append(Mask(agreement.pair_seed(key, public, salt, site, other), -1 if other < site else 1))
        return found

    def _needed(self) -> tuple[bytes, ...]:
        """Sites whose secret the sum needs: b of the alive, the mask key of the dropped that have a neighbour alive."""
        alive = set(self.u3)
        return tuple(site for site in self.u2 if site in alive or alive & set(self._near[site]))

    def _secrets(self, progress: Callable[[int, int], None]) -> dict[bytes, bytes]:
        """The secrets that the sum needs; a holder that lies is worked around.

        Where more holders than the threshold answered, or would have but for the maker itself, one liar cannot hide a
        secret: its maker is at fault.
        """
        alive, found, missing, needed = set(self.u3), {}, [], self._needed()
        finder = Finder(threshold=self.manifest.terms.size(len(self.roster.sites)).threshold)
        for number, site in enumerate(needed):
            advert, shares = self.roster.of_site(site), self._opened.get(site, {})
            if site in alive:
                secret = finder.find(shares, sha256, advert.commitment)
            else:
                secret = finder.find(shares, agreement.public_of, advert.mask_public)
            if secret is not None:
                found[site] = secret
            else:
                missing.append((site, len(shares)))
                holders = self._answered.intersection(self._near[site]) | (alive & {site})
                self.at_fault += (site,) * (len(holders) > finder.threshold)
            progress(number + 1, len(needed))
        for site, count in missing:
            name, least = f"site {site.hex()}", f"at least {finder.threshold}"
            if count < finder.threshold:
                raise PolicyError(f"{count} shares of {name}", allowed=least, refusal=RefusalCode.COHORT)
            raise _wrong(f"shares of {name} that do not give its secret", "shares as it made them")
        return found

    def _survivors(self, left: Collection[bytes]) -> tuple[bytes, ...]:
        """The largest part of `left` in which every site has as many holders left as it insists on."""
        terms = self.manifest.terms
        alive = graph.lasting(left, self._near, terms.size(len(self.roster.sites)).threshold)
        _between(len(alive), terms.min_survivors, self.manifest.sites, "sites are left")
        return tuple(sorted(alive))

    def _turn(self, stage: Stage) -> None:
        if self.stage != stage:
            raise IntegrityError(
                f"a message of stage {stage} during {self.stage}", allowed=self.stage, refusal=RefusalCode.REPLAYED
            )


def _between(found: int, least: int, most: int, what: str) -> None:
    if not least <= found <= most:
        raise PolicyError(f"{found} {what}", allowed=f"{least} to {most}", refusal=RefusalCode.COHORT)


def _wrong(found: str, allowed: str) -> IntegrityError:
    return IntegrityError(found, allowed=allowed, refusal=RefusalCode.MALFORMED)
