"""Real sites, each with its handler and its own disk, and the server's machine: a secure sum in a test's hands."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsite.protocol import certified, weights
from fedsite.protocol.errors import RefusalCode
from fedsite.protocol.keys import TlsKey
from fedsite.protocol.messages import Frame
from fedsite.protocol.plan import RoundPlan
from fedsite.protocol.secagg import fixedpoint, wire
from fedsite.protocol.secagg.context import Attempt
from fedsite.protocol.secagg.fixedpoint import Field
from fedsite.protocol.secagg.manifest import Manifest
from fedsite.protocol.secagg.server import Sum
from tests.authority import AUTHORITY

MODEL = weights.encode({"weight": np.full(3, 0.5, np.float32)})
GRAPH = b"a graph"
STAGES = ("advertise", "share", "mask", "unmask")  # of a complete graph
NORMAL = {"normalisation": {"mean": [0.0], "scale": [1.0]}}


def files(kit: Any) -> dict[str, bytes]:
    """Everything that a site keeps but its budget."""
    folder = kit.site.directory / "outbox"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Party:
    """Sites (client.conftest.Kit), in order of their ids, and the sum that they make at the moment."""

    def __init__(self, centre: Any, kits: Sequence[Any], plan: RoundPlan) -> None:
        self.centre = centre
        self.kits = sorted(kits, key=lambda kit: kit.site.id)
        self.plan = plan
        self.by_id = {bytes.fromhex(kit.site.id): kit for kit in self.kits}
        self.lifetime = timedelta(days=365)
        self.begin("statistics")

    @property
    def ids(self) -> list[bytes]:
        return list(self.by_id)

    def begin(self, purpose: str, number: int | None = None, attempt: int = 1) -> None:
        """The next sum, of which nothing was asked yet."""
        self.purpose, self.attempt = purpose, attempt
        self.round = (0 if purpose == "statistics" else 1) if number is None else number
        self.sum = self.new_sum(self.manifest(purpose))
        self.confirmations: Mapping[bytes, bytes] = {}

    def manifest(self, purpose: str, **changes: Any) -> Manifest:
        """As the server makes it of the plan."""
        protection, weighted = self.plan.protection, self.plan.privacy.mode == "none"
        fields = {
            "statistics": [Field(name="statistics/count", shape=(1,), bound=1 << 16, wide=True)],
            "calibrate": [Field(name="calibration/positive", shape=(1, 2), bound=1 << 16)],
            "evaluate": [Field(name="evaluation/count", shape=(1,), bound=1 << 16, wide=True)],
            "train": [
                Field(name="delta/weight", shape=(3,), bound=protection.bound, weighted=weighted),
                Field(name="evaluation/count", shape=(1,), bound=1 << 16, wide=True),
            ],
        }[purpose]
        if weighted and purpose == "train":
            fields.append(Field(name="loss", shape=(1,), bound=1e4, weighted=True, wide=True))
            fields.append(Field(name="weight", shape=(1,), bound=1.0, weighted=True))
        values: dict[str, Any] = {
            "purpose": purpose,
            "plan_hash": self.plan.hash,
            "sites": protection.sites,
            "fields": tuple(fields),
            "examples_max": protection.examples_max if weighted and purpose == "train" else 0,
            "terms": protection.terms,
        }
        return Manifest(**(values | changes))

    def new_sum(self, manifest: Manifest) -> Sum:
        attempt = Attempt(run_id=self.plan.run_id, round=self.round, attempt=self.attempt, manifest_hash=manifest.hash)
        return Sum(manifest=manifest, attempt=attempt, model_hash=bytes.fromhex(self.model_hash or "00" * 32))

    @property
    def model_hash(self) -> str:
        """As a stage's header names it."""
        if self.purpose == "statistics":
            return ""
        return hashlib.sha256(GRAPH if self.purpose == "calibrate" else MODEL).hexdigest()

    @property
    def identities(self) -> Mapping[bytes, Any]:
        return {site: kit.site.key.public for site, kit in self.by_id.items()}

    def certificates(self, authority: TlsKey = AUTHORITY.key) -> bytes:
        """Of the roster, in its order."""
        keys = [self.by_id[site].site.key.public for site in self.sum.roster.sites]
        expires = self.kits[0].now + self.lifetime
        return b"".join(certified.issue(key, expires, self.plan.federation, authority) for key in keys)

    def stage(self, kit: Any, kind: str, blobs: Mapping[str, bytes] = {}, **changes: Any) -> Frame:
        """The instruction of a stage."""
        given = {"round": self.round, "attempt": self.attempt, "purpose": self.purpose} | changes
        return self.centre.ask(kit.site, kind, self.plan, blobs, **given)

    def advertise_frame(self, kit: Any, **changes: Any) -> Frame:
        body = {"next": {"round": self.round, "attempt": self.attempt}}
        return self.stage(kit, "advertise", {"next": self.sum.manifest.encode()}, **({"body": body} | changes))

    def share_frame(self, kit: Any, **changes: Any) -> Frame:
        blobs = {"roster": self.sum.roster.raw, "identities": self.certificates()}
        return self.stage(kit, "share", blobs, **({"model_hash": self.model_hash} | changes))

    def mask_frame(self, kit: Any, u2: Collection[bytes] | None = None, **changes: Any) -> Frame:
        u2 = self.sum.u2 if u2 is None else u2
        site = bytes.fromhex(kit.site.id)
        held = {} if self.sum.stage in ("advertise", "share") else self.sum.shares_for(site)
        sealed = {source: item for source, item in held.items() if source in u2}
        blobs = {"secagg": wire.pack_set(u2, self.sum.roster.sites) + wire.pack_items(sealed)}
        given: dict[str, Any] = {"purpose": ""}
        if self.purpose in ("train", "evaluate"):
            blobs["model"] = MODEL
            given |= {"model_hash": self.model_hash, "body": dict(NORMAL)}
        if self.purpose == "calibrate":
            blobs["graph"] = GRAPH
            given |= {"body": {**NORMAL, "tensors": ["x"]}}
        return self.stage(kit, self.purpose, blobs, **(given | changes))

    def confirm_frame(self, kit: Any, u3: Collection[bytes] | None = None, **changes: Any) -> Frame:
        packed = wire.pack_set(self.sum.u3 if u3 is None else u3, self.sum.roster.sites)
        return self.stage(kit, "confirm", {"secagg": packed}, **changes)

    def unmask_frame(
        self,
        kit: Any,
        u3: Collection[bytes] | None = None,
        following: tuple[Manifest, int, int] | None = None,
        **changes: Any,
    ) -> Frame:
        roster = self.sum.roster.sites
        packed = wire.pack_set(self.sum.u3 if u3 is None else u3, roster)
        if self.confirmations:
            packed += wire.pack_set(self.confirmations, roster) + wire.pack_items(self.confirmations)
        blobs = {"secagg": packed}
        if following is not None:
            blobs["next"] = following[0].encode()
            changes = {"body": {"next": {"round": following[1], "attempt": following[2]}}} | changes
        return self.stage(kit, "unmask", blobs, **changes)

    def answer(self, kit: Any, asked: Frame) -> Mapping[str, bytes]:
        """The blobs of a site's reply, which must be ok."""
        reply = kit.handler().handle(asked)
        header = self.centre.open(kit.site, reply, asked)
        assert header.outcome == "ok", header.code
        return reply.blobs

    def refusal(self, kit: Any, asked: Frame) -> RefusalCode | None:
        """What a site says to an instruction that it must refuse, which changes nothing that it keeps."""
        before = files(kit), len(kit.worker.calls), kit.spent()
        reply = kit.handler().handle(asked)
        header = self.centre.open(kit.site, reply, asked)
        assert (header.outcome, dict(reply.blobs), header.body) == ("refused", {}, {})
        assert (files(kit), len(kit.worker.calls), kit.spent()) == before
        code: RefusalCode | None = header.code
        return code

    def train(self, number: int = 1, attempt: int = 1) -> None:
        """A round up to the masked vectors."""
        self.begin("train", number, attempt)
        self.advertise()
        self.share()
        self.mask()

    def reach(self, stage: str) -> None:
        """A first round in which everything before the stage has happened, at all sites."""
        self.prepare()
        self.begin("train")
        for name in STAGES[: STAGES.index(stage)]:
            getattr(self, name)()

    def prepare(self) -> None:
        for kit in self.kits:
            assert not self.answer(kit, self.centre.prepare(kit.site, self.plan))

    def advertise(self, sites: Collection[bytes] | None = None) -> None:
        for site in self.ids if sites is None else sites:
            advert = self.answer(self.by_id[site], self.advertise_frame(self.by_id[site]))["advert"]
            self.sum.add_advert(site, advert, self.identities)
        self.sum.close_adverts()

    def share(self, sites: Collection[bytes] | None = None) -> None:
        for site in self.sum.roster.sites if sites is None else sites:
            self.take_shares(site, self.answer(self.by_id[site], self.share_frame(self.by_id[site]))["shares"])
        self.sum.close_shares()

    def take_shares(self, site: bytes, data: bytes) -> None:
        near = [other for other in self.sum.roster.sites if other != site]
        self.sum.add_shares(site, wire.unpack_items(data, near, 81, "shares"))

    def mask(self, sites: Collection[bytes] | None = None) -> None:
        for site in self.sum.u2 if sites is None else sites:
            data = self.answer(self.by_id[site], self.mask_frame(self.by_id[site]))["masked"]
            self.sum.add_vector(site, np.frombuffer(data, "<u4").astype(np.uint32))
        self.sum.close_vectors()

    def confirm(self, sites: Collection[bytes] | None = None) -> None:
        for site in self.sum.u3 if sites is None else sites:
            signature = self.answer(self.by_id[site], self.confirm_frame(self.by_id[site]))["confirmation"]
            self.sum.add_confirmation(site, signature, self.identities)
        self.confirmations = self.sum.close_confirmations()

    def unmask(self, following: tuple[Manifest, int, int] | None = None) -> dict[bytes, bytes]:
        """Everybody opens; the adverts that rode on it."""
        adverts = {}
        for site in self.sum.u3:
            blobs = self.answer(self.by_id[site], self.unmask_frame(self.by_id[site], following=following))
            self.sum.add_opened(site, wire.unpack_opened(blobs["opened"], self.sum.u2))
            if following is not None:
                adverts[site] = blobs["advert"]
        return adverts

    def total(self) -> dict[str, NDArray[np.float64]]:
        """The sum, opened."""
        manifest, whole = self.sum.manifest, fixedpoint.from_ring(self.sum.open())
        return fixedpoint.decode(manifest.fields, whole, manifest.scales, sites=manifest.sites)

    def expected(self, sites: Collection[bytes] | None = None) -> NDArray[np.uint32]:
        """The sum of what the workers made, in the ring."""
        found = np.zeros(self.sum.manifest.words, np.uint32)
        for site in self.sum.u3 if sites is None else sites:
            found += np.frombuffer(self.by_id[site].worker.vectors[-1], "<u4").astype(np.uint32)
        return found
