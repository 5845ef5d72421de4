"""Plans: the task's recommendation laid under, noise solved for all releases together, cost foreseen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsite.privacy.accounting import epsilon
from fedsite.privacy.spending import spends_of
from fedsite.protocol import weights
from fedsite.protocol.errors import BudgetError, ConfigError, IntegrityError
from fedsite.server.plans import planning
from fedsite.server.plans.planning import Planned
from fedsite.server.settings import choices, compose
from fedsite.telemetry.task import load_task

FEDERATION = "0" * 32


def make(*overrides: str) -> Planned:
    return planning.make(compose(overrides), FEDERATION)


def test_private_recommendations_lie_over_the_plain_ones() -> None:
    task = load_task("engine_rul")
    plain = planning.recommendation(task, private=False)
    private = planning.recommendation(task, private=True)
    assert plain["rounds"] == task.training.rounds
    assert private["rounds"] == task.training.private["rounds"]
    assert private["local"] == {**task.training.local, **task.training.private["local"]}
    assert "local" in task.training.private  # the task itself is not changed


@pytest.mark.parametrize("name", choices("experiment"))
def test_every_experiment_makes_a_plan_that_keeps_its_claim(name: str) -> None:
    plan = make(f"experiment={name}").plan
    assert plan.privacy.epsilon is not None
    assert plan.cost.epsilon is not None
    assert 0.9 * plan.privacy.epsilon < plan.cost.epsilon <= plan.privacy.epsilon


def test_overrides_win() -> None:
    plan = make(
        "task=pump", "privacy=none", "rounds.count=3", "local.learning_rate=0.125", "rounds.evaluate_every=2"
    ).plan
    assert (plan.rounds.count, plan.local.learning_rate, plan.rounds.evaluate_every) == (3, 0.125, 2)
    assert plan.local.steps == load_task("pump").training.local["steps"]


def test_the_noise_meets_the_target_over_everything_that_is_released() -> None:
    planned = make(
        "task=pump", "privacy=sample", "privacy.epsilon=4", "privacy.accountant=rdp", "rounds.count=4",
        "rounds.evaluate_every=2", "privacy.statistics_noise=20", "privacy.evaluation_noise=30",
        "privacy.calibration_noise=25",
    )  # fmt: skip
    plan = planned.plan
    spends = spends_of(
        noise_multiplier=plan.privacy.noise_multiplier,
        sampling_rate=plan.local.sampling_rate,
        steps=plan.local.steps,
        rounds=4,
        statistics_noise=20.0,
        evaluation_noise=30.0,
        evaluations=2,
        calibration_noise=25.0,
    )
    total = epsilon(spends, plan.privacy.delta, "rdp")
    assert plan.cost.epsilon == pytest.approx(total)
    assert 3.9 < total <= 4.0


def test_a_release_that_is_not_made_costs_nothing() -> None:
    common = ("task=pump", "privacy=sample", "privacy.accountant=rdp", "privacy.calibration_noise=2", "rounds.count=2")
    assert make(*common, "release=none").plan.privacy.noise_multiplier < make(*common).plan.privacy.noise_multiplier


def test_a_target_that_the_rest_alone_exceeds_is_refused() -> None:
    with pytest.raises(BudgetError, match="alone cost"):
        make("task=pump", "privacy=sample", "privacy.epsilon=0.1", "privacy.statistics_noise=0.5")


def test_a_given_noise_multiplier_is_kept() -> None:
    plan = make("task=pump", "privacy=sample", "privacy.epsilon=null", "privacy.noise_multiplier=3.5").plan
    assert (plan.privacy.noise_multiplier, plan.privacy.epsilon) == (3.5, None)
    assert plan.cost.epsilon is not None


def test_without_privacy_there_is_no_epsilon() -> None:
    planned = make("task=pump", "privacy=none")
    assert planned.plan.cost.epsilon is None
    forecast = planned.forecast()
    assert {forecast[name] for name in ("epsilon", "delta", "unit", "noise_multiplier", "group_epsilon")} == {None}


def test_a_window_claim_says_what_one_reading_gets() -> None:
    planned = make(
        "task=engine_rul", "privacy=sample", "privacy.unit=window", "privacy.accountant=rdp", "rounds.count=2"
    )
    assert planned.group == 30
    assert planned.group_epsilon is not None
    assert planned.plan.cost.epsilon is not None
    assert planned.group_epsilon > planned.plan.cost.epsilon


def test_a_start_and_a_head_make_it_fine_tuning(tmp_path: Path) -> None:
    first = make("task=pump", "seed=1")
    path = tmp_path / "start.safetensors"
    path.write_bytes(weights.encode(first.initial))
    tuned = make("task=pump", "seed=2", f"model.init={path}", "model.trainable=head")
    assert tuned.plan.model.init_hash == first.plan.model.init_hash
    assert 0 < len(tuned.trained) < len(first.trained)
    assert tuned.plan.cost.bytes_up < first.plan.cost.bytes_up
    path.write_bytes(weights.encode({"other": np.zeros(3, np.float32)}))
    with pytest.raises(IntegrityError, match=r"start\.safetensors"):
        make("task=pump", f"model.init={path}")


def test_the_seed_makes_the_weights_and_nothing_else() -> None:
    one, two, other = make("task=pump", "seed=5"), make("task=pump", "seed=5"), make("task=pump", "seed=6")
    assert one.plan.model.init_hash == two.plan.model.init_hash != other.plan.model.init_hash
    assert one.plan.run_id != two.plan.run_id


@pytest.mark.parametrize("protection", ["sealed", "secagg"])
def test_foreseen_bytes_are_close_to_the_real_size(protection: str) -> None:
    """Under secagg also the stages of the largest cohort, 64 sites: 63 shares each, and a roster."""
    planned: Any = make("task=engine_rul", f"protection={protection}")
    size = len(weights.encode(planned.initial))
    stages = 64 * (176 + 104 + 2 * 81) + 3 * 4096 if protection == "secagg" else 0
    assert size < planned.plan.cost.bytes_down < size + 8192 + stages
    assert size < planned.plan.cost.bytes_up < size + 16384 + stages


def test_another_unit_needs_a_batch_of_its_own() -> None:
    with pytest.raises(ConfigError, match="private settings are for entity") as found:
        make("task=pump", "privacy=sample", "privacy.epsilon=8", "privacy.unit=window")
    assert "local.sampling_rate" in found.value.allowed


def test_a_release_must_be_allowed_to_lose_something_or_nothing() -> None:
    with pytest.raises(ConfigError, match=r"release\.parity is -1") as found:
        make("task=pump", "release.parity=-1")
    assert found.value.allowed == "0 or more"


def test_an_override_that_is_no_grammar_is_told_in_words() -> None:
    with pytest.raises(ConfigError, match=r'^override rounds\.count="3 cannot') as found:
        make("task=pump", 'rounds.count="3', "seed=1")
    assert "Exception" not in str(found.value)
    assert "quotes" in found.value.allowed
