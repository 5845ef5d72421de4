"""What a run has cost its sites in ε, from what they were asked: never less than the truth, whoever stayed silent."""

from __future__ import annotations

from typing import Any

from fedsite.models import spends
from fedsite.models.spends import Asked
from fedsite.protocol.plan import SITE, RoundPlan


def epsilons(plan: RoundPlan, asked: Asked) -> dict[str, float]:
    """ε by privacy unit: of the plan's window or entity, and of the site in the sums."""
    from fedsite.privacy.accounting import epsilon
    from fedsite.privacy.distributed import equivalent_epsilon

    privacy, found = plan.privacy, {}
    if privacy.sample_level:
        found[str(privacy.unit)] = epsilon(spends.own(plan, asked), privacy.delta, privacy.accountant)
    if privacy.site_level:
        noised = spends.in_sums(plan, asked)
        found[SITE] = equivalent_epsilon(noised, privacy.site.delta) if noised else 0.0
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
