"""Every rule of the policy with toy numbers: what is refused, with which code, and all reasons at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fedsite.client import settings_template
from fedsite.client.consent import policy
from fedsite.client.settings import PolicySettings, Settings, SettingsFile
from fedsite.protocol import shape
from fedsite.protocol.errors import BudgetError, RefusalCode
from fedsite.protocol.plan import (
    LocalPlan,
    ModelPlan,
    PrivacyPlan,
    ProtectionPlan,
    RoundPlan,
    SitePrivacyPlan,
    StrategyPlan,
)
from fedsite.protocol.secagg.manifest import Terms
from fedsite.telemetry import yaml_text

START = "ab" * 32
OTHER = "pump@sha256:" + "ef" * 32  # another document
SUMS = SitePrivacyPlan(noise_multiplier=2.0)


@pytest.fixture
def plan(centre: Any) -> RoundPlan:
    """A private run under secure aggregation that default rules allow."""
    return centre.plan(
        model=ModelPlan(name="mlp", options={"hidden": [4]}, init_hash=START), protection=ProtectionPlan()
    )


def test_the_default_rules_allow_a_private_run_in_sums(plan: RoundPlan) -> None:
    assert policy.reasons(plan, PolicySettings()) == []


@pytest.mark.parametrize(
    ("rules", "code", "words"),
    [
        ({"tasks": ("ward",)}, RefusalCode.POLICY, ["task pump", "ward"]),
        ({"tasks": ()}, RefusalCode.POLICY, ["policy.tasks is empty"]),
        ({"tasks": (OTHER,)}, RefusalCode.POLICY, ["task pump@sha256:", OTHER, "policy.tasks"]),
        ({"units": ("entity", "site")}, RefusalCode.POLICY, ["per window", "for entity or site (policy.units)"]),
        ({"units": ()}, RefusalCode.POLICY, ["the list is empty (policy.units)"]),
        ({"models": ("gru", "cd" * 32)}, RefusalCode.POLICY, ["model mlp of weights " + START, "gru"]),
        ({"strategies": ("fedprox",)}, RefusalCode.POLICY, ["strategy fedavg", "fedprox"]),
        ({"cohort_min": 4}, RefusalCode.COHORT, ["at least 4 (policy.cohort_min)"]),
        ({"colluding_min": 2}, RefusalCode.COHORT, ["at least 2 (policy.colluding_min)"]),
        ({"delta": 1e-6}, RefusalCode.POLICY, ["delta 1e-05", "policy.delta"]),
        ({"steps_max": 2}, RefusalCode.POLICY, ["3 steps a round", "policy.steps_max"]),
        ({"epsilon_max": 3.9}, RefusalCode.BUDGET, ["would be 4", "at most 3.9 (policy.epsilon_max)"]),
        ({"epsilon_task": 3.9}, RefusalCode.BUDGET, ["would be 4", "at most 3.9 (policy.epsilon_task)"]),
    ],
)
def test_each_rule(plan: RoundPlan, rules: dict[str, Any], code: RefusalCode, words: list[str]) -> None:
    (reason,) = policy.reasons(plan, PolicySettings(**rules))
    assert reason.refusal == code
    for word in words:
        assert word in str(reason)


@pytest.mark.parametrize("rules", [{"models": ("mlp",)}, {"models": (START,)}, {"tasks": ("pump", "ward")}])
def test_what_is_listed_is_allowed(plan: RoundPlan, rules: dict[str, Any]) -> None:
    assert policy.reasons(plan, PolicySettings(**rules)) == []


def test_a_task_is_allowed_by_its_document(plan: RoundPlan) -> None:
    rules = PolicySettings(tasks=("ward", policy.task_entry(plan)))
    assert policy.reasons(plan, rules) == []
    # Another bound of one channel is another question to the data.
    channels = [{**plan.task["channels"][0], "maximum": 1.5}, *plan.task["channels"][1:]]
    for task in ({**plan.task, "channels": channels}, {**plan.task, "name": policy.task_entry(plan)}):
        (reason,) = policy.reasons(replace(plan, task=task), rules)
        assert reason.refusal == RefusalCode.POLICY
    # Runs that differ in everything else are about the same document.
    assert policy.reasons(replace(plan, seed=5, local=LocalPlan(steps=4, sampling_rate=0.2)), rules) == []


def test_no_word_of_the_plan_stands_for_an_architecture(plan: RoundPlan) -> None:
    other = replace(plan, model=ModelPlan(name="gru", init_hash="mlp"))
    assert len(policy.reasons(other, PolicySettings(models=("mlp",)))) == 1


@pytest.mark.parametrize(
    ("privacy", "units", "fits"),
    [
        (PrivacyPlan(), ("entity",), True),  # no claim at all is policy.require_privacy's
        (PrivacyPlan(mode="sample", unit="entity", noise_multiplier=2.0), ("entity",), True),
        (PrivacyPlan(mode="site", site=SUMS), ("entity",), False),
        (PrivacyPlan(mode="both", noise_multiplier=2.0, site=SUMS), ("site",), True),
        (PrivacyPlan(mode="both", noise_multiplier=2.0, site=SUMS), ("entity",), False),
    ],
)
def test_one_claim_is_for_a_unit_of_the_operator_s(
    plan: RoundPlan, privacy: PrivacyPlan, units: tuple[Any, ...], fits: bool
) -> None:
    rules = PolicySettings(units=units, require_privacy=False)
    assert (policy.reasons(replace(plan, privacy=privacy), rules) == []) is fits


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"privacy": PrivacyPlan()}, RefusalCode.POLICY),
        ({"protection": ProtectionPlan(mode="none")}, RefusalCode.PROTECTION),
        ({"protection": ProtectionPlan(terms=Terms(min_cohort=2, min_survivors=2))}, RefusalCode.COHORT),
        ({"local": LocalPlan(steps=200_000, sampling_rate=0.1)}, RefusalCode.POLICY),
    ],
)
def test_what_a_plan_asks_too_much(plan: RoundPlan, changes: dict[str, Any], code: RefusalCode) -> None:
    (reason,) = policy.reasons(replace(plan, **changes), PolicySettings())
    assert reason.refusal == code


def test_every_reason_is_told(plan: RoundPlan) -> None:
    site = SitePrivacyPlan(epsilon=20.0, noise_multiplier=0.1, delta=1e-3)
    bad = replace(
        plan,
        privacy=PrivacyPlan(mode="both", epsilon=30.0, noise_multiplier=0.1, site=site),
        strategy=StrategyPlan(name="fedadam"),
    )
    rules = PolicySettings(tasks=("ward",), strategies=("fedavg",), cohort_min=5)
    codes = [str(reason.refusal) for reason in policy.reasons(bad, rules)]
    assert codes == ["policy", "policy", "cohort", "budget", "policy", "budget"]


@pytest.mark.parametrize("check", [policy.check_epsilon, policy.check_epsilon_task, policy.check_epsilon_round])
def test_a_cap_is_kept_to_the_number_and_nan_is_over_it(check: Any) -> None:
    rules = PolicySettings(epsilon_max=2.0, epsilon_task=2.0, epsilon_round=2.0)
    check(2.0, rules, "window")
    for value in (2.0001, float("nan"), float("inf")):
        with pytest.raises(BudgetError):
            check(value, rules, "window")


def test_no_cap_is_no_cap() -> None:
    policy.check_epsilon_task(1e9, PolicySettings(), "window")
    policy.check_epsilon_round(1e9, PolicySettings(), "window")


def test_the_template_is_the_defaults_and_names_every_setting(tmp_path: Any) -> None:
    (tmp_path / "site.yaml").write_text(settings_template.TEXT)
    assert SettingsFile(tmp_path).current() == Settings()

    def names(value: Any, path: str = "") -> set[str]:
        if not isinstance(value, dict) or path.endswith(("columns", "tasks")):
            return {path}
        return {name for key, item in value.items() for name in names(item, f"{path}.{key}")}

    assert names(yaml_text.parse(settings_template.TEXT, "template")) == names(shape.plain(Settings()))
