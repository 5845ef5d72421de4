"""A run of the vectorised engine is the run that sites would make: same plan, same data, same draws, same model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedsite.client.work import rounds as work
from fedsite.protocol.messages import DELTA, WEIGHT
from fedsite.protocol.plan import LocalPlan, ModelPlan, PrivacyPlan, RoundPlan, RoundsPlan
from fedsite.server.strategies.strategy import Update
from fedsite.simulations.engine import Scale, simulate
from fedsite.simulations.runs.material import Material, material
from fedsite.simulations.vectorised.job import Layout, Weights
from fedsite.telemetry.dataset import SiteData, Windows
from fedsite.telemetry.task import read_task
from tests.simulated_jobs import Drawn, weights

TASK = {
    "schema": "fedsite.task/1",
    "name": "toy",
    "data": {"source": "file", "file": "toy.csv", "format": "csv", "entity": "machine", "time": "t"},
    "channels": [
        {"name": "a", "unit": "1", "minimum": -1.0, "maximum": 1.0},
        {"name": "b", "unit": "1", "minimum": 0.0, "maximum": 10.0},
    ],
    "window": {"length": 2},
    "label": {"kind": "column", "column": "y", "maximum": 10, "scale": 10},
    "split": {"kind": "column", "column": "split", "train": "train", "holdout": "test"},
    "model": {"name": "mlp", "options": {"hidden": [3]}},
    "loss": "mse",
    "metric": {"name": "rmse", "better": "lower", "unit": "1", "maximum": 10},
}
OPEN, PRIVATE = PrivacyPlan(), PrivacyPlan(mode="sample", noise_multiplier=0.5, batch=4.0, statistics_noise=2.0)


def plan(privacy: PrivacyPlan, **more: Any) -> RoundPlan:
    return RoundPlan(
        federation="00",
        run_id="r",
        created="",
        task=read_task(TASK).document,
        model=ModelPlan(name="mlp", options={"hidden": [3]}),
        local=LocalPlan(steps=3, sampling_rate=0.4, momentum=0.5, learning_rate_decay=0.8),
        privacy=privacy,
        rounds=RoundsPlan(count=3),
        seed=11,
        **more,
    )


def site(seed: int) -> SiteData:
    rng = np.random.default_rng(seed)
    count = 8 + 5 * seed
    x = np.stack([rng.uniform(-1, 1, (count, 2)), rng.uniform(0, 10, (count, 2))], axis=-1).astype(np.float32)
    windows = Windows(
        x=x,
        y=x.sum((1, 2)),
        entity=np.zeros(count, np.int64),
        entities=("m",),
        time=np.arange(count) * 1.0,
    )
    bounds = np.array([[-1, 0], [1, 10]], np.float32)
    return SiteData(
        train=windows, holdout=windows, features=("a", "b"), minimum=bounds[0], maximum=bounds[1], overlap=1
    )


def real_run(given: Material) -> Weights:
    """What three sites and a server do, without a network."""
    strategy, names = given.strategy, Layout.of(given.job.module()).names
    state = strategy.init(weights(given.job))
    for number in (1, 2, 3):
        aggregator = strategy.aggregator(state, names)
        for place, data in enumerate(given.sites.values()):
            source = Drawn(given.plan.seed, number, place)
            found = work.train_round(
                given.plan, data, state.params, given.normalisation, False, source, number, simulated=True
            )
            delta = {name.removeprefix(DELTA): array for name, array in found.items() if name.startswith(DELTA)}
            aggregator.add(Update(site=str(place), delta=delta, weight=float(found[WEIGHT][0])))
        state = strategy.apply(state, aggregator.result())
    return state.params


@pytest.mark.parametrize("privacy", [OPEN, PRIVATE], ids=["open", "private"])
def test_a_run_ends_where_that_of_real_sites_ends(privacy: PrivacyPlan) -> None:
    given = material(plan(privacy), {name: site(seed) for seed, name in enumerate("abc")})
    scale = Scale(rounds=3, cohort=3, executor="batched", evaluate_every=3)
    found = simulate(given.job, given.population, given.strategy, scale, judge=given.judge)
    wanted, layout = real_run(given), Layout.of(given.job.module())
    off = np.linalg.norm(layout.flat(found.params) - layout.flat(wanted))
    assert off <= 1e-5 * np.linalg.norm(layout.flat(wanted) - layout.flat(weights(given.job)))
    assert found.rounds[-1].metric == pytest.approx(given.judge(wanted), rel=1e-5)
    assert [done.weight for done in found.rounds] == [39 if privacy is OPEN else 3] * 3


def test_statistics_are_the_pooled_ones() -> None:
    given = material(plan(OPEN), {name: site(seed) for seed, name in enumerate("abc")})
    assert np.abs(given.population.x.mean((0, 1))).max() < 1e-5
    assert np.abs(given.population.x.std((0, 1)) - 1).max() < 1e-4
    assert len(given.population) == 3
