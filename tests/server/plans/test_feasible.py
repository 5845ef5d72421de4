"""What cannot be asked for together is refused at launch, with the reason and what to use instead."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from fedsite.protocol.errors import ConfigError, DocumentError, ExitCode, FedsiteError
from fedsite.protocol.plan import PrivacyPlan, ProtectionPlan, SitePrivacyPlan
from fedsite.server.plans import feasible, planning
from fedsite.server.plans.planning import Planned
from tests.launches import asked

SECAGG = ("task=pump", "privacy=none", "protection=secagg")
SITE = ("task=pump", "privacy=site", "protection=secagg")


def make(*overrides: str, sites: int | None = 10) -> Planned:
    return planning.make(asked(*overrides), "0" * 32, sites=sites)


@pytest.mark.parametrize(
    ("overrides", "sites", "found", "instead"),
    [
        ((), 2, "each would know the other's update", "protection=sealed, or enrol a third site"),
        ((), 1, "sites enrolled: 1", "enrol more"),
        ((), 0, "sites enrolled: 0", "protection=sealed"),
        (("protection.terms.min_cohort=20",), 10, "min_cohort=20", "lower protection.terms.min_cohort"),
        (("strategy.name=krum",), 10, "compares single updates", "protection=sealed"),
        (("strategy.name=median",), 10, "protection.groups=1", "protection.groups=3"),
        (("strategy.name=trimmed_mean", "protection.groups=2"), 10, "protection.groups=2", "protection.groups=3"),
        (("strategy.name=median", "protection.groups=4"), 10, "protection.groups=4", "protection.groups=3"),
        (("rounds.minimum=2",), 10, "rounds.minimum is 2", "rounds.minimum=3"),
        (("protection.terms.min_cohort=5", "rounds.goal=4"), 10, "rounds.goal is 4", "rounds.goal=5"),
    ],
)
def test_a_sum_that_could_not_keep_its_promise(
    overrides: tuple[str, ...], sites: int, found: str, instead: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make(*SECAGG, *overrides, sites=sites)
    assert found in caught.value.found
    assert instead in caught.value.next_step
    assert caught.value.exit_code == ExitCode.USAGE


def test_the_same_is_allowed_where_the_server_sees_single_updates() -> None:
    for overrides in (("strategy.name=krum",), ("strategy.name=median",), ("rounds.minimum=2", "rounds.goal=2")):
        assert (
            make("task=pump", "privacy=none", "protection=sealed", *overrides, sites=10).plan.protection.mode
            == "sealed"
        )
    assert make("task=pump", "privacy=none", "protection=sealed", sites=2)


def test_two_sites_may_sum_where_they_say_so_themselves() -> None:
    terms = ("protection.terms.min_cohort=2", "protection.terms.min_survivors=2")
    assert make(*SECAGG, *terms, sites=2).plan.rounds.minimum == 2


def test_nobody_is_refused_for_a_number_that_is_not_known() -> None:
    assert make(*SECAGG, sites=None).plan.protection.sites == 64


def test_a_metric_without_bound_has_no_scale(tmp_path: Path) -> None:
    document = yaml.safe_load((Path(__file__).parents[3] / "conf/task/engine_rul.yaml").read_text())
    del document["metric"]["maximum"]
    path = tmp_path / "free.yaml"
    path.write_text(yaml.safe_dump(document))
    rest = (f"task_file={path}", "privacy=none")
    with pytest.raises(ConfigError, match=r"metric rmse has no maximum") as caught:
        make(*rest, "protection=secagg")
    assert "protection=sealed" in caught.value.next_step
    assert make(*rest, "protection=sealed")


@pytest.mark.parametrize(
    ("overrides", "found", "instead"),
    [
        (("privacy=site", "protection=sealed"), "privacy=site with protection=sealed", "privacy=sample"),
        (("privacy=both", "protection=none"), "privacy=both with protection=none", "protection=secagg"),
        ((*SITE, "privacy.site.epsilon=0.001"), "rounding to the grid", "privacy.site.epsilon"),
        ((*SITE, "privacy.statistics_noise=0.5"), "alone cost", "privacy.site.epsilon"),
        ((*SITE, "privacy.epsilon=4"), "privacy.epsilon is 4", "privacy.site.epsilon=4"),
        ((*SITE, "privacy.unit=entity"), "privacy.unit is entity", ""),
        ((*SITE, "privacy.site.epsilon=null"), "noise_multiplier is None", "privacy.site.epsilon=8"),
        ((*SITE, "privacy.site.delta=0.1"), "delta is 0.1 for 10 sites", ""),
        (("privacy=sample", "privacy.site.epsilon=4"), "privacy.site.epsilon is 4", "privacy.epsilon=4"),
        (("privacy=none", "privacy.site.epsilon=4"), "privacy=none", "privacy=site protection=secagg"),
        (
            ("privacy=none", "privacy.site.noise_multiplier=1"),
            "privacy.site.noise_multiplier is 1",
            "site.epsilon=null",
        ),
        (("privacy=none", "privacy.clip=2"), "privacy.clip is 2", "privacy=sample privacy.clip=2"),
        (("privacy=none", "privacy.noise_multiplier=1"), "privacy.noise_multiplier is 1", "privacy.epsilon=null"),
        (("privacy=none", "privacy.unit=window"), "privacy.unit is window", "privacy=sample privacy.unit=window"),
        (("privacy=none", "privacy.accountant=rdp"), "privacy.accountant is rdp", "privacy=sample"),
        (("privacy=none", "privacy.statistics_noise=4"), "statistics_noise is 4 with privacy=none", "privacy=sample"),
        (("privacy=sample", "privacy.site.mechanism=skellam"), "mechanism is skellam", "leave privacy.site.mechanism"),
        (("privacy=both", "privacy.statistics_noise=20"), "privacy=both", "privacy=sample"),
        (("privacy=both", "privacy.evaluation_noise=20"), "privacy.evaluation_noise is 20", "privacy=site"),
    ],
)
def test_privacy_that_could_not_be_meant(overrides: tuple[str, ...], found: str, instead: str) -> None:
    with pytest.raises(FedsiteError) as caught:
        make(*overrides)
    assert found in str(caught.value)
    assert instead in caught.value.next_step
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("mode", "override", "modes"),
    [
        ("sample", "privacy.site.mechanism=skellam", "privacy=site or both"),
        ("site", "privacy.batch=64", "privacy=sample or both"),
        ("none", "privacy.delta=0.001", "privacy=sample or both"),
        ("none", "privacy.site.delta=0.001", "privacy=site or both"),
        ("none", "privacy.evaluation_noise=4", "privacy=sample or site"),
    ],
)
def test_a_setting_names_the_modes_that_have_it(mode: str, override: str, modes: str) -> None:
    with pytest.raises(ConfigError) as caught:
        asked(f"privacy={mode}", override)
    assert caught.value.allowed == modes


def test_no_noise_where_nothing_is_noised_says_nothing_new() -> None:
    assert asked("privacy=none", "privacy.statistics_noise=0", "privacy.calibration_noise=null").privacy.mode == "none"


def test_a_plan_that_somebody_else_made_is_refused_too() -> None:
    with pytest.raises(DocumentError, match="statistics_noise"):
        PrivacyPlan(mode="both", noise_multiplier=1.0, statistics_noise=1.0, site=SitePrivacyPlan(noise_multiplier=1.0))
    with pytest.raises(DocumentError, match=r"site\.noise_multiplier"):
        PrivacyPlan(mode="site")
    privacy = PrivacyPlan(mode="site", site=SitePrivacyPlan(noise_multiplier=1.0))
    with pytest.raises(DocumentError, match="protection sealed"):
        replace(make(*SECAGG).plan, privacy=privacy, protection=ProtectionPlan(mode="sealed"))


def test_room_for_the_sites_that_there_are() -> None:
    assert [feasible.room(count, 3) for count in (None, 3, 64, 65, 200)] == [64, 64, 64, 128, 256]
    assert feasible.room(None, 100) == 128
    assert make(*SECAGG, sites=70).plan.protection.sites == 128
    assert make(*SECAGG, "protection.sites=500", sites=70).plan.protection.sites == 500


def test_the_fewest_replies_follow_from_the_sum_and_the_strategy() -> None:
    def minimum(*overrides: str) -> int:
        return make("task=pump", "privacy=none", *overrides, sites=50).plan.rounds.minimum

    assert minimum("protection=sealed") == 2
    assert minimum("protection=secagg") == 3
    assert minimum("protection=secagg", "protection.terms.min_cohort=6", "protection.terms.min_survivors=5") == 5
    assert minimum("protection=secagg", "strategy.name=median", "protection.groups=4") == 9
