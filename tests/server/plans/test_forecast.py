"""What a plan costs, foreseen: bytes of each stage by hand, drops that a sum bears, one line for each claim."""

from __future__ import annotations

import math

import pytest

from fedsite.models import spends
from fedsite.privacy.distributed import equivalent_epsilon
from fedsite.protocol import weights
from fedsite.server.plans import forecast, planning, stage_bytes
from fedsite.server.plans.planning import Planned
from fedsite.server.plans.pricing import HEADER_BYTES
from tests.launches import asked


def make(*overrides: str, sites: int | None = 10) -> Planned:
    return planning.make(asked("task=pump", *overrides), "0" * 32, sites=sites)


def test_bytes_of_each_stage_by_hand() -> None:
    """Ten sites: 9 neighbours, a roster of 10 · (176 + 104), 81 bytes a share, 33 for each that is opened."""
    planned = make("privacy=site", "protection=secagg")
    stages = {stage["stage"]: stage for stage in planned.forecast()["secagg"]["bytes_by_stage"]}
    model = len(weights.encode(planned.initial))
    assert list(stages) == ["advertise", "share", "mask", "unmask"]
    up = {name: stage["bytes_up"] - HEADER_BYTES for name, stage in stages.items()}
    assert up == {"advertise": 176, "share": 81 * 9, "mask": 4 * 277, "unmask": 33 * 10 + 176}
    assert stages["share"]["bytes_down"] - HEADER_BYTES == 2800
    assert stages["mask"]["bytes_down"] - HEADER_BYTES == model + 2 + 81 * 9


def test_what_a_site_is_told_bounds_what_it_sends_in_the_largest_cohort() -> None:
    planned = make("privacy=none", "protection=secagg")
    stages = stage_bytes.of_round(
        planned.plan, planned.task, planned.initial, planned.trained, sites=10, header=HEADER_BYTES
    )
    assert sum(stage.bytes_up for stage in stages) < planned.plan.cost.bytes_up
    assert sum(stage.bytes_down for stage in stages) < planned.plan.cost.bytes_down
    assert max(stage.bytes_up for stage in stages) - HEADER_BYTES == 4 * (277 + 1 + 2 + 2 * _evaluation_words())


def _evaluation_words() -> int:
    from fedsite.server.rounds import evaluation
    from fedsite.telemetry.task import load_task

    required, optional = evaluation.evaluation_shapes(load_task("pump"))
    return sum(math.prod(shape) for shape in (required | optional).values())


@pytest.mark.parametrize(
    ("sites", "colluding", "drops"), [(3, 0, 0), (10, 0, 4), (10, 3, 3), (64, 20, 21), (1000, 0, 100)]
)
def test_drops_that_a_sum_bears(sites: int, colluding: int, drops: int) -> None:
    """The figures of docs/threat-model.md."""
    extra = (f"protection.terms.colluding={colluding}", "protection.terms.min_cohort=3") if colluding == 0 else (
        f"protection.terms.colluding={colluding}", f"protection.terms.min_cohort={colluding + 2}",
        f"protection.terms.min_survivors={colluding + 2}",
    )  # fmt: skip
    found = make("privacy=none", "protection=secagg", *extra, sites=sites).forecast()["secagg"]
    assert (found["sites"], found["tolerated_drops"]) == (sites, drops)


def test_two_claims_are_two_lines() -> None:
    planned = make("privacy=both", "privacy.accountant=rdp", "protection=secagg", "rounds.count=2")
    found, privacy = planned.forecast(), planned.plan.privacy
    assert 7.9 < found["epsilon"] <= 8.0
    assert 7.9 < found["site_epsilon"] <= 8.0
    assert (found["unit"], found["site_privacy"]["unit"]) == ("entity", "site")
    assert found["site_privacy"]["adjacency"] == "zero-out"
    assert found["site_privacy"]["colluding"] == 0
    assert (privacy.statistics_noise, privacy.evaluation_noise, privacy.calibration_noise) == (0.0, 0.0, 0.0)
    priced = spends.in_sums(planned.plan, spends.whole(planned.plan))
    assert equivalent_epsilon(priced, 1e-5) == pytest.approx(found["site_epsilon"])


def test_how_much_noise_a_mean_would_hold() -> None:
    """z = 3 at C = 2 in the sum of 12, whose noise is that of three: 3 · √(12/3) / 12 clips in each of 277 values."""
    given = ("privacy.site.epsilon=null", "privacy.site.noise_multiplier=3", "privacy.site.clip=2")
    claim = make("privacy=site", "protection=secagg", *given, sites=12).forecast()["site_privacy"]
    assert claim["noise_over_clip"] == pytest.approx(0.5 * math.sqrt(277))
    assert claim["noise_multiplier"] == 3.0


def test_noise_in_the_sum_has_nothing_of_the_tasks_private_settings() -> None:
    """They are for DP-SGD: a clip of gradients, a learning rate for noised steps, noise of a site's own releases."""
    site, plain = make("privacy=site", "protection=secagg").plan, make("privacy=none", "protection=sealed").plan
    assert site.local == plain.local
    assert site.rounds.count == plain.rounds.count
    assert site.privacy.statistics_noise == site.privacy.calibration_noise == 0.0
    assert site.privacy.site.clip == 1.0


def test_sums_that_are_asked_take_from_the_target() -> None:
    common = ("privacy=site", "protection=secagg")
    alone = make(*common).plan
    with_sums = make(*common, "privacy.statistics_noise=20", "privacy.evaluation_noise=20").plan
    assert with_sums.privacy.site.noise_multiplier > alone.privacy.site.noise_multiplier
    assert with_sums.cost.site_epsilon is not None
    assert 7.9 < with_sums.cost.site_epsilon <= 8.0


def test_the_price_of_groups_in_noise() -> None:
    common = ("privacy=site", "protection=secagg", "protection.groups=4")
    mean, median = (make(*common, f"strategy.name={name}", sites=40) for name in ("fedavg", "median"))
    assert mean.forecast()["secagg"]["group_noise"] == pytest.approx(2.0)
    assert median.forecast()["secagg"]["group_noise"] == pytest.approx(2 * math.sqrt(math.pi / 2))
    assert median.forecast()["secagg"]["sites"] == 10
    assert make("privacy=site", "protection=secagg").forecast()["secagg"]["group_noise"] is None


def test_the_expected_cohort_follows_the_goal() -> None:
    common = ("privacy=none", "protection=secagg")
    assert forecast.expected_cohort(make(*common).plan, 10) == 10
    assert forecast.expected_cohort(make(*common, "rounds.goal=5", "rounds.over_select=1.5").plan, 10) == 8
    assert forecast.expected_cohort(make(*common, sites=None).plan, None) == 3


def test_sealed_updates_have_no_stages() -> None:
    found = make("privacy=none", "protection=sealed").forecast()
    assert found["secagg"] is found["site_privacy"] is found["site_epsilon"] is None
