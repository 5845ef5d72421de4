"""Secure sums over the real transport, one site killed in each stage in turn: exact, or abandoned by name."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fedsite.server.runs import checkpoint
from tests.e2e.toy_federation import LONGEST_S, Toys, Watch

pytestmark = pytest.mark.slow  # a site that is gone is noticed by its heartbeat

SITES = ("anna", "bert", "carl")
BOUNDS = ("rounds.deadline_s=25", "protection.stage_s=8", "rounds.wait_s=90")
# Where a site dies, and whether it is in the sum: its vector has to have left.
PLACES = [
    ("train.share", "after"),
    ("train", "after"),
    ("train.unmask", "before"),
    ("train.unmask", "after"),
]


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toys]:
    """Three sites that keep copies of what they release."""
    with Toys(tmp_path_factory.mktemp("sums")) as running:
        for name in SITES:
            running.prepare_site(name)
            running.start_recorded(name)
        running.wait_online(*SITES)
        yield running


def test_a_sum_that_is_not_tried_again_is_abandoned_by_name(toys: Toys) -> None:
    carl = toys.restart_recorded("carl", place="train", moment="before")
    run = toys.launch("rounds.count=2", "protection.retries=0", *BOUNDS)
    watch = toys.watch(run)
    carl.wait(timeout=LONGEST_S)
    toys.start_recorded("carl")
    assert watch.finished()["outcome"] == "completed", watch.events
    rounds = toys.result(run)["rounds"]
    assert [found["outcome"] for found in rounds] == ["abandoned", "completed"]
    assert rounds[0]["reason"].startswith("mask: 2 of 3 sites answered")
    _exact(toys, watch, run)


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_a_site_killed_in_any_stage_costs_a_stage_and_never_the_sum(toys: Toys, place: tuple[str, str]) -> None:
    stage, moment = place
    carl = toys.restart_recorded("carl", place=stage, moment=moment)
    run = toys.launch("rounds.count=1", *BOUNDS)
    watch = toys.watch(run)
    carl.wait(timeout=LONGEST_S)
    toys.start_recorded("carl")
    assert watch.finished()["outcome"] == "completed", watch.events
    first = watch.until(lambda event: event["kind"] == "round_finished")
    assert (first["outcome"], first["participants"]) == ("completed", 3), first
    _exact(toys, watch, run)
    _nobody_answers_twice(watch)


def test_scaffold_over_the_real_server(toys: Toys) -> None:
    """With everybody in each round, c after round r is −(w_r − w_r−1) / (K η).

    All three sites have the same data: but for rounding to the grid nothing is corrected, and updates are the same.
    """
    local = ("local.sampling_rate=1.0", "local.steps=2", "local.learning_rate=0.1")
    run = toys.launch("strategy=scaffold", "rounds.count=2", *local, *BOUNDS)
    watch = toys.watch(run)
    assert watch.finished()["outcome"] == "completed", watch.events
    _exact(toys, watch, run)
    _nobody_answers_twice(watch)
    folder = toys.home / "server" / "runs" / run / "checkpoints"
    states = [checkpoint.load(folder / f"round-{number:04d}.safetensors")[1] for number in range(3)]
    for number in (1, 2):
        for name, before in states[number - 1].params.items():
            step = np.asarray(states[number].params[name], np.float64) - before
            np.testing.assert_allclose(states[number].memory[f"c/{name}"], -step / 0.2, rtol=1e-3, atol=1e-4)
    done = toys.released("anna", run, "train", 2)
    np.testing.assert_allclose(done.astype(np.int32), toys.released("bert", run, "train", 2).astype(np.int32), atol=64)


@pytest.mark.parametrize("count", [10, pytest.param(30, marks=pytest.mark.long)])
def test_a_large_cohort_loses_a_site_in_every_stage(count: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    names = [f"site-{number:02}" for number in range(count)]
    with Toys(tmp_path_factory.mktemp(f"sums-{count}")) as toys:
        for name in names:
            toys.prepare_site(name)
        for number, name in enumerate(names, start=1):
            place, moment = PLACES[number - 1] if number <= len(PLACES) else ("-", "before")
            toys.start_recorded(name, place=place, moment=moment, number=number)
        toys.wait_online(*names, timeout_s=300)
        bounds = ("rounds.deadline_s=150", "protection.stage_s=40", "rounds.wait_s=120")
        run = toys.launch(f"rounds.count={len(PLACES)}", *bounds)
        watch = toys.watch(run, longest_s=600)
        assert watch.finished()["outcome"] == "completed", watch.events
        rounds = toys.result(run)["rounds"]
        # A site that dies before its vector is sent is not in the sum; one that dies later is.
        lost = [1, 1, 0, 0]
        gone = np.cumsum([0, *[1] * (len(PLACES) - 1)])
        expected = [count - int(before) - now for before, now in zip(gone, lost, strict=True)]
        assert [found["participants"] for found in rounds] == expected
        _exact(toys, watch, run)
        _nobody_answers_twice(watch)


def _exact(toys: Toys, watch: Watch, run: str) -> None:
    """The sum that was opened is that of what the sites in it released, word for word."""
    sums = [event for event in watch.events if event["kind"] == "sum" and event["outcome"] == "opened"]
    assert "train" in {event["purpose"] for event in sums}
    for event in sums:
        released = [toys.released(name, run, event["purpose"], event["round"]) for name in event["u3"]]
        total = np.sum(released, axis=0, dtype=np.uint32)
        assert hashlib.sha256(total.tobytes()).hexdigest() == event["total"], event


def _nobody_answers_twice(watch: Watch) -> None:
    replies: Counter[tuple[Any, ...]] = Counter(
        (event["phase"], event.get("purpose"), event["round"], event["attempt"], event["site"])
        for event in watch.events
        if event["kind"] == "reply" and event["outcome"] == "ok"
    )
    assert set(replies.values()) == {1}, replies
