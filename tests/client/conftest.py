"""A federation and a site in memory: real keys, signatures and sealing; a worker that only says what it was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsite.client.audit.log import SiteAudit
from fedsite.client.handler import Handler
from fedsite.client.identity.site import Site
from fedsite.client.ledger.budget import Budget
from fedsite.client.settings import PolicySettings, Settings
from fedsite.client.store import Outbox
from fedsite.client.work import pipe, protect
from fedsite.privacy.accounting import Spend
from fedsite.privacy.sampling import SystemRandom
from fedsite.protocol import documents, instants, sealing, shape, signing, weights
from fedsite.protocol.federation import Federation
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.messages import Frame, Header, ReplyHeader
from fedsite.protocol.plan import LocalPlan, ModelPlan, PrivacyPlan, ProtectionPlan, RoundPlan, RoundsPlan
from fedsite.protocol.secagg.manifest import Manifest
from fedsite.telemetry.task import load_task
from tests.authority import AUTHORITY
from tests.secure_sites import Party
from tests.site_place import member, place  # noqa: F401  fixtures of joining and renewal

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
RUN = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


def federation_of(key: SigningKey) -> Federation:
    return Federation(
        id=key.public.id,
        name="test",
        address="localhost:9443",
        ca_certificate=AUTHORITY.certificate,
        signing_key=key.public.text,
    )


@dataclass
class Centre:
    """What the server signs and can open."""

    key: SigningKey = field(default_factory=SigningKey.generate)
    run_key: sealing.RunKey = field(default_factory=sealing.make_run_key)

    @property
    def federation(self) -> Federation:
        return federation_of(self.key)

    def plan(self, **changes: Any) -> RoundPlan:
        values: dict[str, Any] = {
            "federation": self.federation.id,
            "run_id": RUN,
            "created": instants.text(NOW),
            "task": load_task("pump").document,
            "model": ModelPlan(name="mlp", options={"hidden": [4]}),
            "local": LocalPlan(steps=3, sampling_rate=0.1),
            "privacy": PrivacyPlan(mode="sample", epsilon=4.0, noise_multiplier=2.0, statistics_noise=10.0),
            "protection": ProtectionPlan(mode="sealed"),
            "rounds": RoundsPlan(count=3),
        }
        return RoundPlan(**(values | changes))

    def header(self, site: Site, kind: str, plan: RoundPlan, **changes: Any) -> Header:
        values: dict[str, Any] = {
            "kind": kind,
            "federation": plan.federation,
            "site_id": site.id,
            "run_id": plan.run_id,
            "round": 0 if kind in ("prepare", "statistics") else 1,
            "attempt": 1,
            "plan_hash": plan.hash,
            "run_key": self.run_key.public,
            "expires": instants.text(NOW + timedelta(seconds=60)),
        }
        return Header(**(values | changes))

    def prepare(self, site: Site, plan: RoundPlan, **changes: Any) -> Frame:
        return self.sign(self.header(site, "prepare", plan, **changes), {"plan": plan.encode()})

    def train(self, site: Site, plan: RoundPlan, model: bytes | None = None, **changes: Any) -> Frame:
        import hashlib

        model = toy_model() if model is None else model
        body = {"normalisation": {"mean": [0.0], "scale": [1.0]}, "evaluate": False}
        given = {"model_hash": hashlib.sha256(model).hexdigest(), "body": body} | changes
        return self.sign(self.header(site, "train", plan, **given), {"model": model})

    def ask(self, site: Site, kind: str, plan: RoundPlan, blobs: Mapping[str, bytes] = {}, **changes: Any) -> Frame:
        return self.sign(self.header(site, kind, plan, **changes), blobs)

    def sign(self, header: Header, blobs: Mapping[str, bytes]) -> Frame:
        return signing.sign_instruction(header, blobs, self.key)

    def open(self, site: Site, frame: Frame, asked: Frame) -> ReplyHeader:
        return signing.open_reply(frame, site.key.public, instruction=asked.header)

    def values(self, site: Site, frame: Frame, asked: Frame) -> dict[str, np.ndarray]:
        from fedsite.protocol.messages import read_header

        sealed = self.run_key.open(frame.blobs["sealed"], sealing.context(read_header(asked.header)), site.id)
        return weights.decode(sealed, limit=1 << 20)


def toy_model(value: float = 0.5) -> bytes:
    return weights.encode({"weight": np.full(3, value, np.float32)})


class FakeWorker:
    """Answers with arrays of its own; counts its releases, so that a fresh one differs from a repeated one."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.failure: Exception | None = None
        self.epsilon = 1.0
        self.claim = 1.0
        self.round = 0.1
        self.task = 1.0
        self.covers: dict[str, Any] = {}  # telemetry.coverage.plain
        self.extra: list[list[float]] = []  # what the run costs beside statistics and training
        self.delta = 1.0
        self.windows = 7.0
        self.vectors: list[bytes] = []  # made for sums

    @property
    def touched_data(self) -> bool:
        return any(operation != "cost" for operation, _ in self.calls)

    def call(
        self, operation: str, arguments: Mapping[str, Any], blobs: Mapping[str, bytes], *, timeout_s: float
    ) -> pipe.Message:
        self.calls.append((operation, dict(arguments)))
        if operation == "cost":
            plan = RoundPlan.parse(blobs["plan"])
            spends = [[plan.privacy.noise_multiplier, plan.local.sampling_rate, plan.local.steps * plan.rounds.count]]
            if plan.privacy.statistics_noise:
                spends.append([plan.privacy.statistics_noise, 1.0, 1])
            spends += self.extra
            header = {"spends": spends, "run": 1.0, "epsilon": self.epsilon, "claim": self.claim}
            return pipe.Message(header={**header, "round": self.round, "task": self.task})
        if operation == "coverage":
            return pipe.Message(header={}, blobs=self.told)
        if self.failure is not None:
            raise self.failure
        if operation == "prepare":
            return pipe.Message(header={}, blobs=self.told)
        values = {"statistics/count": np.array([7.0])}
        if operation != "statistics":
            values = {"delta/weight": np.full(3, self.delta), "loss": np.array([0.5])}
            values["weight"] = np.array([self.windows])
        values["release"] = np.array([float(len(self.calls))])
        if "manifest" not in blobs:
            return pipe.Message(header={}, blobs={"values": weights.encode(values), **self.told})
        manifest = Manifest.parse(blobs["manifest"])
        if any(field.name.startswith("calibration/") for field in manifest.fields):
            values = {"calibration/positive": np.ones((1, 2))}
        self.vectors.append(protect.vector(values, manifest, SystemRandom()))
        return pipe.Message(header={}, blobs={"vector": self.vectors[-1], **self.told})

    @property
    def told(self) -> dict[str, bytes]:
        """Whose records it read, where it says so."""
        return {"coverage": documents.canonical(self.covers)} if self.covers else {}


@dataclass
class Kit:
    """One enrolled site with its handler."""

    centre: Centre
    site: Site
    worker: FakeWorker
    settings: Settings
    installed: list[tuple[str, str]] = field(default_factory=list)
    now: datetime = NOW

    @property
    def outbox(self) -> Outbox:
        return Outbox(self.site.directory / "outbox")

    @property
    def budget_path(self) -> Path:
        return self.site.directory / "budget.db"

    def handler_settings(self, **policy: Any) -> Settings:
        return replace(self.settings, policy=replace(self.settings.policy, **policy))

    def handler(self, **policy: Any) -> Handler:
        return self.built(settings=self.handler_settings(**policy))

    def logged(self, **parts: Any) -> Handler:
        """A handler with an audit log."""
        log = SiteAudit(self.site, self.budget_path)
        return self.built(**{"audit": log, "heads": log, **parts})

    def built(self, **parts: Any) -> Handler:
        """A handler of the kit's parts and these."""
        given: dict[str, Any] = {
            "site": self.site,
            "settings": self.settings,
            "worker": self.worker,
            "budget": partial(Budget, self.budget_path),
            "outbox": self.outbox,
            "install": lambda version, manifest_hash: self.installed.append((version, manifest_hash)),
            "clock": lambda: self.now,
        }
        return Handler(**(given | parts))

    def answer(self, frame: Frame, handler: Handler | None = None) -> ReplyHeader:
        return self.centre.open(self.site, (handler or self.handler()).handle(frame), frame)

    def spent(self) -> list[Spend]:
        budget = Budget(self.budget_path)
        try:
            return [spend for entry in budget.entries() for spend in entry.spent]
        finally:
            budget.close()


@pytest.fixture
def centre() -> Centre:
    return Centre()


@pytest.fixture
def kit(centre: Centre, tmp_path: Path) -> Kit:
    site = Site(directory=tmp_path, name="alpha", federation=centre.federation, key=SigningKey.generate())
    return Kit(centre=centre, site=site, worker=FakeWorker(), settings=Settings(policy=PolicySettings()))


@pytest.fixture
def party(centre: Centre, tmp_path: Path) -> Party:
    """Three sites of one federation and a run that is private; nothing was asked yet."""
    return party_of(centre, tmp_path)


def party_of(centre: Centre, directory: Path, count: int = 3, **changes: Any) -> Party:
    kits = []
    for number in range(count):
        site = Site(
            directory=directory / str(number), name=str(number), federation=centre.federation, key=SigningKey.generate()
        )
        site.directory.mkdir()
        kits.append(Kit(centre=centre, site=site, worker=FakeWorker(), settings=Settings(policy=PolicySettings())))
        kits[-1].worker.delta = 0.25 * (number + 1)
        kits[-1].worker.windows = 10.0 * (number + 1)
    return Party(centre, kits, centre.plan(**({"protection": ProtectionPlan(sites=count)} | changes)))


@pytest.fixture
def make_party(centre: Centre, tmp_path: Path) -> Callable[..., Party]:
    """`party` with another number of sites, or another plan."""
    return partial(party_of, centre, tmp_path)


@pytest.fixture
def joined(kit: Kit) -> Site:
    """The kit's site as `fedsite join` leaves it on disk."""
    directory = kit.site.directory
    (directory / "federation.json").write_bytes(kit.site.federation.encode())
    kit.site.key.save(directory / "identity.key")
    (directory / "site.json").write_bytes(
        documents.canonical({"site_id": kit.site.id, "name": "alpha", "expires": "2036-01-01T00:00:00Z"})
    )
    return kit.site


@pytest.fixture
def not_private() -> dict[str, Any]:
    return {"privacy": PrivacyPlan(), "protection": ProtectionPlan(mode="none")}


@pytest.fixture
def retold() -> Callable[[RoundPlan, dict[str, Any]], RoundPlan]:
    """A plan with other values, by the keys of its document."""

    def change(plan: RoundPlan, values: dict[str, Any]) -> RoundPlan:
        return shape.read(RoundPlan, shape.plain(plan) | values)

    return change
