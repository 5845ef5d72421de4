"""Whole runs over sites in memory: honest ones by hand, sites that come and go, and every end of a run."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fedsite.protocol.errors import FedsiteError
from fedsite.protocol.plan import PrivacyPlan, ProtectionPlan, StrategyPlan
from fedsite.server.runs import checkpoint
from tests import simulated_site
from tests.simulated_fleet import Play, SimulatedFleet


@pytest.mark.parametrize("mode", ["secagg", "sealed", "none"])
def test_an_honest_run(play: Play, mode: Any) -> None:
    play.protection = ProtectionPlan(mode=mode, examples_max=64)
    played = play.run()
    result = played.result
    assert (result["outcome"], [found["outcome"] for found in result["rounds"]]) == ("completed", ["completed"] * 2)
    # Targets 1, 2, 3 with equal weights: the mean model is 2, so errors are -1, 0, 1 and their mean square 2/3.
    found = checkpoint.latest(played.run.checkpoints)
    assert found is not None
    np.testing.assert_allclose(found[1].params["w"], np.full((2, 2), 2.0), atol=1e-5)
    assert result["metric"]["global"] == pytest.approx((2 / 3) ** 0.5, abs=1e-5)
    assert [found["metric"] for found in result["rounds"]] == pytest.approx([(2 / 3) ** 0.5] * 2, abs=1e-5)
    assert [site["epsilon"] for site in result["sites"]] == [None] * 3
    assert result["rounds"][0]["loss"] == pytest.approx(0.5, abs=1e-5)
    assert json.loads(played.run.result_file.read_text()) == result


def test_updates_are_weighted_by_windows(play: Play, fleet: SimulatedFleet) -> None:
    fleet["west"].windows = 20  # (1·10 + 2·10 + 3·20) / 40 = 2.25
    found = checkpoint.latest(play.run().run.checkpoints)
    assert found is not None
    np.testing.assert_allclose(found[1].params["w"], np.full((2, 2), 2.25), atol=1e-6)


def test_events_tell_the_story_in_order(play: Play) -> None:
    played = play.with_rounds(count=1).run()
    answers = ["asked", "reply", "reply", "reply"]
    assert played.kinds() == [
        "launched",
        "started",
        *answers,
        "prepared",
        *answers,
        "checkpoint",
        *answers,
        "checkpoint",
        "round_finished",
        *answers,
        "evaluated",
        *answers,
        "finished",
    ]
    assert [event["phase"] for event in played.events if event["kind"] == "asked"] == [
        "prepare",
        "statistics",
        "train",
        "evaluate",
        "finish",
    ]
    assert all(event["schema"] == "fedsite.event/1" for event in played.events)


def test_normalisation_comes_from_the_merged_statistics(play: Play, fleet: SimulatedFleet) -> None:
    play.with_rounds(count=1).run()
    train = next(header for header in fleet["north"].seen if header.kind == "train")
    # Mean 0.5 of [-1, 1] is 5 of [-10, 10]; variance 0.5 - 0.25, so the deviation is 0.5, which is 5.
    assert train.body["normalisation"] == {"mean": [5.0, 5.0], "scale": [5.0, 5.0]}


def test_private_runs_take_the_schema_and_print_epsilon_but_no_windows(play: Play, fleet: SimulatedFleet) -> None:
    play.privacy = PrivacyPlan(mode="sample", epsilon=50.0, noise_multiplier=2.0)
    for site in fleet.all:
        site.private = True
    played = play.run()
    train = next(header for header in fleet["north"].seen if header.kind == "train")
    assert train.body == {"normalisation": {"mean": [0.0, 0.0], "scale": [5.0, 5.0]}, "evaluate": False}
    assert played.result["metric"]["global"] is None
    epsilons = {site["epsilon"] for site in played.result["sites"]}
    assert epsilons == {played.result["privacy"]["epsilon_max"]}
    assert 0 < epsilons.pop() < 50


def test_a_private_weight_is_one(play: Play, fleet: SimulatedFleet) -> None:
    play.privacy = PrivacyPlan(mode="sample", epsilon=50.0, noise_multiplier=2.0)
    for site in fleet.all:
        site.private = True
    fleet["west"].values = lambda header, frame: {  # type: ignore[method-assign]
        "delta/w": np.ones((2, 2), np.float32),
        "delta/b": np.ones(1, np.float32),
        "weight": np.array([10.0]),
    }
    simulated_site.during("prepare", lambda s, h, f: [s.reply(h, f, {}, {})])(fleet["west"])
    west = next(site for site in play.run().result["sites"] if site["name"] == "west")
    assert [found["outcome"] for found in west["rounds"]] == ["invalid"] * 2


def test_a_site_that_cannot_be_reached_is_not_charged(play: Play, fleet: SimulatedFleet) -> None:
    fleet.unreachable.add("west")
    west = next(site for site in play.run().result["sites"] if site["name"] == "west")
    assert (west["prepared"], west["trained"]) == ("unreachable", 0)


def test_no_site_online_fails_after_the_wait(play: Play, fleet: SimulatedFleet) -> None:
    for site in fleet.all:
        site.online = False
    started = fleet.clock.now
    result = play.run().result
    assert result["outcome"] == "failed"
    assert result["reason"].startswith("0 sites online after 5 s, minimum 2; next: ")
    assert fleet.clock.now - started < 7


def test_a_plan_that_nobody_accepts_fails_with_the_reason(play: Play, fleet: SimulatedFleet) -> None:
    for site in fleet.all:
        simulated_site.during(
            "prepare",
            lambda s, h, f: [s.reply(h, f, {}, {}, simulated_site.RefusalCode.POLICY)],
        )(site)
    result = play.run().result
    assert result["outcome"] == "failed"
    assert "the plan was not accepted" in result["reason"]
    assert "policy" in {site["code"] for site in result["sites"]}


def test_patience_ends_the_run(play: Play, fleet: SimulatedFleet) -> None:
    for site in fleet.all:
        simulated_site.silent(site)
    result = play.with_rounds(count=10, patience=3).run().result
    assert result["outcome"] == "failed"
    assert "3 rounds in a row were abandoned" in result["reason"]
    assert [found["outcome"] for found in result["rounds"]] == ["abandoned"] * 3


def test_a_site_that_comes_late_is_prepared_and_takes_part(play: Play, fleet: SimulatedFleet) -> None:
    fleet["west"].online = False

    def arrive(frame: Any) -> None:
        if b'"kind":"train"' in frame.header:
            fleet["west"].online = True

    fleet.on_send = arrive
    result = play.with_rounds(count=3).run().result
    west = next(site for site in result["sites"] if site["name"] == "west")
    assert west["prepared"] == "ok"
    assert [found["number"] for found in west["rounds"]] == [2, 3]


def test_a_site_that_dies_and_comes_back_takes_part_again(play: Play, fleet: SimulatedFleet) -> None:
    west, honest = fleet["west"], fleet["west"].receive
    dead = {2}
    west.receive = lambda frame: [] if _round(frame) in dead and b'"train"' in frame.header else honest(frame)  # type: ignore[method-assign]
    result = play.with_rounds(count=3).run().result
    assert [found["outcome"] for found in result["rounds"]] == ["completed", "degraded", "completed"]


def test_stop_ends_the_run_and_tells_the_sites(play: Play, fleet: SimulatedFleet) -> None:
    play.stopping = lambda: any(header.kind == "train" for header in fleet["north"].seen)
    played = play.with_rounds(count=50).run()
    assert (played.result["outcome"], played.result["reason"]) == ("stopped", "the run was stopped")
    assert fleet["north"].seen[-1].kind == "finish"
    assert fleet["north"].seen[-1].body == {"outcome": "stopped"}


def test_a_stopped_round_is_charged(play: Play, fleet: SimulatedFleet) -> None:
    play.privacy = PrivacyPlan(mode="sample", epsilon=50.0, noise_multiplier=2.0)
    for site in fleet.all:
        site.private = True
        simulated_site.silent(site)
    play.stopping = lambda: any(header.kind == "train" for header in fleet["north"].sent)
    result = play.run().result
    assert result["outcome"] == "stopped"
    assert [site["trained"] for site in result["sites"]] == [1, 1, 1]
    assert result["privacy"]["epsilon_max"] > 0


def test_goal_and_over_selection_ask_more_than_they_need(play: Play, fleet: SimulatedFleet) -> None:
    result = play.with_rounds(goal=2, over_select=1.5).run().result
    assert [(found["asked"], found["participants"], found["outcome"]) for found in result["rounds"]] == [
        (3, 2, "completed")
    ] * 2


def test_evaluate_every_and_the_last_model(play: Play, fleet: SimulatedFleet) -> None:
    play.with_rounds(count=5, evaluate_every=2).run()
    asked = [(h.kind, h.round) for h in fleet["north"].seen if h.kind == "evaluate" or h.body.get("evaluate")]
    assert asked == [("train", 3), ("train", 5), ("evaluate", 5)]


def test_a_release_that_cannot_be_made_fails_the_run_with_its_reason(play: Play) -> None:
    play.publish = Broken(FedsiteError("no release today"))
    result = play.run().result
    assert (result["outcome"], result["reason"]) == ("failed", "no release today")
    assert result["metric"]["global"] is not None


def test_a_defect_is_an_outcome_too(play: Play) -> None:
    play.publish = Broken(KeyError("x"))
    result = play.run().result
    assert result["outcome"] == "failed"
    assert "KeyError" in result["reason"]


def test_a_second_attempt_goes_on_after_the_last_checkpoint(play: Play, fleet: SimulatedFleet) -> None:
    played = play.with_rounds(count=2).run()
    (played.run.checkpoints / "round-0002.json").unlink()
    again = play.with_rounds(count=2).run(epoch=2, again=played.run)
    assert [found["number"] for found in again.result["rounds"]] == [2]
    assert fleet["north"].seen[-1].attempt == 1001


def test_a_diverged_model_is_not_kept(play: Play, fleet: SimulatedFleet) -> None:
    play.strategy = StrategyPlan(options={"server_learning_rate": 10.0})
    for site in fleet.all:
        site.target = 1e38
    result = play.run().result
    assert result["outcome"] == "failed"
    assert "is not finite after round 1" in result["reason"]
    found = checkpoint.latest(play.folder / result["run_id"] / "checkpoints")
    assert found is not None
    assert found[0].round == 0


class Broken:
    """Publishes nothing."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def make(self, *_: Any, **__: Any) -> Any:
        raise self.error

    def deliver(self, *_: Any, **__: Any) -> Any:
        raise self.error


def _round(frame: Any) -> int:
    return int(json.loads(frame.header)["round"])
