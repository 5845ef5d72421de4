"""What a strategy makes of a plan: FedProx's μ, control variates and what they cost, and what cannot go together."""

from __future__ import annotations

import dataclasses

import pytest

from fedsite.protocol import documents, weights
from fedsite.protocol.errors import ConfigError, DocumentError, RefusalCode
from fedsite.protocol.plan import RoundPlan
from fedsite.server.plans import planning
from fedsite.server.plans.planning import Planned
from fedsite.server.settings import choices, compose
from fedsite.server.strategies import registry

OPEN = ("task=pump", "privacy=none")


def make(*overrides: str) -> Planned:
    return planning.make(compose([*OPEN, *overrides]), "0" * 32, sites=6)


@pytest.mark.parametrize("name", choices("strategy"))
def test_every_strategy_makes_a_plan_that_both_ends_read(name: str) -> None:
    found = make(f"strategy={name}", "protection=sealed").plan
    assert RoundPlan.parse(found.encode()) == found
    assert found.strategy.control == (name == "scaffold")
    assert name in registry.names()


def test_fedprox_brings_its_pull_and_an_override_wins() -> None:
    assert make("strategy=fedprox").plan.local.proximal == 0.1
    assert make("strategy=fedprox", "local.proximal=0.02").plan.local.proximal == 0.02
    assert make("strategy=fedadam", "local.proximal=0.02").plan.local.proximal == 0.02
    assert make().plan.local.proximal == 0.0


@pytest.mark.parametrize(
    ("overrides", "found", "hint"),
    [
        (["strategy=fedprox", "local.proximal=0"], "with local.proximal 0", "strategy=fedavg"),
        (["local.proximal=0.5"], "that is FedProx", "strategy=fedprox local.proximal=0.5"),
        (["strategy=scaffold", "local.momentum=0.9"], "with momentum 0.9", "local.momentum=0"),
        (["strategy=scaffold", "local.optimizer=adam"], "with optimizer adam", "local.optimizer=sgd"),
        (["strategy=scaffold", "privacy=site"], "with privacy site", "privacy=sample"),
        (["strategy=scaffold", "privacy=both"], "with privacy both", "privacy=sample"),
        (["strategy=scaffold", "strategy.options.beta=1"], "unknown strategy.options.beta", "launch --help"),
        (["strategy=krum"], "compares single updates", "strategy=median"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(overrides: list[str], found: str, hint: str) -> None:
    with pytest.raises(ConfigError) as error:
        make(*overrides)
    assert found in error.value.found
    assert hint in (error.value.next_step or "")


@pytest.mark.parametrize("mode", ["secagg", "sealed", "none"])
def test_what_goes_down_beside_the_model_is_foreseen(mode: str) -> None:
    """One float32 a trained parameter, and up goes what went up."""
    plain, found = make(f"protection={mode}"), make(f"protection={mode}", "strategy=scaffold")
    control = len(weights.encode({name: found.initial[name] for name in found.trained}))
    # A sum's manifest is a little shorter: no weight is sent where each site counts the same.
    shorter = 200 if mode == "secagg" else 0
    assert control - shorter <= found.plan.cost.bytes_down - plain.plan.cost.bytes_down <= control
    rounds = found.plan.rounds.count
    foreseen = found.forecast()["bytes_down"] - plain.forecast()["bytes_down"]
    assert rounds * (control - shorter) <= foreseen <= rounds * control
    assert plain.plan.cost.bytes_up - 200 <= found.plan.cost.bytes_up <= plain.plan.cost.bytes_up
    head = make(f"protection={mode}", "strategy=scaffold", "model.trainable=head")
    assert head.plan.cost.bytes_down < found.plan.cost.bytes_down


def test_a_release_that_knows_no_control_variates_says_so_by_name() -> None:
    """Its reader is this one with only the first schema."""
    with pytest.raises(DocumentError, match=r"fedsite\.plan/2") as error:
        documents.document(make("strategy=scaffold").plan.encode(), "fedsite.plan/1")
    assert error.value.refusal == RefusalCode.PROTOCOL_VERSION
    assert "upgrade" in (error.value.next_step or "")


def test_a_plan_is_the_same_run_again_whatever_its_cost_and_another_one_with_another_strategy() -> None:
    plan = make("strategy=scaffold").plan
    assert plan.recipe == dataclasses.replace(plan, run_id="01M7YRWEE82F0HP7GJSB7AHSSF").recipe
    assert plan.recipe != make().plan.recipe
