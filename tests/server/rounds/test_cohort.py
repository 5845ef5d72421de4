"""Sites that answer at another time: asked again, never sent away, and in the run as soon as they agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fedsite.protocol.errors import RefusalCode
from fedsite.protocol.messages import Frame, Header
from fedsite.protocol.plan import ProtectionPlan
from fedsite.server.commands.runs import line
from fedsite.server.rounds import cohort
from tests.simulated_fleet import Play, SimulatedFleet
from tests.simulated_site import SimulatedSite

Says = Callable[[Header], RefusalCode | None]
STARTS = ("prepare", "statistics", "train", "evaluate", "advertise", "share")


def says(site: SimulatedSite, what: Says) -> None:
    """Have a site refuse what touches data, as long as `what` gives a code."""
    honest = site.answer

    def answer(header: Header, frame: Frame) -> Frame:
        code = what(header) if header.kind in STARTS else None
        return honest(header, frame) if code is None else site.reply(header, frame, {}, {}, code)

    site.answer = answer  # type: ignore[method-assign]


def until(fleet: SimulatedFleet, moment: float, code: RefusalCode) -> Says:
    """Say `code` until `moment` of the fleet's clock, seconds from now."""
    end = fleet.clock.now + moment
    return lambda header: code if fleet.clock.now < end else None


@pytest.mark.parametrize("code", [RefusalCode.APPROVAL, RefusalCode.NOT_NOW])
@pytest.mark.parametrize("mode", ["secagg", "sealed"])
def test_the_first_gathering_waits_for_people(play: Play, fleet: SimulatedFleet, mode: Any, code: RefusalCode) -> None:
    play.protection = ProtectionPlan(mode=mode, examples_max=64)
    for site in fleet.all:
        says(site, until(fleet, 12.0, code))
    played = play.with_rounds(minimum=3, wait_s=60.0).run()
    assert (played.result["outcome"], [found["outcome"] for found in played.result["rounds"]]) == (
        "completed",
        ["completed"] * 2,
    )
    refused = [event["refused"] for event in played.events if event["kind"] == "prepared"]
    assert refused[0] == dict.fromkeys(("north", "south", "west"), str(code))
    assert refused[-1] == {}


def test_pauses_between_asking_grow(play: Play, fleet: SimulatedFleet) -> None:
    for site in fleet.all:
        says(site, until(fleet, 1000.0, RefusalCode.APPROVAL))
    played = play.with_rounds(minimum=3, wait_s=300.0).run()
    # At once, and after 2, 6, 14, 30, 62, 122, 182 and 242 seconds.
    assert len([header for header in fleet["west"].sent if header.kind == "prepare"]) == 9
    assert played.result["outcome"] == "failed"
    assert played.result["reason"] == (
        "the plan was not accepted: 0 of 3 sites accepted, minimum 3; waiting for their operators (approval): north, "
        "south, west; next: launch with rounds.wait_s=3600 to wait longer, or the same launch again after they "
        "approved (with policy.approval once it needs nobody then)"
    )


def test_who_waits_is_told_while_it_lasts_and_at_the_end(play: Play, fleet: SimulatedFleet) -> None:
    says(fleet["west"], lambda header: RefusalCode.NOT_NOW)
    says(fleet["south"], lambda header: RefusalCode.APPROVAL)
    played = play.with_rounds(minimum=3, wait_s=30.0).run()
    (waits,) = [event for event in played.events if event["kind"] == "waiting"]
    resting = {"south": "approval", "west": "not-now"}
    assert {name: waits[name] for name in ("ready", "wanted", "seconds", "resting")} == {
        "ready": 1, "wanted": 3, "seconds": 30.0, "resting": resting,
    }  # fmt: skip
    assert line(waits) == "1 of 3 sites ready; waiting up to 30 s for more; south: approval; west: not-now"
    reason = played.result["reason"]
    assert "waiting for their operators (approval): south; at work at another time (not-now): west; next: " in reason


def test_too_few_sites_online_are_waited_for_aloud(play: Play, fleet: SimulatedFleet) -> None:
    fleet["west"].online = False
    played = play.with_rounds(minimum=3, wait_s=30.0).run()
    (waits,) = [event for event in played.events if event["kind"] == "waiting"]
    assert line(waits) == "2 of 3 sites ready; waiting up to 30 s for more"
    assert played.result["reason"].startswith("2 sites online after 30 s, minimum 3; next: fedsite sites")


@pytest.mark.parametrize(("delay", "outcome"), [(cohort.SETTLE_S - 10, "completed"), (cohort.SETTLE_S + 10, "failed")])
def test_a_site_without_which_nothing_goes_on_may_take_its_time_to_accept(
    play: Play, fleet: SimulatedFleet, delay: float, outcome: str
) -> None:
    """Asked again, it may first have to start its training process and read its data."""
    agrees = fleet.clock.now + 12.0

    def slowly(header: Header) -> RefusalCode | None:
        # Of questions after the first few it thinks for long.
        waits = fleet.clock.now < agrees
        fleet["west"].delay_s = delay if header.kind == "prepare" and not waits else 0.0
        return RefusalCode.APPROVAL if waits else None

    assert delay > cohort.LATE_S
    says(fleet["west"], slowly)
    played = play.with_rounds(minimum=3, deadline_s=120.0, wait_s=80.0).run()
    assert played.result["outcome"] == outcome


def test_nobody_is_waited_for_where_there_is_enough(play: Play, fleet: SimulatedFleet) -> None:
    says(fleet["west"], until(fleet, 1e6, RefusalCode.APPROVAL))
    started = fleet.clock.now
    played = play.with_rounds(wait_s=600.0).run()
    assert played.result["outcome"] == "completed"
    assert fleet.clock.now - started < 60
    assert {site["name"]: site["code"] for site in played.result["sites"]}["west"] == "approval"


def test_a_goal_is_waited_for(play: Play, fleet: SimulatedFleet) -> None:
    says(fleet["west"], until(fleet, 20.0, RefusalCode.APPROVAL))
    played = play.with_rounds(wait_s=600.0, goal=3).run()
    assert [found["participants"] for found in played.result["rounds"]] == [3, 3]


@pytest.mark.parametrize("mode", ["secagg", "sealed"])
def test_who_agrees_later_is_taken_in_at_a_later_round(play: Play, fleet: SimulatedFleet, mode: Any) -> None:
    fleet.all.append(SimulatedSite("east", fleet.federation, target=4.0))
    play.protection = ProtectionPlan(mode=mode, examples_max=64)
    fleet["north"].delay_s = 5.0

    def once_two_rounds_are_over(header: Header) -> RefusalCode | None:
        done = sum(header.kind == "train" for header in fleet["north"].seen)
        return RefusalCode.APPROVAL if done < 2 else None

    says(fleet["east"], once_two_rounds_are_over)
    played = play.with_rounds(count=5, minimum=3, deadline_s=60.0).run()
    assert played.result["outcome"] == "completed"
    participants = [found["participants"] for found in played.result["rounds"]]
    assert (participants[:2], participants[-1], sorted(participants)) == ([3, 3], 4, participants)


@pytest.mark.parametrize("mode", ["secagg", "sealed"])
def test_a_night_in_the_middle_of_a_run_is_waited_for(play: Play, fleet: SimulatedFleet, mode: Any) -> None:
    play.protection = ProtectionPlan(mode=mode, examples_max=64)
    night: dict[str, float] = {}

    def by_day(header: Header) -> RefusalCode | None:
        if header.kind != "prepare" and header.round == 2:
            night.setdefault("ends", fleet.clock.now + 100.0)
        return RefusalCode.NOT_NOW if fleet.clock.now < night.get("ends", 0.0) else None

    for site in fleet.all:
        says(site, by_day)
    played = play.with_rounds(count=3, minimum=3, wait_s=200.0, patience=2).run()
    # The round in which night fell came to nothing; the next one began when it was over.
    assert [found["outcome"] for found in played.result["rounds"]] == ["completed", "abandoned", "completed"]
    assert played.result["outcome"] == "completed"


def test_a_site_that_rests_still_gets_the_release_it_helped_to_make(play: Play, fleet: SimulatedFleet) -> None:
    from fedsite.server.rounds.cohort import Cohort

    members: list[set[str]] = []

    class Publisher:
        def make(self, session: Any, cohort: Cohort, model: Any, normalisation: Any) -> Any:
            members.append({site.name for site in cohort.members()})
            members.append({site.name for site in cohort.everybody()})
            return type("Candidate", (), {"int8": None})()

        def deliver(self, *_: Any, **__: Any) -> None:
            return None

    says(fleet["west"], lambda header: RefusalCode.NOT_NOW if header.round == 2 else None)
    play.publish = Publisher()  # type: ignore[assignment]
    play.run()
    assert members == [{"north", "south", "west"}, {"north", "south"}]


def test_a_no_is_a_no(play: Play, fleet: SimulatedFleet) -> None:
    says(fleet["west"], lambda header: RefusalCode.POLICY)
    play.with_rounds(count=3, wait_s=60.0).run()
    assert [header.kind for header in fleet["west"].sent] == ["prepare", "finish"]


def test_when_the_last_one_who_rests_says_no_nobody_is_waited_for(play: Play, fleet: SimulatedFleet) -> None:
    end = fleet.clock.now + 10.0
    says(fleet["west"], lambda header: RefusalCode.APPROVAL if fleet.clock.now < end else RefusalCode.POLICY)
    started = fleet.clock.now
    played = play.with_rounds(minimum=3, wait_s=600.0).run()
    assert played.result["reason"] == "the plan was not accepted: 2 of 3 sites accepted, minimum 3"
    assert fleet.clock.now - started < 30
