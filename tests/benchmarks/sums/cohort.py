"""Cohorts for the benchmark of secure aggregation: whole sums with real keys, timed where somebody asks for it.

A signature that 900 sites check is checked by 900 processors in life and by one here. So a good one is remembered,
except at a site whose time is taken: `Cohort.remembering`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import numpy as np

from fedsite.protocol import certified
from fedsite.protocol.federation import Federation
from fedsite.protocol.keys import SigningKey, VerifyKey
from fedsite.protocol.secagg import graph, site
from fedsite.protocol.secagg.context import NO_MODEL, Attempt
from fedsite.protocol.secagg.fixedpoint import Field
from fedsite.protocol.secagg.manifest import Manifest, Terms
from fedsite.protocol.secagg.server import Sum
from fedsite.protocol.secagg.site import SiteState
from tests.authority import AUTHORITY

RUN = "01ARYZ6S410000000000000000"

EXAMPLES = 1000


class Clock:
    """Wall and processor seconds between two points."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count what happens inside."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu


@contextmanager
def complete_up_to(sites: int) -> Iterator[None]:
    """Let the graph be complete for so many sites: a figure is wanted for exactly so many neighbours."""
    before = graph.COMPLETE_MAX
    graph.COMPLETE_MAX = max(before, sites)  # type: ignore[misc]
    graph.size_for.cache_clear()
    try:
        yield
    finally:
        graph.COMPLETE_MAX = before  # type: ignore[misc]
        graph.size_for.cache_clear()


class Cohort:
    """Sites with a vector of `parameters` and a weight; the sum's machine, and the clock of the server."""

    def __init__(self, count: int, parameters: int, terms: Terms | None = None) -> None:
        self.keys = {bytes.fromhex(key.public.id): key for key in (SigningKey.generate() for _ in range(count))}
        self.identities = {one: key.public for one, key in self.keys.items()}
        fields = (
            Field(name="delta/x", shape=(parameters,), bound=1.0, weighted=True),
            Field(name="weight", shape=(1,), bound=1.0, weighted=True),
        )
        self.manifest = Manifest(
            purpose="train",
            plan_hash="ab" * 32,
            sites=count,
            fields=fields,
            examples_max=EXAMPLES,
            terms=Terms() if terms is None else terms,
        )
        self.attempt = Attempt(run_id=RUN, round=1, attempt=1, manifest_hash=self.manifest.hash)
        self.sum = Sum(manifest=self.manifest, attempt=self.attempt, model_hash=NO_MODEL)
        self.states: dict[bytes, SiteState] = {}
        centre = SigningKey.generate()
        self.federation = Federation(
            id=centre.public.id,
            name="b",
            address="b:1",
            ca_certificate=AUTHORITY.certificate,
            signing_key=centre.public.text,
        )
        until = datetime(2100, 1, 1, tzinfo=UTC)
        self.certified = [
            certified.issue(key, until, centre.public.id, AUTHORITY.key) for key in self.identities.values()
        ]
        self.server = Clock()
        self._good: set[tuple[bytes, bytes, bytes]] = set()
        for one, key in self.keys.items():
            self.states[one], advert = site.advertise(self.manifest, self.attempt, key)
            with self.server.running():
                self.sum.add_advert(one, advert.raw, self.identities)
        with self.server.running():
            self.roster = self.sum.close_adverts()

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Check each signature once."""
        real, known = VerifyKey.verify, self._good

        def verify(key: VerifyKey, signature: bytes, message: bytes, what: str = "message") -> None:
            if (key.raw, signature, message) not in known:
                real(key, signature, message, what)
                known.add((key.raw, signature, message))

        VerifyKey.verify = verify  # type: ignore[method-assign]
        try:
            yield
        finally:
            VerifyKey.verify = real  # type: ignore[method-assign]

    def share(self, one: bytes) -> dict[bytes, bytes]:
        """A site's share stage."""
        self.states[one], sealed = site.share(self.states[one], self.roster, self.identities, NO_MODEL)
        return sealed

    def share_all(self) -> None:
        """Everybody's, and U2."""
        with self.remembering():
            for one in self.roster.sites:
                sealed = self.share(one)
                self.sum.add_shares(one, sealed)
        self.sum.close_shares()


def update(parameters: int, number: int) -> np.ndarray:
    """A made-up update, float32 in ±0.5."""
    return np.sin(np.arange(parameters, dtype=np.float32) * 0.001 + number).astype(np.float32) / 2
