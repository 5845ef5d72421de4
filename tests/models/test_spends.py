"""What a run costs a site: each claim counts what it must, and nothing that is not asked."""

from __future__ import annotations

from typing import Any

from fedsite.models import spends
from fedsite.models.spends import Asked
from fedsite.privacy.accounting import Spend
from fedsite.protocol.plan import (
    LocalPlan,
    ModelPlan,
    PrivacyPlan,
    ReleasePlan,
    RoundPlan,
    RoundsPlan,
    SitePrivacyPlan,
)

NOISES = {"statistics_noise": 5.0, "evaluation_noise": 7.0, "calibration_noise": 9.0}
DP_SGD = Spend(noise_multiplier=1.0, sampling_rate=0.5, steps=8)


def plan(mode: str, *, release: bool = True, **noises: float) -> RoundPlan:
    """Four rounds of two steps, evaluated after every second."""
    values: dict[str, Any] = {"mode": mode, **noises}
    if mode in ("sample", "both"):
        values["noise_multiplier"] = 1.0
    return RoundPlan(
        federation="00",
        run_id="r",
        created="",
        task={},
        model=ModelPlan(name="mlp", parameters=19),
        local=LocalPlan(steps=2, sampling_rate=0.5),
        privacy=PrivacyPlan(**values, site=SitePrivacyPlan(noise_multiplier=3.0 if mode in ("site", "both") else 0.0)),
        rounds=RoundsPlan(count=4, evaluate_every=2),
        release=ReleasePlan(enabled=release),
    )


def own(found: RoundPlan) -> tuple[Spend, ...]:
    return spends.own(found, spends.whole(found))


def in_sums(found: RoundPlan) -> tuple[Spend, ...]:
    return spends.in_sums(found, spends.whole(found))


def test_everything_that_a_site_noises_by_itself_is_counted() -> None:
    statistics, evaluation, calibration = (
        Spend(noise_multiplier=5.0), Spend(noise_multiplier=7.0, steps=2), Spend(noise_multiplier=9.0),
    )  # fmt: skip
    assert set(own(plan("sample", **NOISES))) == {DP_SGD, statistics, evaluation, calibration}
    assert set(own(plan("sample", release=False, **NOISES))) == {DP_SGD, statistics, evaluation}
    assert own(plan("sample")) == (DP_SGD,)


def test_everything_in_sums_is_counted() -> None:
    """As Gaussian noise, a little less than what is drawn on the grid."""
    found = in_sums(plan("site", **NOISES))
    assert [spend.steps for spend in found] == [4, 1, 2, 1]
    for spend, drawn in zip(found, (3.0, 5.0, 7.0, 9.0), strict=True):
        assert 0.95 * drawn < spend.noise_multiplier < drawn
    assert len(in_sums(plan("site", release=False, **NOISES))) == 3


def test_two_claims_have_two_prices() -> None:
    both = plan("both")
    assert own(both) == (DP_SGD,)
    (sums,) = in_sums(both)
    assert (sums.sampling_rate, sums.steps) == (1.0, 4)
    assert own(plan("site")) == in_sums(plan("sample")) == ()
    assert own(plan("none")) == in_sums(plan("none")) == ()


def test_only_what_was_asked_costs() -> None:
    statistics = Asked(trained=0, evaluated=0, statistics=True, calibrated=False)
    assert spends.own(plan("sample", **NOISES), statistics) == (Spend(noise_multiplier=5.0),)
    assert len(spends.in_sums(plan("site", **NOISES), statistics)) == 1
    nothing = Asked(trained=0, evaluated=0, statistics=False, calibrated=False)
    assert spends.own(plan("sample", **NOISES), nothing) == spends.in_sums(plan("site", **NOISES), nothing) == ()
