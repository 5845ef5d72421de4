"""Sites that are still at work when a run ends hear of it: nothing stays set aside for a run that is over."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from fedsite.protocol import instants
from fedsite.protocol.messages import Header, read_reply
from fedsite.server.rounds import coordinator
from tests.simulated_fleet import Play, SimulatedFleet

LATE_S = 30.0  # after the deadline of 10 s, before the instruction expires


@pytest.fixture
def late(fleet: SimulatedFleet) -> SimulatedFleet:
    """Two of three sites take their time over whatever they are asked."""
    for name in ("south", "west"):
        fleet[name].delay_s = LATE_S
    return fleet


def finish_of(fleet: SimulatedFleet, name: str) -> Header:
    (found,) = [header for header in fleet[name].sent if header.kind == "finish"]
    return found


def test_a_site_that_accepts_late_hears_that_the_run_has_failed(play: Play, late: SimulatedFleet) -> None:
    begun = late.clock.now
    played = play.run()
    assert played.result["outcome"] == "failed"
    assert "1 of 3 sites accepted" in played.result["reason"]
    assert [event["kind"] for event in played.events][-1] == "finished"  # whoever watches does not wait for it
    finish = finish_of(late, "west")
    (prepare,) = [header for header in late["west"].sent if header.kind == "prepare"]
    assert prepare.expires is not None
    assert finish.expires is not None
    assert instants.read(finish.expires) >= instants.read(prepare.expires) - timedelta(seconds=1)
    # The driver was there until the site, which takes one instruction after the other, had answered.
    assert late.clock.now - begun >= LATE_S + 10.0
    assert {read_reply(frame.header).kind for _, _, frame in late._waiting} == {"prepare"}


def test_nobody_is_waited_for_where_everybody_has_heard(play: Play, fleet: SimulatedFleet) -> None:
    play.run()
    assert not [header for header in fleet["west"].sent if header.kind == "finish" and header.round != 2]
    assert fleet.clock.now < 1000.0 + coordinator.FINISH_S


def test_a_driver_that_is_to_end_waits_for_nobody(play: Play, late: SimulatedFleet) -> None:
    begun = late.clock.now
    replace(play, leaving=lambda: True).run()
    assert late.clock.now - begun < LATE_S


def test_a_site_that_never_answers_is_waited_for_until_nothing_can_come_any_more(
    play: Play, fleet: SimulatedFleet
) -> None:
    for name in ("south", "west"):
        fleet[name].delay_s = 1e6
    begun = fleet.clock.now
    play.run()
    assert 40.0 < fleet.clock.now - begun < 100.0


def test_carried_sites_are_not_waited_for(play: Play, fleet: SimulatedFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        fleet, "sites", lambda: [replace(site.link, carried=site.name != "north") for site in fleet.all]
    )
    for name in ("south", "west"):
        fleet[name].delay_s = 1e6
    begun = fleet.clock.now
    play.run()
    assert fleet.clock.now - begun < LATE_S
    assert {header.kind for header in fleet["west"].sent} == {"prepare", "finish"}
