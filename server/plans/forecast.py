"""`fedsite.forecast/1`: what a planned run will cost each site and what it promises, before anybody is asked."""

from __future__ import annotations

import math
from typing import Any, Final

from fedsite.protocol import weights
from fedsite.protocol.plan import SITE, RoundPlan
from fedsite.server.plans import stage_bytes
from fedsite.server.plans.pricing import HEADER_BYTES
from fedsite.telemetry.task import Task

FORECAST_SCHEMA: Final = "fedsite.forecast/1"
MEDIAN_LOSS: Final = math.sqrt(math.pi / 2)  # deviation of a median over that of the mean, for normal noise


def make(
    plan: RoundPlan,
    task: Task,
    initial: weights.Arrays,
    trained: tuple[str, ...],
    *,
    enrolled: int | None,
    group: int | None,
    group_epsilon: float | None,
) -> dict[str, Any]:
    """The forecast.

    Args:
        plan: complete.
        task: its task.
        initial: all weights.
        trained: names of those that are trained.
        enrolled: sites, where that is known.
        group: windows that share one reading, where a window is the unit.
        group_epsilon: what such a group is promised.
    """
    privacy, rounds = plan.privacy, plan.rounds.count
    own = privacy.sample_level
    cohort = expected_cohort(plan, enrolled)
    found: dict[str, Any] = {
        "schema": FORECAST_SCHEMA,
        "run_id": plan.run_id,
        "task": plan.task_name,
        "plan_hash": plan.hash,
        "model": plan.model.name,
        "parameters": plan.model.parameters,
        "trained_parameters": sum(initial[name].size for name in trained),
        "rounds": rounds,
        "steps_per_round": plan.local.steps,
        "bytes_down": plan.cost.bytes_down * rounds,
        "bytes_up": plan.cost.bytes_up * rounds,
        "minutes_at_most": round(rounds * plan.rounds.deadline_s / 60, 1),
        "protection": plan.protection.mode,
        "privacy": privacy.mode,
        "epsilon": plan.cost.epsilon,
        "delta": privacy.delta if own else None,
        "unit": privacy.unit if own else None,
        "noise_multiplier": privacy.noise_multiplier if own else None,
        "group": group,
        "group_epsilon": group_epsilon,
        "site_epsilon": plan.cost.site_epsilon,
        "site_privacy": None,
        "secagg": None,
    }
    if plan.protection.mode == "secagg":
        per_sum = max(cohort // plan.protection.groups, plan.protection.terms.min_cohort)
        stages = stage_bytes.of_round(plan, task, initial, trained, sites=per_sum, header=HEADER_BYTES)
        for name in ("bytes_down", "bytes_up"):
            found[name] = rounds * sum(getattr(stage, name) for stage in stages)
        found["secagg"] = _sums(plan, per_sum, stages)
        if privacy.site_level:
            found["site_privacy"] = _site_claim(plan, per_sum, found["trained_parameters"])
    return found


def expected_cohort(plan: RoundPlan, enrolled: int | None) -> int:
    """Sites that a round will probably ask: as many as the goal wants, or there are; else the fewest allowed."""
    least = plan.protection.terms.min_cohort * plan.protection.groups
    most = plan.protection.sites * plan.protection.groups
    wanted = enrolled if enrolled is not None else least
    if plan.rounds.goal is not None:
        asked = math.ceil(plan.rounds.goal * plan.rounds.over_select)
        wanted = asked if enrolled is None else min(asked, enrolled)
    return max(least, min(wanted, most))


def tolerated(plan: RoundPlan, sites: int) -> int:
    """Sites of one sum that may drop out, and it is still opened."""
    terms = plan.protection.terms
    size = terms.size(sites)
    if size.confirm:
        return min(math.floor(terms.dropped * sites), sites - terms.quorum(sites), sites - terms.min_survivors)
    return sites - max(size.threshold, terms.min_survivors)


def group_noise(plan: RoundPlan) -> float:
    """Deviation of the aggregate's noise over that of one sum over the same sites.

    G group means hold √G as much noise in their mean: each group has noise enough for itself. Their median has √(π/2)
    times that; a trimmed mean has less than the median.
    """
    factor = math.sqrt(plan.protection.groups)
    return factor * MEDIAN_LOSS if plan.strategy.name == "median" else factor


def _sums(plan: RoundPlan, sites: int, stages: tuple[stage_bytes.Stage, ...]) -> dict[str, Any]:
    terms = plan.protection.terms
    size = terms.size(sites)
    return {
        "sites": sites,
        "min_cohort": terms.min_cohort,
        "min_survivors": terms.min_survivors,
        "colluding": terms.colluding if not size.confirm else math.floor(terms.corrupt * sites),
        "neighbours": size.neighbours,
        "threshold": size.threshold,
        "tolerated_drops": tolerated(plan, sites),
        "groups": plan.protection.groups,
        "group_noise": group_noise(plan) if plan.privacy.site_level and plan.protection.groups > 1 else None,
        "bytes_by_stage": [
            {"stage": stage.stage, "bytes_up": stage.bytes_up, "bytes_down": stage.bytes_down} for stage in stages
        ],
    }


def _site_claim(plan: RoundPlan, sites: int, trained: int) -> dict[str, Any]:
    """The claim about the sums: of another unit than a site's own, so never added to it.

    `noise_over_clip` is the L2 norm of the noise in the mean over these sites, over what one update can be long.
    """
    site, honest = plan.privacy.site, plan.protection.terms.honest
    return {
        "unit": SITE,
        "adjacency": site.adjacency,
        "epsilon": plan.cost.site_epsilon,
        "delta": site.delta,
        "mechanism": site.mechanism,
        "clip": site.clip,
        "noise_multiplier": site.noise_multiplier,
        "colluding": plan.protection.terms.colluding,
        "noise_over_clip": site.noise_multiplier * math.sqrt(sites / honest * trained) / sites,
    }
