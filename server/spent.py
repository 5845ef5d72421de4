"""What a run has cost its sites in ε, from what they were asked: never less than the truth, whoever stayed silent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fedsite.protocol.plan import SITE, RoundPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one site was asked for that leaves it noised."""

    trained: int
    evaluated: int
    statistics: bool
    calibrated: bool


def epsilons(plan: RoundPlan, asked: Asked) -> dict[str, float]:
    """ε by privacy unit: of the plan's window or entity, and of the site in the sums."""
    found = {}
    if plan.privacy.sample_level:
        found[str(plan.privacy.unit)] = _sample(plan, asked)
    if plan.privacy.site_level:
        found[SITE] = _sums(plan, asked)
    return found


def claim(plan: RoundPlan, spent: dict[str, float]) -> dict[str, Any]:
    """The privacy statement of a release: one claim, or with two units the site's beside the other."""
    privacy = plan.privacy
    site = {
        "unit": SITE,
        "adjacency": privacy.site.adjacency,
        "delta": privacy.site.delta,
        "epsilon": spent.get(SITE),
        "mechanism": f"{privacy.site.mechanism} noise in the sums over the sites",
        "noise_multiplier": privacy.site.noise_multiplier,
        "clip": privacy.site.clip,
        "colluding": plan.protection.terms.colluding,
        "accountant": "rdp",
    }
    if not spent:
        return {"mode": "none"}
    if not privacy.sample_level:
        return {"mode": privacy.mode, **site}
    sample = {
        "mode": privacy.mode,
        "unit": privacy.unit,
        "adjacency": privacy.adjacency,
        "delta": privacy.delta,
        "epsilon": spent[privacy.unit],
        "mechanism": "DP-SGD with Poisson sampling; Gaussian for statistics, evaluation and calibration",
        "noise_multiplier": privacy.noise_multiplier,
        "clip": privacy.clip,
        "accountant": privacy.accountant,
    }
    return {**sample, "site": site} if privacy.site_level else sample


def _sample(plan: RoundPlan, asked: Asked) -> float:
    from fedsite.privacy.accounting import epsilon
    from fedsite.privacy.spending import spends_of

    privacy = plan.privacy
    spends = spends_of(
        noise_multiplier=privacy.noise_multiplier,
        sampling_rate=plan.local.sampling_rate,
        steps=plan.local.steps,
        rounds=asked.trained,
        statistics_noise=privacy.statistics_noise if asked.statistics else 0.0,
        evaluation_noise=privacy.evaluation_noise,
        evaluations=asked.evaluated,
        calibration_noise=privacy.calibration_noise if asked.calibrated else 0.0,
    )
    return epsilon(spends, privacy.delta, privacy.accountant)


def _sums(plan: RoundPlan, asked: Asked) -> float:
    from fedsite.models import sum_noise
    from fedsite.privacy.distributed import equivalent_epsilon

    spends = sum_noise.spends(
        plan,
        rounds=asked.trained,
        evaluations=asked.evaluated,
        statistics=asked.statistics,
        calibrated=asked.calibrated,
    )
    return equivalent_epsilon(spends, plan.privacy.site.delta) if spends else 0.0
