"""A site lost in every stage of a secure sum in turn: exact over the others, or abandoned by name; one retry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedsite.protocol.messages import Frame, Header
from fedsite.protocol.plan import PrivacyPlan, SitePrivacyPlan
from fedsite.server.runs.record import Record
from tests.secure_play import GRID, NAMES, at, model, play, played, silent, site, sums
from tests.simulated_fleet import SimulatedFleet
from tests.simulated_site import SimulatedSite


@pytest.mark.parametrize("count", [5, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", ["share", "mask", "unmask"])
def test_a_site_lost_in_any_stage_leaves_an_exact_sum(tmp_path: Path, count: int, stage: str) -> None:
    found = played(tmp_path, count, lambda fleet: silent(stage)(fleet.all[0]))
    inside = range(1, count + 1) if stage == "unmask" else range(2, count + 1)
    assert model(found) == pytest.approx(np.mean(inside), abs=GRID)
    (event,) = sums(found)
    assert len(event["u3"]) == len(inside)
    (first,) = found.result["rounds"]
    assert (first["outcome"], first["participants"]) == ("completed" if stage == "unmask" else "degraded", len(inside))
    lost = site(found, NAMES[0])
    assert lost["rounds"][0]["outcome"] == ("ok" if stage == "unmask" else "silent")
    assert lost["trained"] == (0 if stage == "share" else 1)


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        ("share", "share: 2 of 3 sites answered, 3 needed"),
        ("mask", "mask: 2 of 3 sites answered, 3 needed"),
    ],
)
def test_three_sites_without_one_are_abandoned_by_name(tmp_path: Path, stage: str, reason: str) -> None:
    found = played(tmp_path, 3, lambda fleet: silent(stage)(fleet.all[0]), rounds={"patience": 2})
    (first,) = found.result["rounds"]
    assert (first["outcome"], first["reason"]) == ("abandoned", reason)
    assert model(found) == 0.0
    assert [event["attempt"] for event in sums(found)] == [1, 2]
    assert site(found, NAMES[1])["rounds"][0]["outcome"] == "unused"


def test_three_sites_open_without_the_third(tmp_path: Path) -> None:
    found = played(tmp_path, 3, lambda fleet: silent("unmask")(fleet.all[0]))
    assert model(found) == pytest.approx(2.0, abs=GRID)


def test_an_opening_is_asked_once(tmp_path: Path) -> None:
    def spoil(fleet: SimulatedFleet) -> None:
        silent("unmask")(fleet.all[0])
        silent("unmask")(fleet.all[1])

    found = played(tmp_path, 3, spoil, rounds={"patience": 2})
    (first,) = found.result["rounds"]
    assert (first["outcome"], first["reason"]) == ("abandoned", "unmask: 1 of 3 sites answered, 2 needed")
    assert [event["attempt"] for event in sums(found)] == [1]


def test_keys_for_a_sum_that_became_another_are_not_used(tmp_path: Path) -> None:
    # Keys for round 2 were made for a sum with an evaluation in it; without a model of round 1 there is none to judge.
    def first_round(one: SimulatedSite, header: Header, frame: Frame) -> list[Frame]:
        reply = one.answer(header, frame)
        return [] if header.round == 1 else [reply]

    def spoil(fleet: SimulatedFleet) -> None:
        for one in fleet.all[:2]:
            at("unmask", first_round)(one)

    found = played(tmp_path, 3, spoil, rounds={"count": 2})
    assert [item["outcome"] for item in found.result["rounds"]] == ["abandoned", "completed"]
    assert [(event["round"], event["attempt"]) for event in sums(found)] == [(1, 1), (2, 2)]


def test_a_retry_has_fresh_keys_and_the_same_values(tmp_path: Path) -> None:
    fleet = SimulatedFleet(NAMES[:3])
    lost = {1}

    def once(one: SimulatedSite, header: Header, frame: Frame) -> list[Frame]:
        reply = [one.answer(header, frame)]
        return [] if lost.discard(1) is None and header.attempt == 1 else reply

    at("mask", once)(fleet.all[0])
    found = play(tmp_path, fleet).run()
    assert found.result["rounds"][0]["outcome"] == "completed"
    assert model(found) == pytest.approx(2.0, abs=GRID)
    first, second = sums(found)
    assert (first["attempt"], second["attempt"]) == (1, 2)
    assert (first["outcome"], second["outcome"]) == ("failed", "opened")
    assert first["roster_hash"] != second["roster_hash"]
    assert not set(first["masked"].values()) & set(second["masked"].values())
    # One training was asked for, twice; later instructions stay under the new number.
    assert site(found, NAMES[0])["trained"] == 1
    assert fleet.all[0].sent[-1].attempt == 2


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["share", "mask", "confirm", "unmask"])
def test_a_sparse_cohort_confirms_who_is_in_the_sum(tmp_path: Path, stage: str) -> None:
    fleet = SimulatedFleet([f"site-{number:03d}" for number in range(102)])
    silent(stage)(fleet.all[0])
    for one in fleet.all:
        one.private = True
    found = play(
        tmp_path,
        fleet,
        privacy=PrivacyPlan(mode="sample", epsilon=50.0, noise_multiplier=2.0, accountant="rdp"),
        protection={"sites": 102, "bound": 128.0},
    ).run()
    inside = range(1, 103) if stage in ("confirm", "unmask") else range(2, 103)
    assert model(found) == pytest.approx(np.mean(inside), abs=1e-3)
    (event,) = sums(found)
    assert [item["name"] for item in event["stages"]] == ["share", "mask", "confirm", "unmask"]


@pytest.mark.parametrize(("stage", "attempts"), [("share", [1, 2]), ("mask", [1])])
def test_noise_that_was_masked_is_not_asked_for_again(tmp_path: Path, stage: str, attempts: list[int]) -> None:
    """With privacy per site a second attempt would be a second release: it is made only where no vector was asked."""
    fleet = SimulatedFleet(NAMES[:3])
    for one in fleet.all:
        one.private = True
    silent(stage)(fleet.all[0])
    found = play(
        tmp_path,
        fleet,
        privacy=PrivacyPlan(mode="site", site=SitePrivacyPlan(epsilon=8.0, noise_multiplier=2.0)),
        rounds={"patience": 2},
    ).run()
    assert found.result["rounds"][0]["outcome"] == "abandoned"
    assert [event["attempt"] for event in sums(found)] == attempts


def test_a_round_that_two_drivers_asked_for_counts_twice_where_it_was_paid_twice(tmp_path: Path) -> None:
    noise = PrivacyPlan(mode="site", site=SitePrivacyPlan(epsilon=8.0, noise_multiplier=2.0))
    fleet = SimulatedFleet(NAMES[:3])
    for one in fleet.all:
        one.private = True
    found = play(tmp_path, fleet, privacy=noise, rounds={"count": 3})
    plan, link = found.run().run.plan(), fleet.all[0].link
    charged = []
    for epoch, rounds in ((1, 1), (1, 2), (2, 1), (3, 1), (9, 1), (1, 3)):
        record = Record(plan, epoch=epoch)
        record.site(link).trained = rounds
        charged.append(record.charge()["site"])
    assert charged[1:] == [charged[1], charged[1], charged[5], charged[5], charged[5]]
    assert charged[0] < charged[1] < charged[5]
