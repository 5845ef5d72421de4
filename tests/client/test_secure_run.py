"""Whole runs of the real coordinator over real handlers, in memory: statistics, rounds, evaluation, once each."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedsite.client.handler import Handler
from fedsite.client.identity.site import Site
from fedsite.client.ledger.budget import Budget
from fedsite.client.settings import DataSettings, PolicySettings, Settings
from fedsite.client.store import Outbox
from fedsite.client.work import pipe, protect
from fedsite.privacy.sampling import SystemRandom
from fedsite.protocol import instants
from fedsite.protocol.errors import StorageError
from fedsite.protocol.messages import Frame, read_header
from fedsite.protocol.plan import ProtectionPlan
from fedsite.protocol.secagg.manifest import Manifest
from fedsite.server.runs import checkpoint
from tests.simulated_fleet import Play, SimulatedFleet
from tests.simulated_site import SimulatedSite


class ToyWorker:
    """The simulated site's numbers as a worker makes them."""

    def __init__(self, site: SimulatedSite) -> None:
        self.site = site
        self.asked: list[str] = []

    def call(
        self, operation: str, arguments: Mapping[str, Any], blobs: Mapping[str, bytes], *, timeout_s: float
    ) -> pipe.Message:
        self.asked.append(operation)
        if operation == "prepare":
            return pipe.Message(header={})
        asked = SimpleNamespace(kind=operation, body=arguments)
        values = self.site.values(asked, SimpleNamespace(blobs=blobs))  # type: ignore[arg-type]
        manifest = Manifest.parse(blobs["manifest"])
        return pipe.Message(header={}, blobs={"vector": protect.vector(values, manifest, SystemRandom())})


def installed(site: SimulatedSite, folder: Path) -> ToyWorker:
    """Put a real handler in the place of the simulated one; it begins anew with every instruction."""
    worker = ToyWorker(site)
    identity = Site(directory=folder / site.name, name=site.name, federation=site.federation, key=site.key)
    rules = PolicySettings(require_privacy=False, minimum_protection="secagg")

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


@pytest.fixture
def play(tmp_path: Path) -> Play:
    protection = ProtectionPlan(mode="secagg", sites=4)
    fleet = SimulatedFleet(("north", "south", "west", "east"))
    for number, site in enumerate(fleet.all):
        site.windows = 10 * (number + 1)
        installed(site, tmp_path)
    return Play(fleet=fleet, folder=tmp_path / "runs", protection=protection)


def sums(played: Any) -> list[dict[str, Any]]:
    return [event for event in played.events if event["kind"] == "sum"]


def test_a_run_ends_where_the_weighted_mean_is(play: Play) -> None:
    played = play.run()
    assert played.result["outcome"] == "completed", played.result
    assert [event["outcome"] for event in sums(played)] == ["opened"] * len(sums(played))
    kinds = [header.kind for header in play.fleet["north"].seen]
    # Keys ride along: a round is three trips.
    assert kinds[:4] == ["prepare", "share", "statistics", "unmask"]
    assert kinds[4:10] == ["share", "train", "unmask"] * 2
    assert kinds[-4:] == ["share", "evaluate", "unmask", "finish"]
    kept = checkpoint.latest(played.run.checkpoints)
    assert kept is not None
    mean = sum(site.target * site.windows for site in play.fleet.all) / sum(site.windows for site in play.fleet.all)
    assert kept[1].params["w"] == pytest.approx(np.full((2, 2), mean), abs=1e-3)
    assert not list(play.folder.parent.rglob("*.sum"))


@pytest.mark.parametrize("stage", ["train", "unmask"])
def test_a_site_that_dies_in_a_stage_and_starts_anew_answers_once(
    play: Play, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply is lost with the process, after the state was stored; the site is asked on in the next round."""
    keep, died = Outbox.keep_reply, []

    def dying(outbox: Outbox, header: Any, frame: Frame) -> None:
        if (
            header.kind == stage
            and header.round == 1
            and header.site_id == play.fleet["west"].key.public.id
            and not died
        ):
            died.append(header)
            raise StorageError("killed")
        keep(outbox, header, frame)

    monkeypatch.setattr(Outbox, "keep_reply", dying)
    played = play.run()
    assert died
    assert played.result["outcome"] == "completed", played.result
    assert [event["outcome"] for event in sums(played)] == ["opened"] * len(sums(played))
