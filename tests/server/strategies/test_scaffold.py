"""SCAFFOLD, both ends of it, on one weight: by hand, against plain descent, and where FedAvg drifts away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.client.work.control import VARIATE, Control
from fedsite.protocol import weights
from fedsite.protocol.errors import DocumentError
from fedsite.protocol.messages import CONTROL, DELTA
from fedsite.protocol.plan import (
    CONTROLLED,
    LocalPlan,
    ModelPlan,
    PrivacyPlan,
    RoundPlan,
    RoundsPlan,
    SitePrivacyPlan,
    StrategyPlan,
)
from fedsite.server.strategies.fedavg import FedAvg
from fedsite.server.strategies.scaffold import Scaffold
from fedsite.server.strategies.strategy import ServerState, Strategy, Update

SHAPE = {"w": (1,)}


def plan(local: LocalPlan, **more: object) -> RoundPlan:
    return RoundPlan(
        **{  # type: ignore[arg-type]
            "schema": CONTROLLED,
            "federation": "00",
            "run_id": "r",
            "created": "",
            "task": {},
            "model": ModelPlan(name="mlp"),
            "local": local,
            "strategy": StrategyPlan(name="scaffold", control=True),
            "rounds": RoundsPlan(count=1),
            **more,
        }
    )


@dataclass
class Quadratic:
    """A site whose loss is a/2 (w − t)²: its gradient is a (w − t)."""

    curvature: float
    target: float
    kept: bytes = b""

    def train(self, start: float, control: dict[str, np.ndarray] | None, local: LocalPlan, number: int) -> np.ndarray:
        """So many full steps; returns the update."""
        shift, w = 0.0, np.float64(start)
        if control is not None:
            own = {VARIATE: self.kept} if self.kept else {}
            found = Control.read({CONTROL: weights.encode(control), **own}, SHAPE)
            shift = float(found.correction["w"][0])
        for _ in range(local.steps):
            w -= local.rate(number) * (self.curvature * (w - self.target) + shift)
        delta = np.array([w - start], np.float32)
        if control is not None:
            self.kept = found.after(plan(local), {DELTA + "w": delta}, number)
        return delta

    @property
    def variate(self) -> float:
        return float(weights.decode(self.kept, limit=1000)["w"][0]) if self.kept else 0.0


def run(strategy: Strategy, sites: list[Quadratic], local: LocalPlan, rounds: int, drawn: int = 0) -> ServerState:
    """`drawn` sites in turn each round; all of them when it is 0."""
    state = strategy.init({"w": np.zeros(1)})
    for number in range(1, rounds + 1):
        control = strategy.control(state)
        collected = strategy.aggregator(state, ("w",))
        chosen = sites if not drawn else [sites[(number + step) % len(sites)] for step in range(drawn)]
        for place, site in enumerate(chosen):
            delta = site.train(float(state.params["w"][0]), control, local, number)  # type: ignore[arg-type]
            collected.add(Update(site=str(place), delta={"w": delta}, weight=1.0))
        aggregate = collected.result()
        aggregate = type(aggregate)(
            delta=aggregate.delta, weight=aggregate.weight, count=aggregate.count, sites=aggregate.sites, round=number
        )
        state = strategy.apply(state, aggregate)
    return state


def test_two_rounds_by_hand() -> None:
    """One step of rate 0.1 at gradients −2 and −6: the weight moves to 0.4, c_i are the gradients, c is −4.

    In the second round the gradients are 0.4 − 2 = −1.6, corrected by −4 + 2 to −3.6, and 3 (0.4 − 2) = −4.8, corrected
    by −4 + 6 to −2.8: their mean is −3.2, and the weight moves to 0.72.
    """
    local = LocalPlan(steps=1, sampling_rate=1.0, learning_rate=0.1)
    sites = [Quadratic(1.0, 2.0), Quadratic(3.0, 2.0)]
    scaffold = Scaffold(local=local, sites=2)
    first = run(scaffold, sites, local, 1)
    assert float(first.params["w"][0]) == pytest.approx(0.4)
    assert [site.variate for site in sites] == pytest.approx([-2.0, -6.0])
    assert float(first.memory["c/w"][0]) == pytest.approx(-4.0)
    sites = [Quadratic(1.0, 2.0), Quadratic(3.0, 2.0)]
    second = run(scaffold, sites, local, 2)
    assert float(second.params["w"][0]) == pytest.approx(0.72)
    assert [site.variate for site in sites] == pytest.approx([-1.6, -4.8])
    assert float(second.memory["c/w"][0]) == pytest.approx(-3.2)


def test_one_of_two_sites_moves_c_by_half() -> None:
    """Gradient −2 of one site of two: c = 0 + 1/2 · (−2)."""
    local = LocalPlan(steps=2, sampling_rate=1.0, learning_rate=1e-6)
    state = run(Scaffold(local=local, sites=2), [Quadratic(1.0, 2.0)], local, 1)
    assert float(state.memory["c/w"][0]) == pytest.approx(-1.0, abs=1e-3)
    assert float(state.memory["sites"][0]) == 2


@given(
    curvatures=st.lists(st.floats(0.1, 2), min_size=2, max_size=4),
    steps=st.integers(1, 4),
    drawn=st.integers(0, 2),
    decay=st.sampled_from([1.0, 0.9]),
)
def test_c_is_the_mean_of_what_the_sites_keep(curvatures: list[float], steps: int, drawn: int, decay: float) -> None:
    local = LocalPlan(steps=steps, sampling_rate=1.0, learning_rate=0.1, learning_rate_decay=decay)
    sites = [Quadratic(curvature, place - 1.0) for place, curvature in enumerate(curvatures)]
    state = run(Scaffold(local=local, sites=len(sites)), sites, local, 5, drawn)
    assert float(state.memory["c/w"][0]) == pytest.approx(np.mean([site.variate for site in sites]), abs=1e-4)


@given(curvature=st.floats(0.1, 2), target=st.floats(-3, 3), steps=st.integers(1, 5))
def test_sites_that_are_alike_descend_as_one(curvature: float, target: float, steps: int) -> None:
    """c − c_i is 0 at each of them: SCAFFOLD is plain SGD of K steps a round, whatever η_g = 1 averages."""
    local = LocalPlan(steps=steps, sampling_rate=1.0, learning_rate=0.1)
    state = run(Scaffold(local=local, sites=3), [Quadratic(curvature, target) for _ in range(3)], local, 3)
    w = 0.0
    for _ in range(3 * steps):
        w -= 0.1 * curvature * (w - target)
    assert float(state.params["w"][0]) == pytest.approx(w, abs=1e-4)


def test_fedavg_drifts_away_from_the_optimum_and_scaffold_does_not() -> None:
    """Curvatures 1 and 9, targets 0 and 1: the mean loss is least at 9/10; FedAvg's many steps pull to the middle."""
    local = LocalPlan(steps=20, sampling_rate=1.0, learning_rate=0.1)
    far = run(FedAvg(), [Quadratic(1.0, 0.0), Quadratic(9.0, 1.0)], local, 60)
    near = run(Scaffold(local=local, sites=2), [Quadratic(1.0, 0.0), Quadratic(9.0, 1.0)], local, 60)
    assert abs(float(far.params["w"][0]) - 0.9) > 0.3
    assert float(near.params["w"][0]) == pytest.approx(0.9, abs=1e-3)
    sites = [Quadratic(1.0, 0.0), Quadratic(9.0, 1.0), Quadratic(1.0, 0.0), Quadratic(9.0, 1.0)]
    some = run(Scaffold(local=local, sites=4), sites, local, 200, drawn=2)
    assert float(some.params["w"][0]) == pytest.approx(0.9, abs=1e-2)


def test_sites_that_come_later_shrink_c() -> None:
    """c = −2 over one site; with three more that keep 0 it is the mean −0.5, and the round's own change on top."""
    local = LocalPlan(steps=1, sampling_rate=1.0, learning_rate=1e-6)
    state = run(Scaffold(local=local), [Quadratic(1.0, 2.0)], local, 1)
    assert float(state.memory["c/w"][0]) == pytest.approx(-2.0, abs=0.2)
    four = Scaffold(local=local, sites=4)
    collected = four.aggregator(state, ("w",))
    # A second round of that site whose gradient is still −2: corrected by c − c_i = 0.
    collected.add(Update(site="a", delta={"w": np.array([2e-6])}, weight=1.0))
    result = collected.result()
    moved = four.apply(state, type(result)(delta=result.delta, weight=1.0, count=1, sites=1, round=2))
    assert float(moved.memory["c/w"][0]) == pytest.approx(-0.5, abs=0.05)


def test_it_needs_to_know_the_round() -> None:
    local = LocalPlan(steps=1, sampling_rate=1.0)
    scaffold = Scaffold(local=local)
    state = scaffold.init({"w": np.zeros(1)})
    collected = scaffold.aggregator(state, ("w",))
    collected.add(Update(site="a", delta={"w": np.ones(1)}, weight=1.0))
    with pytest.raises(ValueError, match="round 0"):
        scaffold.apply(state, collected.result())


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"local": LocalPlan(steps=1, sampling_rate=1.0, momentum=0.9)}, "momentum 0.9"),
        ({"local": LocalPlan(steps=1, sampling_rate=1.0, optimizer="adam")}, "optimizer adam"),
        ({"local": LocalPlan(steps=1, sampling_rate=1.0, learning_rate=0.0)}, "above 0"),
        ({"schema": "fedsite.plan/1"}, "with strategy.control True"),
        ({"strategy": StrategyPlan()}, "with strategy.control False"),
    ],
)
def test_plans_that_cannot_work_are_refused_by_whoever_reads_them(more: dict[str, object], text: str) -> None:
    with pytest.raises(DocumentError, match=text):
        plan(**{"local": LocalPlan(steps=1, sampling_rate=1.0), **more})  # type: ignore[arg-type]


def test_an_update_that_is_clipped_whole_is_no_sum_of_gradients() -> None:
    site = PrivacyPlan(mode="site", site=SitePrivacyPlan(noise_multiplier=1.0))
    with pytest.raises(DocumentError, match="privacy site"):
        plan(LocalPlan(steps=1, sampling_rate=1.0), privacy=site)


def test_other_plans_are_written_as_before_and_this_one_by_another_name() -> None:
    local = LocalPlan(steps=1, sampling_rate=1.0)
    before = plan(local, schema="fedsite.plan/1", strategy=StrategyPlan())
    assert b"control" not in before.encode()
    assert RoundPlan.parse(before.encode()) == before
    asked = plan(local)
    assert b'"schema":"fedsite.plan/2"' in asked.encode()
    assert RoundPlan.parse(asked.encode()) == asked
    assert not asked.weighted
    assert before.weighted
