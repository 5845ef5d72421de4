"""What a whole run costs a site, for each unit that it is charged to; reads no data."""

from __future__ import annotations

from fedsite.models import sum_noise
from fedsite.privacy.accounting import Spend
from fedsite.privacy.spending import evaluations, spends_of
from fedsite.protocol.plan import RoundPlan


def spends(plan: RoundPlan) -> list[Spend]:
    """Everything one site noises by itself over the whole run, per window or entity; empty where it does not."""
    privacy = plan.privacy
    if not privacy.sample_level:
        return []
    found = spends_of(
        noise_multiplier=privacy.noise_multiplier,
        sampling_rate=plan.local.sampling_rate,
        steps=plan.local.steps,
        rounds=plan.rounds.count,
        statistics_noise=privacy.statistics_noise,
        evaluation_noise=privacy.evaluation_noise,
        evaluations=evaluations(plan.rounds.count, plan.rounds.evaluate_every),
        calibration_noise=privacy.calibration_noise if plan.release.enabled else 0.0,
    )
    return list(found)


def site_spends(plan: RoundPlan) -> list[Spend]:
    """Everything of one site that is in sums over the whole run, per site; empty where these are not noised."""
    judged = evaluations(plan.rounds.count, plan.rounds.evaluate_every)
    return list(sum_noise.spends(plan, rounds=plan.rounds.count, evaluations=judged))
