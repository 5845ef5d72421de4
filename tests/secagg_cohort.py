"""A cohort in memory: real keys, both machines of SA-1, every message in a test's hands."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from fedsite.protocol.errors import FedsiteError, RefusalCode
from fedsite.protocol.keys import SigningKey, VerifyKey
from fedsite.protocol.secagg import fixedpoint, site
from fedsite.protocol.secagg.context import NO_MODEL, Attempt
from fedsite.protocol.secagg.fixedpoint import Field
from fedsite.protocol.secagg.manifest import Manifest, Terms
from fedsite.protocol.secagg.server import Sum
from fedsite.protocol.secagg.site import SiteState

RUN = "01ARYZ6S410000000000000000"


def identity(number: int) -> SigningKey:
    """The same key for the same number, always."""
    return SigningKey(hashlib.sha256(b"cohort %d" % number).digest())


def refused(kind: type[FedsiteError], action: Callable[..., object], *arguments: object) -> RefusalCode:
    """The code that an action is refused with, by an error of this kind."""
    with pytest.raises(kind) as caught:
        action(*arguments)
    return caught.value.refusal


@dataclass
class Cohort:
    """n sites and one sum; `lost` names (stage, site number) that answer nothing from that stage on."""

    count: int
    words: int = 4
    terms: Terms = field(default_factory=Terms)
    room: int = 0  # sites the manifest leaves room for; 0: just these
    random: Callable[[int], bytes] | None = None
    attempt_number: int = 1

    def __post_init__(self) -> None:
        keys = sorted((identity(number) for number in range(self.count)), key=lambda key: key.public.id)
        self.keys = {bytes.fromhex(key.public.id): key for key in keys}
        self.ids = list(self.keys)
        self.identities: Mapping[bytes, VerifyKey] = {site: key.public for site, key in self.keys.items()}
        self.manifest = Manifest(
            purpose="train",
            plan_hash="ab" * 32,
            sites=self.room or max(self.count, self.terms.min_cohort),
            fields=(Field(name="x", shape=(self.words,), bound=1.0),),
            terms=self.terms,
        )
        self.attempt = Attempt(run_id=RUN, round=1, attempt=self.attempt_number, manifest_hash=self.manifest.hash)
        self.sum = Sum(manifest=self.manifest, attempt=self.attempt, model_hash=NO_MODEL)
        self.states: dict[bytes, SiteState] = {}
        self.vectors: dict[bytes, NDArray[np.int64]] = {
            one: np.array([(number + 1) * 10 ** (k % 5) for k in range(self.words)], np.int64)
            for number, one in enumerate(self.ids)
        }
        self.confirmations: dict[bytes, bytes] = {}

    def arguments(self) -> dict[str, Callable[[int], bytes]]:
        """The source of randomness, where a test has its own."""
        return {} if self.random is None else {"random": self.random}

    def advertise(self, sites: Collection[bytes] | None = None) -> None:
        """All sites send keys; the roster is closed."""
        for one in self.ids if sites is None else sites:
            self.states[one], advert = site.advertise(self.manifest, self.attempt, self.keys[one], **self.arguments())
            self.sum.add_advert(one, advert.raw, self.identities)
        self.sum.close_adverts()

    def share(self, sites: Collection[bytes] | None = None) -> None:
        """These sites send shares; U2 is closed."""
        for one in self.sum.roster.sites if sites is None else sites:
            self.states[one], sealed = site.share(
                self.states[one], self.sum.roster, self.identities, NO_MODEL, **self.arguments()
            )
            self.sum.add_shares(one, sealed)
        self.sum.close_shares()

    def mask(self, sites: Collection[bytes] | None = None) -> None:
        """These sites send masked vectors; U3 is closed."""
        for one in self.sum.u2 if sites is None else sites:
            self.sum.add_vector(one, self.masked(one))
        self.sum.close_vectors()

    def masked(self, one: bytes) -> NDArray[np.uint32]:
        """One site's masked vector."""
        vector = fixedpoint.to_ring(self.vectors[one])
        self.states[one], masked = site.mask(self.states[one], self.sum.u2, self.sum.shares_for(one), vector)
        return masked

    def confirm(self, sites: Collection[bytes] | None = None) -> None:
        """These sites sign U3."""
        for one in self.sum.u3 if sites is None else sites:
            self.states[one], signature = site.confirm(self.states[one], self.sum.u3, self.keys[one])
            self.sum.add_confirmation(one, signature, self.identities)
        self.confirmations = self.sum.close_confirmations()

    def unmask(self, sites: Collection[bytes] | None = None) -> NDArray[np.int64]:
        """These sites open shares; the sum."""
        for one in self.sum.u3 if sites is None else sites:
            self.sum.add_opened(one, self.opened(one))
        return fixedpoint.from_ring(self.sum.open())

    def opened(self, one: bytes) -> dict[bytes, bytes]:
        """The shares one site opens."""
        self.states[one], answers = site.unmask(self.states[one], self.sum.u3, self.identities, self.confirmations)
        return answers

    def expected(self) -> NDArray[np.int64]:
        """The sum over U3, in the clear."""
        return np.sum([self.vectors[one] for one in self.sum.u3], axis=0)
