"""Whole runs under secure aggregation: equal to sealed ones; groups, newcomers, cohorts, and a second driver."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fedsite.protocol.errors import RefusalCode
from fedsite.protocol.messages import Frame
from fedsite.protocol.plan import PrivacyPlan
from fedsite.protocol.secagg.manifest import Terms
from tests.secure_play import GRID, NAMES, model, play, played, silent, site, sums
from tests.simulated_fleet import SimulatedFleet
from tests.simulated_site import during


@pytest.mark.parametrize("windows", [(10, 10, 10), (5, 20, 40)])
def test_a_secure_run_gives_what_a_sealed_one_gives(tmp_path: Path, windows: tuple[int, ...]) -> None:
    def spoil(fleet: SimulatedFleet) -> None:
        for one, count in zip(fleet.all, windows, strict=True):
            one.windows = count

    runs = {
        mode: played(tmp_path / mode, 3, spoil, protection={"mode": mode}, rounds={"count": 2, "minimum": 3})
        for mode in ("secagg", "sealed")
    }
    secure, sealed = runs["secagg"], runs["sealed"]
    mean = np.average([1.0, 2.0, 3.0], weights=windows)
    assert model(secure) == pytest.approx(mean, abs=GRID)
    assert model(sealed) == pytest.approx(mean, abs=GRID)
    for name in ("loss", "metric"):
        secures, sealeds = ([item[name] for item in run.result["rounds"]] for run in (secure, sealed))
        assert secures == pytest.approx(sealeds, abs=1e-4)
    normalisations = [
        json.loads((run.run.checkpoints / "round-0002.json").read_text())["normalisation"] for run in (secure, sealed)
    ]
    for key in ("mean", "scale"):
        assert normalisations[0][key] == pytest.approx(normalisations[1][key], abs=1e-4)


def test_with_privacy_every_site_weighs_one(tmp_path: Path) -> None:
    def spoil(fleet: SimulatedFleet) -> None:
        for one in fleet.all:
            one.private = True
        fleet.all[2].windows = 60

    found = played(
        tmp_path, 3, spoil, privacy=PrivacyPlan(mode="sample", epsilon=50.0, noise_multiplier=2.0, accountant="rdp")
    )
    assert model(found) == pytest.approx(2.0, abs=GRID)
    assert {event["purpose"] for event in found.events if event["kind"] == "sum"} == {"train"}
    assert found.result["privacy"]["epsilon_max"] > 0


def test_no_reply_of_a_sum_holds_values_and_no_event_a_secret(tmp_path: Path) -> None:
    fleet = SimulatedFleet(NAMES[:3])
    replies: list[Frame] = []
    for one in fleet.all:
        honest = one.receive
        one.receive = lambda frame, honest=honest: (found := honest(frame), replies.extend(found))[0]  # type: ignore[method-assign]
    found = play(tmp_path, fleet).run()
    blobs = {name for frame in replies for name in frame.blobs}
    assert blobs == {"advert", "shares", "masked", "opened"}
    (event,) = sums(found)
    assert set(event) == {
        *("schema", "run", "sequence", "at", "kind", "round", "purpose", "attempt", "group", "outcome", "reason"),
        *("words", "manifest_hash", "model_hash", "roster_hash", "u1", "u2", "u3", "masked", "total", "stages"),
        "at_fault",
    }
    assert sorted(event["u1"]) == sorted(event["u3"]) == sorted(event["masked"]) == NAMES[:3]


def test_a_steady_round_takes_three_trips(tmp_path: Path) -> None:
    found = played(tmp_path, 3, rounds={"count": 3})
    phases = [event["phase"] for event in found.events if event["kind"] == "asked"]
    assert phases == [
        "prepare",
        *("share", "statistics", "unmask"),
        *("share", "train", "unmask") * 3,
        *("advertise", "share", "evaluate", "unmask"),
        "finish",
    ]


def test_a_newcomer_is_in_the_next_sum(tmp_path: Path) -> None:
    def spoil(fleet: SimulatedFleet) -> None:
        fleet.all[3].online = False
        fleet.on_send = lambda frame: setattr(fleet.all[3], "online", fleet.all[3].online or b'"train"' in frame.header)

    found = played(tmp_path, 4, spoil, rounds={"count": 3})
    assert [len(event["u3"]) for event in sums(found)] == [3, 4, 4]


def test_a_site_without_a_certified_identity_is_named_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def spoil(fleet: SimulatedFleet) -> None:
        fleet.all[0].certified = b""

    found = played(tmp_path, 4, spoil)
    assert "site site-1 has no certified identity" in caplog.text
    assert [sorted(event["u1"]) for event in sums(found)] == [NAMES[1:4]]


@pytest.mark.parametrize(("groups", "sizes"), [(2, [4, 5]), (3, [3, 3, 3]), (9, [3, 3, 3])])
def test_a_round_is_cut_into_groups(tmp_path: Path, groups: int, sizes: list[int]) -> None:
    found = played(tmp_path, 9, protection={"groups": groups})
    assert sorted(len(event["u3"]) for event in sums(found)) == sizes
    assert sorted(name for event in sums(found) for name in event["u3"]) == sorted(NAMES[:9])
    assert len(sums(found, "evaluate")) == len(sums(found, "statistics")) == 1
    assert model(found) == pytest.approx(5.0, abs=GRID)
    assert found.result["rounds"][0]["participants"] == 9


def test_a_group_that_fails_falls_out(tmp_path: Path) -> None:
    found = played(tmp_path, 9, lambda fleet: silent("mask")(fleet.all[0]), protection={"groups": 3})
    events = sums(found)
    failed = next(event for event in events if event["outcome"] == "failed")
    assert NAMES[0] in failed["u1"]
    targets = [NAMES.index(name) + 1 for event in events if event is not failed for name in event["u3"]]
    assert model(found) == pytest.approx(np.mean(targets), abs=GRID)
    (first,) = found.result["rounds"]
    assert (first["outcome"], first["participants"]) == ("degraded", 6)
    assert "1 of 3 groups fell out: mask: 2 of 3 sites answered, 3 needed" in first["reason"]
    other = next(name for name in failed["u1"] if name != NAMES[0])
    assert site(found, other)["rounds"][0]["outcome"] == "unused"


def test_a_cohort_is_never_larger_than_its_scale(tmp_path: Path) -> None:
    found = played(tmp_path, 7, protection={"sites": 4})
    assert {len(event["u1"]) for event in found.events if event["kind"] == "sum"} == {4}


def test_a_cohort_below_its_minimum_ends_the_run_with_the_reason(tmp_path: Path) -> None:
    found = played(tmp_path, 3, protection={"terms": Terms(min_cohort=4)})
    assert found.result["outcome"] == "failed"
    assert found.result["reason"].startswith("3 sites online after 5 s, minimum 4; next: ")


def test_a_second_driver_goes_on_without_the_statistics(tmp_path: Path) -> None:
    fleet = SimulatedFleet(NAMES[:3])
    first = play(tmp_path, fleet, rounds={"count": 2})
    found = first.run()
    for number in (1, 2):
        (found.run.checkpoints / f"round-{number:04d}.json").unlink()
    fleet.all[0].seen.clear()
    # Sites opened both rounds for the first driver: they are lost, and named; nobody opens a sum twice.
    again = first.run(epoch=2, again=found.run)
    kinds = [header.kind for header in fleet.all[0].seen]
    assert "statistics" not in kinds
    assert {header.attempt for header in fleet.all[0].seen} == {1001}
    assert [item["outcome"] for item in again.result["rounds"]] == ["abandoned", "abandoned"]
    assert again.result["rounds"][0]["reason"] == "advertise: 0 of 3 sites answered, 3 needed"


def test_a_second_driver_trains_the_rounds_that_nobody_opened(tmp_path: Path) -> None:
    fleet = SimulatedFleet(NAMES[:3])
    stop = [False]
    first = play(tmp_path, fleet, rounds={"count": 2})
    first.stopping = lambda: stop[0]

    def in_round_two(frame: Frame) -> None:
        header = json.loads(frame.header)
        stop[0] |= (header["kind"], header["round"]) == ("train", 2)

    fleet.on_send = in_round_two
    stopped = first.run()
    assert stopped.result["outcome"] == "stopped"
    stopped.run.result_file.unlink()
    stop[0], fleet.on_send = False, lambda frame: None
    again = first.run(epoch=2, again=stopped.run)
    assert [(item["number"], item["outcome"]) for item in again.result["rounds"]] == [(2, "completed")]
    assert model(again) == pytest.approx(2.0, abs=GRID)


def test_the_result_says_what_the_sums_cost(tmp_path: Path) -> None:
    found = played(tmp_path, 5).result["secagg"]
    assert (found["min_cohort"], found["min_survivors"], found["groups"]) == (3, 3, 1)
    assert [stage["name"] for stage in found["stages"]] == ["share", "mask", "unmask", "advertise"]
    train = next(item for item in found["sums"] if item["purpose"] == "train")
    assert (train["cohort"], train["shared"], train["survivors"], train["outcome"]) == (5, 5, 5, "opened")


def test_goal_and_over_selection_ask_more_than_they_need(tmp_path: Path) -> None:
    found = played(tmp_path, 10, rounds={"goal": 4, "over_select": 1.5})
    (event,) = sums(found)
    assert len(event["u1"]) == 6
    assert len(event["u3"]) == 4
    assert found.result["rounds"][0]["outcome"] == "completed"


def test_what_refuses_a_plan_is_not_in_a_sum(tmp_path: Path) -> None:
    no = during("prepare", lambda s, h, f: [s.reply(h, f, {}, {}, RefusalCode.POLICY)])
    found = played(tmp_path, 4, lambda fleet: no(fleet.all[0]))
    assert {tuple(sorted(event["u1"])) for event in found.events if event["kind"] == "sum"} == {tuple(NAMES[1:4])}
