"""One secure sum on the server: what its sites are sent in each stage, and how what they send is taken.

A stage's `Parcel` is blobs and the sizes of what must come back, by site; `take_…` hands one answer to the sum
(protocol.secagg.server), which refuses what does not fit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from fedsite.protocol.encoding import sha256
from fedsite.protocol.errors import FedsiteError, IntegrityError, RefusalCode
from fedsite.protocol.keys import SIGNATURE_BYTES
from fedsite.protocol.messages import Purpose
from fedsite.protocol.plan import RoundPlan
from fedsite.protocol.secagg import wire
from fedsite.protocol.secagg.server import Sum
from fedsite.protocol.secagg.site import SHARE_BYTES
from fedsite.server.link.transport import SiteLink

THREADS_MAX: Final = 8  # more gain nothing: memory is the limit by then


@dataclass(frozen=True, slots=True)
class Parcel:
    """What a stage sends and wants; both by site id (hex), then by name of the blob."""

    blobs: Mapping[str, Mapping[str, bytes]]
    sizes: Mapping[str, Mapping[str, int]]  # bytes

    def __or__(self, other: Parcel) -> Parcel:
        return Parcel({**self.blobs, **other.blobs}, {**self.sizes, **other.sizes})


NOTHING: Final = Parcel({}, {})


def most_groups(plan: RoundPlan, purpose: Purpose) -> int:
    """Sums of their own that sites are cut into at most: strategies compare updates, and nothing else."""
    return plan.protection.groups if purpose == "train" else 1


@dataclass(slots=True, kw_only=True)
class Group:
    """One sum and its sites."""

    name: str
    sum: Sum
    sites: dict[bytes, SiteLink]
    confirmed: dict[bytes, bytes] = field(default_factory=dict)  # signatures that the sites of U3 want to see
    masked: dict[str, str] = field(default_factory=dict)  # SHA-256 of each masked vector, hex, by the site's name
    failed: str = ""  # why it fell out

    def names(self, sites: Sequence[bytes]) -> list[str]:
        """Of these sites, for people."""
        return [self.sites[site].name for site in sites]

    @property
    def roster(self) -> tuple[bytes, ...]:
        """U1."""
        return self.sum.roster.sites

    @property
    def threshold(self) -> int:
        """Shares that open a secret."""
        return self.sum.manifest.terms.size(len(self.roster)).threshold

    def needed(self, minimum: int) -> int:
        """Sites without which the sum cannot go on, `minimum` of them for the run's own reasons."""
        terms = self.sum.manifest.terms
        size = terms.size(len(self.roster))
        return max(terms.min_survivors, minimum, 0 if size.confirm else size.threshold)

    def to_share(self) -> Parcel:
        """The cohort."""
        blobs = {
            "roster": self.sum.roster.raw,
            "identities": b"".join(self.sites[site].certified for site in self.roster),
        }
        sizes = {site.hex(): {"shares": SHARE_BYTES * len(self.sum.neighbours_of(site))} for site in self.roster}
        return Parcel(dict.fromkeys(sizes, blobs), sizes)

    def take_shares(self, site: bytes, data: bytes) -> None:
        """Encrypted shares for the neighbours."""
        near = self.sum.neighbours_of(site)
        self.sum.add_shares(site, wire.unpack_items(data, near, SHARE_BYTES, "shares"))

    def to_mask(self) -> Parcel:
        """U2, and the shares that were made for each of its sites."""
        shared = wire.pack_set(self.sum.u2, self.roster)
        blobs = {site.hex(): {"secagg": shared + wire.pack_items(self.sum.shares_for(site))} for site in self.sum.u2}
        return Parcel(blobs, {site: {"masked": 4 * self.sum.manifest.words} for site in blobs})

    def take_vector(self, site: bytes, data: bytes) -> None:
        """A masked vector: added, hashed, forgotten."""
        self.sum.add_vector(site, np.frombuffer(data, "<u4").astype(np.uint32, copy=False))
        self.masked[self.sites[site].name] = sha256(data).hex()

    def to_confirm(self) -> Parcel:
        """U3, to be signed."""
        survivors = wire.pack_set(self.sum.u3, self.roster)
        blobs = {site.hex(): {"secagg": survivors} for site in self.sum.u3}
        return Parcel(blobs, {site: {"confirmation": SIGNATURE_BYTES} for site in blobs})

    def take_confirmation(self, site: bytes, data: bytes) -> None:
        """A signature over U3."""
        self.sum.add_confirmation(site, data, {site: self.sites[site].public_key})

    def to_unmask(self) -> Parcel:
        """U3, and where survivors are confirmed, who signed it."""
        data = wire.pack_set(self.sum.u3, self.roster)
        if self.confirmed:
            data += wire.pack_set(self.confirmed, self.roster) + wire.pack_items(self.confirmed)
        sizes = {site.hex(): {"opened": wire.OPENED_BYTES * len(self._held(site))} for site in self.sum.u3}
        return Parcel({key: {"secagg": data} for key in sizes}, sizes)

    def take_opened(self, site: bytes, data: bytes) -> None:
        """Opened shares."""
        self.sum.add_opened(site, wire.unpack_opened(data, self._held(site)))

    def open(self) -> None:
        """Take off all masks.

        Raises:
            FedsiteError: too few shares, or shares that do not fit.
        """
        try:
            self.sum.open(threads=max(1, min(THREADS_MAX, os.cpu_count() or 1)))
        except FedsiteError:
            if not self.sum.at_fault:
                raise
            names = ", ".join(self.names(self.sum.at_fault))
            raise IntegrityError(
                f"shares made by {names} that give no secret",
                allowed="shares of its own secrets from every site",
                refusal=RefusalCode.MALFORMED,
            ) from None

    def close(self, stage: str, found: int, of: int, needed: int, end: Callable[[], object]) -> None:
        """End a stage; with too few answers, or where they do not fit together, the group falls out."""
        if found < needed:
            self.failed = f"{stage}: {found} of {of} sites answered, {needed} needed"
            return
        try:
            end()
        except FedsiteError as error:
            self.failed = f"{stage}: {error}"

    def confirm(self) -> None:
        """End the confirm stage."""
        self.confirmed = self.sum.close_confirmations()

    def _held(self, site: bytes) -> set[bytes]:
        """Whose shares a site holds: its neighbours' in U2, and one of its own."""
        return {site, *self.sum.shares_for(site)}
