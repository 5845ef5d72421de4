"""A site that misbehaves in a sealed round: its own outcome, and nobody else's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fedsite.server.runs import checkpoint
from tests import simulated_site
from tests.simulated_fleet import Play, SimulatedFleet
from tests.simulated_site import SimulatedSite


def test_statistics_that_were_not_asked_for_are_refused(play: Play, fleet: SimulatedFleet) -> None:
    for site in fleet.all:
        simulated_site.during("prepare", lambda s, h, f: [s.reply(h, f, {"statistics/count": np.ones(1)}, {})])(site)
    result = play.run().result
    assert result["outcome"] == "failed"
    assert "invalid" in {site["prepared"] for site in result["sites"]}


ADVERSARIES: dict[str, tuple[Callable[[SimulatedSite], None], str, str | None]] = {
    "silent": (simulated_site.silent, "silent", None),
    "refusing": (simulated_site.refusing, "refused", "budget"),
    "nan": (simulated_site.not_a_number, "invalid", "model-invalid"),
    "wrong shape": (simulated_site.wrong_shape, "invalid", "model-invalid"),
    "oversized": (simulated_site.oversized, "invalid", "too-large"),
    "extra array": (simulated_site.extra_array, "invalid", "model-invalid"),
    "too heavy": (simulated_site.heavy, "invalid", "model-invalid"),
    "forged": (simulated_site.forged, "invalid", "signature"),
    "wrong round": (simulated_site.wrong_round, "invalid", "wrong-run"),
    "wrong attempt": (simulated_site.wrong_attempt, "invalid", "wrong-run"),
    "in the clear": (simulated_site.in_the_clear, "invalid", "protection"),
    "garbage": (simulated_site.garbage, "invalid", "signature"),
}


@pytest.mark.parametrize("name", ADVERSARIES)
def test_a_bad_reply_is_that_sites_outcome_and_not_the_runs(play: Play, fleet: SimulatedFleet, name: str) -> None:
    misbehave, outcome, code = ADVERSARIES[name]
    misbehave(fleet["west"])
    played = play.run()
    result = played.result
    assert (result["outcome"], result["rounds"][0]["outcome"]) == ("completed", "degraded")
    west = next(site for site in result["sites"] if site["name"] == "west")
    assert [found["outcome"] for found in west["rounds"]] == [outcome] * 2
    assert west["code"] == code
    found = checkpoint.latest(played.run.checkpoints)
    assert found is not None
    np.testing.assert_allclose(found[1].params["w"], np.full((2, 2), 1.5), atol=1e-6)


def test_a_duplicate_counts_once(play: Play, fleet: SimulatedFleet) -> None:
    simulated_site.duplicate(fleet["west"])
    played = play.run()
    found = checkpoint.latest(played.run.checkpoints)
    assert found is not None
    np.testing.assert_allclose(found[1].params["w"], np.full((2, 2), 2.0), atol=1e-6)


def test_a_late_reply_does_not_count_and_does_not_block(play: Play, fleet: SimulatedFleet) -> None:
    fleet.on_send = lambda frame: setattr(fleet["west"], "delay_s", 11.0 if b'"train"' in frame.header else 0.01)
    played = play.run()
    result = played.result
    assert result["outcome"] == "completed"
    assert {found["outcome"] for found in result["rounds"]} == {"degraded"}
    # The reply of round 1 comes in round 2 and is told as what it is; that of round 2 comes when the run is over.
    late = [(event["phase"], event["round"], event["site"]) for event in played.events if event["kind"] == "late"]
    assert late == [("train", 1, "west")]
    assert [found["ignored"] for found in result["rounds"]] == [{"late": 1}, {}]
    assert not [event for event in played.events if event["kind"] == "reply" and event["phase"] == "train"][4:]
    found = checkpoint.latest(played.run.checkpoints)
    assert found is not None
    np.testing.assert_allclose(found[1].params["w"], np.full((2, 2), 1.5), atol=1e-6)  # west's 3 is not in it
