"""A run through Flower's simulation ends where the vectorised engine ends, and says what its messages weigh."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fedsite.client.work import rounds as work
from fedsite.protocol.errors import ConfigError, PolicyError
from fedsite.protocol.messages import DELTA, WEIGHT
from fedsite.protocol.plan import LocalPlan, ModelPlan, PrivacyPlan, ProtectionPlan, RoundPlan, RoundsPlan, StrategyPlan
from fedsite.protocol.secagg import fixedpoint
from fedsite.server.strategies.strategy import Update
from fedsite.server.sums import fields
from fedsite.simulations.engine import Round, Scale, simulate
from fedsite.simulations.flower import engine as flower_engine
from fedsite.simulations.flower.site import source
from fedsite.simulations.runs.material import Material, material
from fedsite.simulations.vectorised.job import Epochs, Layout, Weights
from fedsite.telemetry.dataset import SiteData, Windows
from fedsite.telemetry.loading import load_site
from fedsite.telemetry.location import DataLocation
from fedsite.telemetry.task import load_task, read_task
from tests.simulated_jobs import weights

PRIVATE = PrivacyPlan(mode="sample", noise_multiplier=1.0, batch=8.0, clip=0.5, statistics_noise=20.0)
OPEN, SECURE = ProtectionPlan(mode="none"), ProtectionPlan(mode="secagg", sites=4)


NEEDED = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Flower's simulation needs Ray: pip install 'fedsite[sim]'"
)


def pumps(count: int, privacy: PrivacyPlan | None = None, protection: ProtectionPlan = OPEN, **more: Any) -> Material:
    """A plan for the synthetic pumps, a few windows of each."""
    task = load_task("pump")
    plan = RoundPlan(
        federation="00" * 16,
        run_id="0" * 26,
        created="2026-01-01T00:00:00Z",
        task=task.document,
        model=ModelPlan(name=task.model.name, options=dict(task.model.options)),
        local=LocalPlan(steps=3, sampling_rate=0.2, learning_rate=0.05, **more),
        privacy=privacy or PrivacyPlan(),
        protection=protection,
        rounds=RoundsPlan(count=2),
        seed=5,
    )
    return material(
        plan, {f"pump-{site}": few(load_site(task, DataLocation(site=site)), site) for site in range(count)}
    )


def few(data: SiteData, site: int) -> SiteData:
    """40 windows, and some more of later sites."""

    def part(windows: Windows) -> Windows:
        return windows.take(np.arange(min(40 + 5 * site, len(windows))))

    return dataclasses.replace(data, train=part(data.train), holdout=part(data.holdout))


def off(given: Material, found: Weights, wanted: Weights) -> float:
    """How far apart two models are, relative to how far training went."""
    layout = Layout.of(given.job.module())
    moved = np.linalg.norm(layout.flat(wanted) - layout.flat(weights(given.job)))
    return float(np.linalg.norm(layout.flat(found) - layout.flat(wanted)) / moved)


def summed(given: Material) -> Weights:
    """What sites and server do in a secure sum but for the masks: whole numbers on the sum's grid, added up."""
    plan, names = given.plan, Layout.of(given.job.module()).names
    task, state = read_task(plan.task), given.strategy.init(weights(given.job))
    scale = given.normalisation
    for number in range(1, plan.rounds.count + 1):
        expected = fields.train_values(plan, task, state.params, names, evaluate=False)
        terms = fields.manifest(plan, "train", expected)
        total = np.zeros(terms.words, np.int64)
        for place, data in enumerate(given.sites.values()):
            drawn = source(place, data, given.job, "train", number, False)
            values = work.train_round(plan, data, state.params, scale, False, drawn, number, simulated=True)
            total += fixedpoint.encode(terms.fields, values, terms.scales, sites=terms.sites, weight=1.0)
        opened = fields.decode(plan, terms, fixedpoint.to_ring(total), len(given.sites))
        aggregator = given.strategy.aggregator(state, names)
        delta = {name.removeprefix(DELTA): value for name, value in opened.items() if name.startswith(DELTA)}
        aggregator.add(Update(site="sum", delta=delta, weight=float(opened[WEIGHT][0]), sites=len(given.sites)))
        state = given.strategy.apply(state, dataclasses.replace(aggregator.result(), round=number))
    return state.params


@pytest.mark.slow
@NEEDED
def test_an_open_run_ends_where_the_loop_ends() -> None:
    given, told, sent = pumps(5, momentum=0.5), [], []

    def heard(found: Sequence[Any]) -> None:
        sent.extend(found)

    scale = Scale(rounds=2, cohort=3, evaluate_every=2)
    found = flower_engine.simulate(given, scale, judge=given.judge, tell=told.append, traffic=heard)
    for executor in ("loop", "batched"):
        vectorised = dataclasses.replace(scale, executor=executor)
        wanted = simulate(given.job, given.population, given.strategy, vectorised, judge=given.judge)
        assert off(given, found.params, wanted.params) <= 1e-5
    facts = [(done.drawn, done.sites, done.weight, done.outcome) for done in wanted.rounds]
    assert [(done.drawn, done.sites, done.weight, done.outcome) for done in found.rounds] == facts
    assert found.rounds[-1].metric == pytest.approx(wanted.rounds[-1].metric, rel=1e-5)
    assert (found.executor, found.rounds) == ("flower", tuple(told))
    by_kind = {one.kind: one for one in sent}
    model = 4 * Layout.of(given.job.module()).size
    assert (by_kind["prepare"].messages, by_kind["train"].messages) == (5, 6)
    assert model < by_kind["train"].bytes_down < model + 4000 > by_kind["train"].bytes_up - model > 0


@pytest.mark.slow
@NEEDED
def test_a_private_run_ends_where_the_loop_ends() -> None:
    given = pumps(3, PRIVATE, ProtectionPlan(mode="sealed"))
    scale = Scale(rounds=2, cohort=3, executor="loop")
    found = flower_engine.simulate(given, scale)
    wanted = simulate(given.job, given.population, given.strategy, scale)
    assert off(given, found.params, wanted.params) <= 1e-5
    assert [done.weight for done in found.rounds] == [3, 3]


@pytest.mark.slow
@NEEDED
def test_a_secure_sum_through_flower_is_the_sum_of_whole_numbers() -> None:
    """Masks, keys and stages of the protocol, Flower and Ray in between change no bit of what was summed."""
    privacy = PrivacyPlan(mode="sample", noise_multiplier=1.0, batch=8.0, clip=0.5)  # statistics from the schema
    given = pumps(4, privacy, SECURE)
    told: list[Round] = []
    found = flower_engine.simulate(given, Scale(rounds=2, cohort=4), tell=told.append)
    layout = Layout.of(given.job.module())
    assert layout.flat(found.params).tolist() == layout.flat(summed(given)).tolist()
    wanted = simulate(given.job, given.population, given.strategy, Scale(rounds=2, cohort=4, executor="loop"))
    assert off(given, found.params, wanted.params) <= 1e-4
    assert len(told) == 2


@pytest.mark.slow
@NEEDED
def test_control_variates_of_real_sites_are_those_of_the_engine() -> None:
    given = pumps(3)
    controlled = StrategyPlan(name="scaffold", control=True)
    given = material(dataclasses.replace(given.plan, schema="fedsite.plan/2", strategy=controlled), given.sites)
    scale = Scale(rounds=3, cohort=3, executor="loop")
    found = flower_engine.simulate(given, scale)
    wanted = simulate(given.job, given.population, given.strategy, scale)
    assert off(given, found.params, wanted.params) <= 1e-5


def test_batches_that_no_real_site_draws_are_refused() -> None:
    given = pumps(1)
    given = dataclasses.replace(given, job=dataclasses.replace(given.job, epochs=Epochs(batch=4)))
    with pytest.raises(ConfigError, match=r"epochs with simulation.engine flower"):
        flower_engine.simulate(given, Scale(rounds=1, cohort=1))


@pytest.mark.slow  # an accountant's imports
def test_a_plan_that_no_site_would_agree_to_is_refused_with_the_reason() -> None:
    given = pumps(3, dataclasses.replace(PRIVATE, epsilon=0.1))
    with pytest.raises(
        PolicyError, match=r"the plan claims ε 0.1 per window and costs [\d.]+; allowed: a claim that is"
    ):
        flower_engine.simulate(given, Scale(rounds=1, cohort=3))
