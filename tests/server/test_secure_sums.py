"""Whole runs under secure aggregation: equal to sealed ones, and a site lost, late or lying in every stage in turn."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsite.protocol.errors import RefusalCode
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.messages import Frame, Header
from fedsite.protocol.plan import PrivacyPlan, ProtectionPlan
from fedsite.protocol.secagg.manifest import Terms
from fedsite.server import checkpoint
from tests.simulated_fleet import Play, Played, SimulatedFleet
from tests.simulated_site import SimulatedSite, during

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
    return [event for event in found.events if event["kind"] == "sum" and event["purpose"] == purpose]


def site(found: Played, name: str) -> dict[str, Any]:
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


silent = lambda stage: at(stage, lambda one, header, frame: [])  # noqa: E731


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


def forged(one: SimulatedSite, header: Header, frame: Frame) -> list[Frame]:
    honest = one.answer(header, frame)
    one_key, one.key = one.key, SigningKey.generate()
    reply = one.reply(header, frame, {}, {}, raw=honest.blobs, site_id=header.site_id)
    one.key = one_key
    return [reply]


def resized(change: int) -> Callable[[SimulatedSite, Header, Frame], list[Frame]]:
    def act(one: SimulatedSite, header: Header, frame: Frame) -> list[Frame]:
        blobs = {
            name: (blob + bytes(4))[: len(blob) + change] for name, blob in one.answer(header, frame).blobs.items()
        }
        return [one.reply(header, frame, {}, {}, raw=blobs)]

    return act


LIES: dict[str, tuple[Callable[[SimulatedSite, Header, Frame], list[Frame]], str, str | None]] = {
    "forged": (forged, "invalid", "signature"),
    "too short": (resized(-1), "invalid", "malformed"),
    "too long": (resized(1), "invalid", "too-large"),
    "missing": (lambda s, h, f: [s.reply(h, f, {}, {})], "invalid", "malformed"),
    "in the clear": (lambda s, h, f: [s.reply(h, f, {"weight": np.ones(1)}, {})], "invalid", "protection"),
    "other bytes beside": (
        lambda s, h, f: [s.reply(h, f, {}, {}, raw={**s.answer(h, f).blobs, "more": b"x"})], "invalid", "protection",
    ),
    "garbage": (lambda s, h, f: [Frame(header=b"{", signature=b"x" * 64, blobs={})], "invalid", "signature"),
    "refused": (lambda s, h, f: [s.reply(h, f, {}, {}, RefusalCode.BUDGET)], "refused", "budget"),
    "wrong attempt": (lambda s, h, f: [s.reply(h, f, {}, {}, attempt=7)], "invalid", "wrong-run"),
}  # fmt: skip


@pytest.mark.parametrize("stage", ["share", pytest.param("mask", marks=pytest.mark.slow)])
@pytest.mark.parametrize("lie", LIES)
def test_a_bad_stage_reply_is_that_sites_outcome(tmp_path: Path, stage: str, lie: str) -> None:
    act, outcome, code = LIES[lie]
    found = played(tmp_path, 5, lambda fleet: at(stage, act)(fleet.all[0]))
    assert model(found) == pytest.approx(3.5, abs=GRID)  # of 2, 3, 4, 5
    bad = site(found, NAMES[0])
    assert (bad["rounds"][0]["outcome"], bad["code"]) == (outcome, code)


def test_a_bad_opening_is_worked_around(tmp_path: Path) -> None:
    def lie(one: SimulatedSite, header: Header, frame: Frame) -> list[Frame]:
        opened = one.answer(header, frame).blobs["opened"]
        wrong = b"".join(opened[at : at + 1] + bytes(32) for at in range(0, len(opened), 33))
        return [one.reply(header, frame, {}, {}, raw={"opened": wrong})]

    found = played(tmp_path, 5, lambda fleet: at("unmask", lie)(fleet.all[0]))
    assert model(found) == pytest.approx(3.0, abs=GRID)


def test_keys_that_somebody_else_signed_are_asked_for_again(tmp_path: Path) -> None:
    def lie(one: SimulatedSite, header: Header, frame: Frame) -> list[Frame]:
        reply = one.answer(header, frame)
        other = bytes(176)
        return [one.reply(header, frame, {}, {}, raw={**reply.blobs, "advert": other})]

    def spoil(fleet: SimulatedFleet) -> None:
        at("unmask", lie)(fleet.all[0])

    found = played(tmp_path, 5, spoil, rounds={"count": 2})
    assert [item["participants"] for item in found.result["rounds"]] == [5, 5]


def test_a_duplicate_counts_once_and_a_late_answer_not_at_all(tmp_path: Path) -> None:
    def spoil(fleet: SimulatedFleet) -> None:
        at("share", lambda one, header, frame: [one.answer(header, frame)] * 2)(fleet.all[0])
        slow = fleet.all[1]

        def wait(frame: Frame) -> None:
            header = json.loads(frame.header)
            if header["site_id"] == slow.key.public.id:
                slow.delay_s = 10.5 if header["kind"] == "train" else 0.01

        fleet.on_send = wait

    found = played(tmp_path, 5, spoil)
    assert model(found) == pytest.approx(np.mean([1, 3, 4, 5]), abs=GRID)
    assert site(found, NAMES[1])["rounds"][0]["outcome"] == "silent"


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
    assert (found.result["outcome"], found.result["reason"]) == ("failed", "3 sites online after 5 s, minimum 4")


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
