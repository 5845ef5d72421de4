"""Real handlers over toy workers that do SCAFFOLD's local steps on quadratic losses, and the same rounds in NumPy."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from fedsite.client.handler import Handler
from fedsite.client.identity.site import Site
from fedsite.client.ledger.budget import Budget
from fedsite.client.settings import DataSettings, PolicySettings, Settings
from fedsite.client.store import Outbox
from fedsite.client.work import pipe, protect
from fedsite.client.work.control import VARIATE, Control
from fedsite.privacy.sampling import SystemRandom
from fedsite.protocol import instants, weights
from fedsite.protocol.messages import DELTA, Frame, read_header
from fedsite.protocol.plan import LocalPlan, RoundPlan
from fedsite.protocol.secagg.manifest import Manifest
from tests.simulated_site import SimulatedSite

LIMIT = 1 << 20


class QuadraticWorker:
    """A site whose loss is a/2 |w − target|² in each weight; `moved` has its control variate after each round."""

    def __init__(self, site: SimulatedSite, curvature: float) -> None:
        self.site = site
        self.curvature = curvature
        self.moved: dict[int, float] = {}
        self.given: dict[int, float | None] = {}  # the variate that a round went on from
        self.trained = 0  # how often it was asked to compute a round

    def call(
        self, operation: str, arguments: Mapping[str, Any], blobs: Mapping[str, bytes], *, timeout_s: float
    ) -> pipe.Message:
        if operation == "prepare":
            return pipe.Message(header={})
        body = {"evaluate": arguments["evaluate"]}
        values = self.site.values(SimpleNamespace(kind=operation, body=body), SimpleNamespace(blobs=blobs))  # type: ignore[arg-type]
        kept: dict[str, bytes] = {}
        if operation == "train":
            values, kept = self._train(RoundPlan.parse(blobs["plan"]), int(arguments["round"]), blobs, values)
        if "manifest" in blobs:
            vector = protect.vector(values, Manifest.parse(blobs["manifest"]), SystemRandom())
            return pipe.Message(header={}, blobs={"vector": vector, **kept})
        return pipe.Message(header={}, blobs={"values": weights.encode(values), **kept})

    def _train(
        self, plan: RoundPlan, number: int, blobs: Mapping[str, bytes], values: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        model = weights.decode(blobs["model"], limit=LIMIT)
        control = Control.read(blobs, {name: value.shape for name, value in model.items()})
        found = {**values, "weight": np.ones(1)}
        for name, start in model.items():
            w = start.astype(np.float64)
            for _ in range(plan.local.steps):
                w -= plan.local.rate(number) * (self.curvature * (w - self.site.target) + control.correction[name])
            found[DELTA + name] = (w - start).astype(np.float32)
        after = control.after(plan, found, number)
        self.trained += 1
        self.given[number] = float(control.own["b"][0]) if VARIATE in blobs else None
        self.moved[number] = float(weights.decode(after, limit=LIMIT)["b"][0])
        return found, {VARIATE: after}


def install(site: SimulatedSite, folder: Path, curvature: float) -> QuadraticWorker:
    """Put a real handler in the place of the simulated one; it begins anew with every instruction."""
    worker = QuadraticWorker(site, curvature)
    identity = Site(directory=folder / site.name, name=site.name, federation=site.federation, key=site.key)
    rules = PolicySettings(require_privacy=False, minimum_protection="sealed")

    def receive(frame: Frame) -> list[Frame]:
        site.seen.append(read_header(frame.header))
        handler = Handler(
            site=identity,
            settings=Settings(policy=rules, data=DataSettings(seed=1)),
            worker=worker,
            budget=partial(Budget, identity.directory / "budget.db"),
            outbox=Outbox(identity.directory / "outbox"),
            install=lambda version, manifest_hash: None,
            clock=instants.now,
        )
        return [handler.handle(frame)]

    site.receive = receive  # type: ignore[method-assign]
    return worker


def expected(
    local: LocalPlan, curvatures: Sequence[float], targets: Sequence[float], present: Sequence[Collection[int]]
) -> tuple[float, float, list[float]]:
    """One weight, c and every c_i after rounds with these sites present: algorithm 1 as it is printed."""
    w, c, own = 0.0, 0.0, [0.0] * len(curvatures)
    for number, sites in enumerate(present, start=1):
        rate, deltas, moves = local.rate(number), [], []
        for site in sites:
            y = w
            for _ in range(local.steps):
                y -= rate * (curvatures[site] * (y - targets[site]) + c - own[site])
            moved = own[site] - c + (w - y) / (local.steps * rate)
            deltas.append(y - w)
            moves.append((site, moved - own[site]))
        w += float(np.mean(deltas))
        c += len(sites) / len(own) * float(np.mean([move for _, move in moves]))
        for site, move in moves:
            own[site] += move
    return w, c, own
