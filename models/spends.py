"""What a run costs a site, for each claim: the one count that plan, site, record and report all go by.

Per window or entity it is what the site noises by itself; per site, what it has in noised sums. Reads no data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fedsite.models import sum_noise
from fedsite.privacy.accounting import Spend
from fedsite.privacy.spending import evaluations, spends_of
from fedsite.protocol.messages import Purpose
from fedsite.protocol.plan import RoundPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one site was asked for that leaves it noised."""

    trained: int  # rounds
    evaluated: int  # times
    statistics: bool
    calibrated: bool


def whole(plan: RoundPlan) -> Asked:
    """What a site is asked for that takes part in everything."""
    return Asked(
        trained=plan.rounds.count,
        evaluated=evaluations(plan.rounds.count, plan.rounds.evaluate_every),
        statistics=True,
        calibrated=plan.release.enabled,
    )


def own(plan: RoundPlan, asked: Asked) -> tuple[Spend, ...]:
    """What the site noises by itself, per window or entity; empty where it does not."""
    privacy = plan.privacy
    if not privacy.sample_level:
        return ()
    return spends_of(
        noise_multiplier=privacy.noise_multiplier,
        sampling_rate=plan.local.sampling_rate,
        steps=plan.local.steps,
        rounds=asked.trained,
        statistics_noise=privacy.statistics_noise if asked.statistics else 0.0,
        evaluation_noise=privacy.evaluation_noise,
        evaluations=asked.evaluated,
        calibration_noise=privacy.calibration_noise if asked.calibrated else 0.0,
    )


def in_sums(plan: RoundPlan, asked: Asked) -> tuple[Spend, ...]:
    """What the site has in sums, per site, as Gaussian mechanisms; empty where these are not noised.

    Raises:
        DocumentError: noise too small for the grid.
        PrivacyError: too many values and sites for this accountant.
    """
    if not plan.privacy.site_level:
        return ()
    counts: Iterable[tuple[Purpose, int]] = (
        ("train", asked.trained), ("statistics", int(asked.statistics)), ("evaluate", asked.evaluated),
        ("calibrate", int(asked.calibrated)),
    )  # fmt: skip
    return tuple(
        sum_noise.spend(plan, purpose, count=count)
        for purpose, count in counts
        if count and sum_noise.multiplier(plan.privacy, purpose) > 0
    )
