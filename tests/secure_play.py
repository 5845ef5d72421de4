"""Runs under secure aggregation over sites in memory, and what came of them; a site misbehaves in one stage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedsite.protocol.messages import Frame, Header
from fedsite.protocol.plan import ProtectionPlan
from fedsite.server.runs import checkpoint
from tests.simulated_fleet import Play, Played, SimulatedFleet
from tests.simulated_site import SimulatedSite

NAMES = [f"site-{number}" for number in range(1, 11)]
GRID = 1e-5  # what the fixed point may be off by


def played(
    folder: Path, count: int, spoil: Callable[[SimulatedFleet], None] = lambda fleet: None, **fields: Any
) -> Played:
    """A run of one round over so many sites with targets 1 to `count`."""
    return play(folder, SimulatedFleet(NAMES[:count]), spoil, **fields).run()


def play(
    folder: Path, fleet: SimulatedFleet, spoil: Callable[[SimulatedFleet], None] = lambda fleet: None, **fields: Any
) -> Play:
    """The same, not run yet."""
    spoil(fleet)
    rounds = fields.pop("rounds", {})
    protection = {"mode": "secagg", "examples_max": 64, "bound": 16.0, "sites": 16} | fields.pop("protection", {})
    found = Play(fleet=fleet, folder=folder, protection=ProtectionPlan(**protection), **fields)
    return found.with_rounds(**{"count": 1, **rounds})


def model(found: Played) -> float:
    """The first weight of the last model."""
    kept = checkpoint.latest(found.run.checkpoints)
    assert kept is not None
    return float(kept[1].params["w"][0, 0])


def sums(found: Played, purpose: str = "train") -> list[dict[str, Any]]:
    """Events of the sums of one purpose."""
    return [event for event in found.events if event["kind"] == "sum" and event["purpose"] == purpose]


def site(found: Played, name: str) -> dict[str, Any]:
    """One site's part in the result."""
    return next(item for item in found.result["sites"] if item["name"] == name)


def at(stage: str, act: Callable[[SimulatedSite, Header, Frame], list[Frame]]) -> Callable[[SimulatedSite], None]:
    """Misbehave in one stage of the sums of training, and be honest otherwise."""

    def install(one: SimulatedSite) -> None:
        honest = one.receive

        def receive(frame: Frame) -> list[Frame]:
            header = json.loads(frame.header)
            place = (header["kind"], header["purpose"])
            wanted = ("train", "") if stage == "mask" else (stage, "train")
            return act(one, Header(**header), frame) if place == wanted else honest(frame)

        one.receive = receive  # type: ignore[method-assign]

    return install


def silent(stage: str) -> Callable[[SimulatedSite], None]:
    """Say nothing in one stage of the sums of training."""
    return at(stage, lambda one, header, frame: [])
