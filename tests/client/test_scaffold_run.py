"""Whole runs of SCAFFOLD and FedAdam over real handlers, in memory: lost answers, and drivers and sites that die."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsite.client.store import Outbox
from fedsite.protocol import weights
from fedsite.protocol.errors import StorageError
from fedsite.protocol.messages import CONTROL, Frame, Header, read_header
from fedsite.protocol.plan import LocalPlan, ProtectionPlan, StrategyPlan
from fedsite.server.runs import checkpoint
from fedsite.server.runs.folder import RunDirectory
from fedsite.server.sums.groups import Group, Parcel
from tests import scaffold_sites
from tests.simulated_fleet import INITIAL, Play, Played, SimulatedFleet

LOCAL = LocalPlan(steps=3, sampling_rate=1.0, learning_rate=0.1, learning_rate_decay=0.9)
CURVATURES, TARGETS = (1.0, 2.0, 3.0), (1.0, 2.0, 3.0)
EVERYBODY = (0, 1, 2)


class Killed(BaseException):
    """The driver's process is gone."""


def make(folder: Path, mode: Any = "sealed", rounds: int = 3) -> tuple[Play, list[scaffold_sites.QuadraticWorker]]:
    fleet = SimulatedFleet()
    workers = [
        scaffold_sites.install(site, folder, curvature) for site, curvature in zip(fleet.all, CURVATURES, strict=True)
    ]
    found = Play(
        fleet=fleet,
        folder=folder / "runs",
        local=LOCAL,
        protection=ProtectionPlan(mode=mode, sites=4),
        strategy=StrategyPlan(name="scaffold", control=True),
    )
    return found.with_rounds(count=rounds), workers


def check(played: Played, present: list[tuple[int, ...]], places: int) -> list[float]:
    """The last model and c are those of the paper's algorithm; returns its c_i."""
    assert played.result["outcome"] == "completed", played.result
    kept = checkpoint.latest(played.run.checkpoints)
    assert kept is not None
    w, c, own = scaffold_sites.expected(LOCAL, CURVATURES, TARGETS, present)
    assert kept[1].params["w"] == pytest.approx(np.full((2, 2), w), abs=10.0**-places)
    assert kept[1].memory["c/b"] == pytest.approx([c], abs=10.0**-places)
    return own


def test_two_rounds_in_secure_sums(tmp_path: Path) -> None:
    play, workers = make(tmp_path, "secagg", rounds=2)
    for site, windows in zip(play.fleet.all, (1, 20, 50), strict=True):
        site.windows = windows  # which do not count
    played = play.run()
    own = check(played, [EVERYBODY, EVERYBODY], 3)
    assert [worker.moved[2] for worker in workers] == pytest.approx(own, abs=1e-3)
    # What was kept goes when the run ends.
    assert not list(tmp_path.rglob("*.variate"))


def test_a_site_that_is_shown_another_c_than_the_rest_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a model on which all gradients vanish, and a c that moves one site off it, would show that site's update."""
    play, workers = make(tmp_path, "secagg", rounds=1)
    west, to_mask = play.fleet["west"].key.public.id, Group.to_mask
    other = weights.encode({name: np.full_like(value, 5.0) for name, value in INITIAL.items()})

    def lying(group: Group) -> Parcel:
        found = to_mask(group)
        if group.sum.manifest.purpose != "train":
            return found
        return replace(found, blobs={**found.blobs, west: {**found.blobs[west], CONTROL: other}})

    monkeypatch.setattr(Group, "to_mask", lying)
    play.run()
    assert [worker.trained for worker in workers] == [1, 1, 0]


def test_an_update_that_came_late_has_moved_nothing(tmp_path: Path) -> None:
    """West trains in round 2 and is heard when it is over: in round 3 it goes on from what it had after round 1."""
    play, workers = make(tmp_path)
    west = play.fleet["west"]

    def late(frame: Frame) -> None:
        header = read_header(frame.header)
        west.delay_s = 11.0 if (header.kind, header.round) == ("train", 2) else 0.01

    play.fleet.on_send = late
    played = play.run()
    own = check(played, [EVERYBODY, (0, 1), EVERYBODY], 5)
    assert workers[2].trained == 3
    assert workers[2].given[3] == workers[2].moved[1] != workers[2].moved[2]
    assert [worker.moved[3] for worker in workers] == pytest.approx(own, abs=1e-5)


def test_a_driver_that_dies_in_a_round_is_followed_by_one_that_gets_the_same(tmp_path: Path) -> None:
    """North has answered round 2 when the driver dies: asked again, it sends the same and has moved once."""
    play, workers = make(tmp_path)
    asked: list[Header] = []

    def dying(frame: Frame) -> None:
        header = read_header(frame.header)
        if (header.kind, header.round) == ("train", 2):
            asked.append(header)
            if len(asked) == 2:
                raise Killed

    play.fleet.on_send = dying
    with pytest.raises(Killed):
        play.run()
    (folder,) = play.folder.iterdir()
    play.fleet.on_send = lambda frame: None
    again = play.run(epoch=2, again=RunDirectory(folder))
    check(again, [EVERYBODY] * 3, 5)
    assert [worker.trained for worker in workers] == [3, 3, 3]


def test_a_site_that_dies_before_its_update_is_kept_computes_it_again_from_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its variate of round 2 is on the disk already: it is replaced, not moved again."""
    play, workers = make(tmp_path)
    keep, died = Outbox.keep_values, []

    def dying(outbox: Outbox, header: Header, data: bytes, terms: str = "") -> None:
        if (header.kind, header.round, header.site_id) == ("train", 2, play.fleet["west"].key.public.id) and not died:
            died.append(header)
            raise StorageError("killed")
        keep(outbox, header, data, terms)

    monkeypatch.setattr(Outbox, "keep_values", dying)
    played = play.run()
    own = check(played, [EVERYBODY, (0, 1), EVERYBODY], 5)
    assert died
    assert workers[2].moved[3] == pytest.approx(own[2], abs=1e-5)


def test_a_server_whose_strategy_is_another_one_than_the_plan_s_ends_the_run(tmp_path: Path) -> None:
    play, workers = make(tmp_path)
    play.strategy = StrategyPlan(name="fedavg", control=True)
    played = play.run()
    assert played.result["outcome"] == "failed"
    assert "strategy fedavg of this server is another one" in played.result["reason"]
    assert [worker.trained for worker in workers] == [0, 0, 0]


def test_fedadam_over_two_secure_sums(tmp_path: Path) -> None:
    """Sites send target − w, weighted by 1 : 1 : 2 windows: Δ is 2.25 − w. β1 = β2 = 0, τ = 1: w moves Δ / (Δ + 1)."""
    fleet = SimulatedFleet()
    fleet["west"].windows = 20
    options = {"server_learning_rate": 1.0, "beta1": 0.0, "beta2": 0.0, "tau": 1.0}
    play = Play(
        fleet=fleet,
        folder=tmp_path,
        protection=ProtectionPlan(mode="secagg", sites=4),
        strategy=StrategyPlan(name="fedadam", options=options),
    )
    played = play.run()
    assert played.result["outcome"] == "completed", played.result
    kept = checkpoint.latest(played.run.checkpoints)
    assert kept is not None
    first = 2.25 / 3.25
    second = first + (2.25 - first) / (3.25 - first)
    assert kept[1].params["w"] == pytest.approx(np.full((2, 2), second), abs=1e-4)
    # A driver that takes over from the first round's checkpoint has m and v from it: the same in the end.
    (played.run.checkpoints / "round-0002.json").unlink()
    again = checkpoint.latest(played.run.checkpoints)
    assert again is not None
    assert again[1].memory["m/b"] == pytest.approx([2.25], abs=1e-4)
    assert again[1].memory["v/b"] == pytest.approx([2.25**2], abs=1e-3)
