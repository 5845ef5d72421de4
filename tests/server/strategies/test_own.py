"""A strategy of one's own: named by a plan when a package brings it, passed to a simulation as it is."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsite.protocol.errors import ConfigError
from fedsite.protocol.plan import LocalPlan
from fedsite.server.plans import planning
from fedsite.server.settings import compose
from fedsite.server.strategies import registry
from fedsite.server.strategies.strategy import Update
from fedsite.simulations.engine import Scale, simulate
from tests.own_strategy import Restarting
from tests.simulated_jobs import job, population

LOCAL = LocalPlan(steps=1, sampling_rate=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowing(Restarting):
    """Has both of the fields that are no options."""

    local: LocalPlan
    sites: int


def no_dataclass() -> None:
    """Not a strategy."""


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with these entry points."""
    found = [
        EntryPoint(name, value, registry.GROUP)
        for name, value in {
            "restarting": "tests.own_strategy:Restarting",
            "knowing": f"{__name__}:Knowing",
            "fedavg": "tests.own_strategy:Restarting",
            "gone": "no_such_package:Strategy",
            "odd": f"{__name__}:no_dataclass",
        }.items()
    ]
    here = {f"{__name__}:Knowing": Knowing, f"{__name__}:no_dataclass": no_dataclass}
    load = EntryPoint.load
    monkeypatch.setattr(registry, "entry_points", lambda group: found if group == registry.GROUP else [])
    monkeypatch.setattr(EntryPoint, "load", lambda self: here.get(self.value) or load(self))


def test_a_plan_names_it() -> None:
    assert "restarting" in registry.names()
    assert registry.installed() == ["gone", "knowing", "odd", "restarting"]
    asked = compose(["task=pump", "strategy=restarting", "strategy.options.beta=0.25", "privacy=none"])
    plan = planning.make(asked, "0" * 32).plan
    assert (plan.strategy.name, plan.strategy.options, plan.strategy.control) == ("restarting", {"beta": 0.25}, False)
    built = registry.build(plan.strategy.name, plan.strategy.options, local=plan.local)
    assert built == Restarting(beta=0.25)


def test_it_is_told_what_it_has_fields_for() -> None:
    built: Any = registry.build("knowing", {"beta": 0.5}, local=LOCAL, sites=7)
    assert (built.local, built.sites) == (LOCAL, 7)


def test_a_shipped_name_stays_ours() -> None:
    assert type(registry.build("fedavg", {}, local=LOCAL)).__name__ == "FedAvg"


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("restartin", {}, "did you mean restarting"),
        ("restarting", {"beta": 1.0}, "from 0, below 1"),
        ("restarting", {"bet": 0.1}, "did you mean beta"),
        ("gone", {}, "cannot be loaded"),
        ("odd", {}, "no dataclass"),
    ],
)
def test_what_cannot_be_used_is_refused(name: str, options: dict[str, float], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        registry.build(name, options, local=LOCAL)


def test_by_hand() -> None:
    """Two parameters, updates (1, 1) and then (1, −1): m is (1.5, −1), so that the weights are (2.5, 0)."""
    strategy = Restarting()
    state = strategy.init({"w": np.zeros(2)})
    for delta in ([1.0, 1.0], [1.0, -1.0]):
        collected = strategy.aggregator(state, ("w",))
        collected.add(Update(site="a", delta={"w": np.array(delta)}, weight=1.0))
        state = strategy.apply(state, collected.result())
    assert state.params["w"].tolist() == [2.5, 0.0]


def test_a_simulation_takes_it_as_an_object() -> None:
    asked = job()
    found = simulate(asked, population("value"), Restarting(), Scale(rounds=3, cohort=3, executor="batched"))
    assert len(found.rounds) == 3
    assert any(name.startswith("m/") for name in found.state.memory)


def test_the_docs_show_it_as_it_is() -> None:
    root = Path(__file__).parents[3]
    code = (root / "tests" / "own_strategy.py").read_text().partition("from __future__")[2]
    assert code in (root / "docs" / "research.md").read_text()
    assert len(code.splitlines()) < 60
