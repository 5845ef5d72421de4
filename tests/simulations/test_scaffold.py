"""SCAFFOLD in the engine is SCAFFOLD at real sites: same plan, same data, same draws, same model, same c."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedsite.client.work import rounds as work
from fedsite.client.work.control import VARIATE, Control
from fedsite.protocol import weights as encoding
from fedsite.protocol.messages import CONTROL, DELTA, WEIGHT
from fedsite.protocol.plan import CONTROLLED, LocalPlan, PrivacyPlan, RoundPlan, StrategyPlan
from fedsite.server.strategies.strategy import ServerState, Update
from fedsite.simulations.engine import Scale, simulate
from fedsite.simulations.runs.material import Material, material
from fedsite.simulations.vectorised.job import Layout
from tests.simulated_jobs import Drawn, weights
from tests.simulations.runs.test_material import OPEN, PRIVATE, plan, site


def controlled(privacy: PrivacyPlan) -> RoundPlan:
    return dataclasses.replace(
        plan(privacy),
        schema=CONTROLLED,
        local=LocalPlan(steps=3, sampling_rate=0.4, weight_decay=0.01, learning_rate_decay=0.8),
        strategy=StrategyPlan(name="scaffold", control=True),
    )


def real_run(given: Material) -> ServerState:
    """What three sites and a server do, without a network."""
    strategy, names = given.strategy, Layout.of(given.job.module()).names
    state = strategy.init(weights(given.job))
    shapes = {name: state.params[name].shape for name in names}
    kept: dict[int, dict[str, bytes]] = {}
    for number in (1, 2, 3):
        aggregator, control = strategy.aggregator(state, names), strategy.control(state)
        assert control is not None
        sent = {CONTROL: encoding.encode({name: control[name] for name in names})}  # type: ignore[misc]
        for place, data in enumerate(given.sites.values()):
            own = Control.read({**sent, **kept.get(place, {})}, shapes)
            source = Drawn(given.plan.seed, number, place)
            found = work.train_round(
                given.plan, data, state.params, given.normalisation, False, source, number, simulated=True,
                correction=own.correction,
            )  # fmt: skip
            kept[place] = {VARIATE: own.after(given.plan, found, number)}
            delta = {name.removeprefix(DELTA): array for name, array in found.items() if name.startswith(DELTA)}
            aggregator.add(Update(site=str(place), delta=delta, weight=float(found[WEIGHT][0])))
        state = strategy.apply(state, dataclasses.replace(aggregator.result(), round=number))
    return state


@pytest.mark.parametrize("privacy", [OPEN, PRIVATE], ids=["open", "private"])
def test_a_run_ends_where_that_of_real_sites_ends(privacy: PrivacyPlan) -> None:
    given = material(controlled(privacy), {name: site(seed) for seed, name in enumerate("abc")})
    scale = Scale(rounds=3, cohort=3, executor="batched", evaluate_every=3)
    found = simulate(given.job, given.population, given.strategy, scale)
    wanted, layout = real_run(given), Layout.of(given.job.module())
    off = np.linalg.norm(layout.flat(found.params) - layout.flat(wanted.params))
    assert off <= 1e-5 * np.linalg.norm(layout.flat(wanted.params) - layout.flat(weights(given.job)))
    for name in layout.names:
        np.testing.assert_allclose(found.state.memory[f"c/{name}"], wanted.memory[f"c/{name}"], rtol=1e-3, atol=1e-4)
    assert [done.weight for done in found.rounds] == [3] * 3
