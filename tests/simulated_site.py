"""A site in memory: it answers instructions with toy numbers. Every adversary is a one-line edit of a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsite.protocol import certified, sealing, signing, weights
from fedsite.protocol.errors import FedsiteError, RefusalCode
from fedsite.protocol.federation import Federation
from fedsite.protocol.instants import now
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.messages import Frame, Header, ReplyHeader
from fedsite.protocol.secagg import fixedpoint
from fedsite.protocol.secagg.manifest import Manifest
from fedsite.server.link.transport import SiteLink
from tests.authority import AUTHORITY
from tests.simulated_secure import STAGES, SecureSite

Values = dict[str, NDArray[Any]]

CERTIFIED_UNTIL = datetime(2100, 1, 1, tzinfo=UTC)
FEATURES = 2
CHANNEL = {"minimum": -10.0, "maximum": 10.0}
TASK: dict[str, Any] = {
    "schema": "fedsite.task/1",
    "name": "toy",
    "data": {"source": "synthetic", "generator": "pump"},
    "channels": [{"name": "a", **CHANNEL}, {"name": "b", **CHANNEL}],
    "window": {"length": 1},
    "label": {"kind": "column", "column": "a"},
    "split": {"kind": "time"},
    "model": {"name": "mlp"},
    "loss": "mse",
    "metric": {"name": "rmse", "better": "lower", "unit": "1", "maximum": 10.0},
}


class SimulatedSite:
    """Pulls each weight to `target`: its update is `target - model`, so that one round gives the mean target."""

    def __init__(self, name: str, federation: Federation, *, target: float = 1.0, windows: int = 10) -> None:
        self.name = name
        self.federation = federation
        self.key = SigningKey.generate()
        self.target = target
        self.windows = windows
        self.delay_s = 0.01
        self.online = True
        self.private = False  # sends neither statistics nor its number of windows
        self.secure = SecureSite(self.key)
        self.certified = certified.issue(self.key.public, CERTIFIED_UNTIL, federation.id, AUTHORITY.key)
        self.seen: list[Header] = []  # instructions it took
        self.sent: list[Header] = []  # instructions that were sent to it

    @property
    def link(self) -> SiteLink:
        """How the server knows it."""
        return SiteLink(
            site_id=self.key.public.id,
            name=self.name,
            node_id=self.name,
            public_key=self.key.public,
            certified=self.certified,
        )

    def receive(self, frame: Frame) -> list[Frame]:
        """The replies to one instruction: one, in an honest site."""
        header = signing.open_instruction(frame, self.federation, self.key.public.id, now())
        self.seen.append(header)
        return [self.answer(header, frame)]

    def answer(self, header: Header, frame: Frame) -> Frame:
        """An ok reply with values, sealed as the instruction asks."""
        if "secagg" in frame.blobs or header.kind in STAGES:
            return self.stage(header, frame)
        values = self.values(header, frame)
        body: dict[str, Any] = {}
        if header.kind == "install":
            body = {"version": header.body["version"], "verified": True}
        try:
            return self.reply(header, frame, values, body)
        except FedsiteError as error:  # keys for a sum to come that it will not make
            return self.reply(header, frame, {}, {}, error.refusal)

    def stage(self, header: Header, frame: Frame) -> Frame:
        """The answer to a stage of a secure sum; what the pure machine refuses is a refusal here too."""
        try:
            raw = self.secure.answer(header, frame, self.federation, self.vector)
            return self.reply(header, frame, {}, {}, raw=raw)
        except FedsiteError as error:
            return self.reply(header, frame, {}, {}, error.refusal)

    def vector(self, manifest: Manifest, header: Header, frame: Frame) -> NDArray[np.uint32]:
        """The values as a fixed-point vector."""
        values = {**self.values(header, frame), "weight": np.ones(1)}
        missing = {item.name: np.zeros(item.shape) for item in manifest.fields if item.name not in values}
        weight = fixedpoint.weight_of(self.windows, manifest.examples_max) if manifest.examples_max else 1.0
        encoded = fixedpoint.encode(
            manifest.fields, {**values, **missing}, manifest.scales, sites=manifest.sites, weight=weight
        )
        return fixedpoint.to_ring(encoded)

    def values(self, header: Header, frame: Frame) -> Values:
        """What leaves the site."""
        model = weights.decode(frame.blobs["model"], limit=1 << 30) if "model" in frame.blobs else {}
        if header.kind == "statistics":
            half = np.full(FEATURES, 0.5) * self.windows
            return {
                "statistics/count": np.array([float(self.windows)]),
                "statistics/sum": half,
                "statistics/square": half,
            }
        if header.kind == "train":
            found: Values = {"delta/" + name: (self.target - value).astype(np.float32) for name, value in model.items()}
            if self.private:
                return found | {"weight": np.ones(1)}
            found |= {"weight": np.array([float(self.windows)]), "loss": np.array([0.5])}
            return found | (self.evaluation(model) if header.body["evaluate"] else {})
        if header.kind == "evaluate":
            return self.evaluation(model)
        if header.kind == "calibrate":
            return self.calibration(header, frame)
        return {}

    def calibration(self, header: Header, frame: Frame) -> Values:
        """Counts over windows drawn around zero: what any site with normalised data would send."""
        from fedsite.models import calibration

        x = np.random.default_rng(0).normal(size=(self.windows, 1, FEATURES)).astype(np.float32)
        found = calibration.counts(frame.blobs["graph"], header.body["tensors"], x)
        return {f"calibration/{name}": value for name, value in found.items()}

    def evaluation(self, model: Values) -> Values:
        """The first weight's distance from the target, a tenth of it as 10 is the metric's maximum."""
        error = float(next(iter(model.values())).reshape(-1)[0] - self.target) / 10.0
        return {
            "evaluation/error": np.array([error**2 * self.windows]),
            "evaluation/count": np.array([float(self.windows)]),
        }

    def reply(
        self,
        header: Header,
        frame: Frame,
        values: Values,
        body: dict[str, Any],
        code: RefusalCode | None = None,
        key: SigningKey | None = None,
        raw: Mapping[str, bytes] | None = None,
        **changes: Any,
    ) -> Frame:
        """Signed; `changes` are fields of the reply's header."""
        blobs: dict[str, bytes] = dict(raw or {})
        if code is None:
            blobs |= self.secure.riding(header, frame)
        if values:
            data = weights.encode(values)
            sealed = bool(header.run_key)
            if sealed:
                data = sealing.seal(data, header.run_key, sealing.context(header), self.key.public.id)
            blobs["sealed" if sealed else "values"] = data
        fields: dict[str, Any] = {
            "kind": header.kind,
            "federation": header.federation,
            "site_id": header.site_id,
            "run_id": header.run_id,
            "round": header.round,
            "attempt": header.attempt,
            "instruction": signing.instruction_hash(frame),
            "outcome": "ok" if code is None else "refused",
            "code": code,
            "body": body,
        }
        return signing.sign_reply(ReplyHeader(**{**fields, **changes}), blobs, key or self.key)


def during(kind: str, act: Callable[[SimulatedSite, Header, Frame], list[Frame]]) -> Callable[[SimulatedSite], None]:
    """Make a site misbehave in instructions of one kind, and be honest otherwise."""

    def install(site: SimulatedSite) -> None:
        honest = site.receive

        def receive(frame: Frame) -> list[Frame]:
            header = signing.read_header(frame.header)
            return act(site, header, frame) if header.kind == kind else honest(frame)

        site.receive = receive  # type: ignore[method-assign]

    return install


def changed(site: SimulatedSite, header: Header, frame: Frame, **arrays: NDArray[Any]) -> list[Frame]:
    """An honest reply but for some arrays (`delta_w` is `delta/w`)."""
    values = site.values(header, frame) | {name.replace("_", "/", 1): value for name, value in arrays.items()}
    return [site.reply(header, frame, values, {})]


silent = during("train", lambda site, header, frame: [])
refusing = during("train", lambda site, header, frame: [site.reply(header, frame, {}, {}, RefusalCode.BUDGET)])
duplicate = during("train", lambda site, header, frame: [site.answer(header, frame)] * 2)
not_a_number = during("train", lambda s, h, f: changed(s, h, f, delta_w=np.full((2, 2), np.nan, np.float32)))
wrong_shape = during("train", lambda s, h, f: changed(s, h, f, delta_w=np.zeros((2, 3), np.float32)))
oversized = during("train", lambda s, h, f: changed(s, h, f, delta_w=np.zeros((1000, 1000), np.float32)))
extra_array = during("train", lambda s, h, f: changed(s, h, f, delta_other=np.zeros(2, np.float32)))
heavy = during("train", lambda s, h, f: changed(s, h, f, weight=np.array([1e30])))
forged = during(
    "train",
    lambda s, h, f: [s.reply(h, f, s.values(h, f), {}, key=SigningKey.generate())],
)
wrong_round = during("train", lambda s, h, f: [s.reply(h, f, s.values(h, f), {}, round=h.round + 1)])
wrong_attempt = during("train", lambda s, h, f: [s.reply(h, f, s.values(h, f), {}, attempt=h.attempt + 1)])
in_the_clear = during(
    "train", lambda s, h, f: [s.reply(Header(**{**_fields(h), "run_key": ""}), f, s.values(h, f), {})]
)
garbage = during("train", lambda s, h, f: [Frame(header=b"{", signature=b"x" * 64, blobs={})])


def _fields(header: Header) -> dict[str, Any]:
    return {name: getattr(header, name) for name in Header.__dataclass_fields__}
