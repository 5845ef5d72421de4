"""What the site's own rules say to a plan before any of its data is read: settings and a plan in, a refusal out."""

from __future__ import annotations

from functools import lru_cache
from typing import get_args

from fedsite.client.settings import PolicySettings
from fedsite.models import sum_noise
from fedsite.privacy.accounting import Spend
from fedsite.protocol import shape
from fedsite.protocol.errors import BudgetError, DocumentError, PolicyError, RefusalCode
from fedsite.protocol.messages import Header, Purpose
from fedsite.protocol.plan import SITE, RoundPlan

CLAIM_SLACK = 0.005  # relative: two machines' floating point, no more
_STRENGTH = {"none": 0, "sealed": 1, "secagg": 2}
_NEXT = {
    "secagg": "policy.minimum_protection=sealed lets the server see this site's own updates",
    "sealed": "policy.minimum_protection=none lets updates travel readable by the server",
    "none": "",
}
_NOISE = {"statistics": "statistics_noise", "evaluate": "evaluation_noise", "calibrate": "calibration_noise"}


def check(plan: RoundPlan, policy: PolicySettings) -> None:
    """Refuse a plan that the site's rules do not allow.

    Raises:
        PolicyError: task, privacy, protection or size are not allowed here (`policy` or `protection`).
    """
    if policy.tasks is not None and plan.task_name not in policy.tasks:
        raise PolicyError(
            f"task {plan.task_name}",
            allowed=shape.nearest(plan.task_name, list(policy.tasks)) or "none (policy.tasks is empty)",
            next_step="add it to policy.tasks in site.yaml to allow it",
        )
    if _STRENGTH[plan.protection.mode] < _STRENGTH[policy.minimum_protection]:
        raise PolicyError(
            f"protection {plan.protection.mode}",
            allowed=policy.minimum_protection,
            next_step=_NEXT[policy.minimum_protection],
            refusal=RefusalCode.PROTECTION,
        )
    check_cohort(plan, policy)
    if plan.privacy.mode == "none" and policy.require_privacy:
        raise PolicyError(
            "a run without differential privacy",
            allowed="privacy=sample",
            next_step="policy.require_privacy=false allows runs that are not private",
        )
    for unit in plan.privacy.units:
        if plan.privacy.claim(unit).delta > policy.delta:
            raise PolicyError(
                f"delta {plan.privacy.claim(unit).delta} per {unit}", allowed=f"at most {policy.delta} (policy.delta)"
            )
    if plan.local.steps > policy.steps_max:
        raise PolicyError(f"{plan.local.steps} steps a round", allowed=f"at most {policy.steps_max} (policy.steps_max)")


def check_cohort(plan: RoundPlan, policy: PolicySettings) -> None:
    """Refuse a run that may add this site's values to fewer others than its rules want, or trusts more of them.

    Raises:
        PolicyError: it may (`cohort`).
    """
    terms = plan.protection.terms
    if plan.protection.mode == "secagg" and terms.min_survivors < policy.cohort_min:
        raise PolicyError(
            f"sums over {terms.min_survivors} of {terms.min_cohort} sites",
            allowed=f"at least {policy.cohort_min} (policy.cohort_min)",
            next_step="policy.cohort_min=2 lets the one other site work out this one's values",
            refusal=RefusalCode.COHORT,
        )
    if plan.protection.mode == "secagg" and terms.colluding < policy.colluding_min:
        raise PolicyError(
            f"sums that hold against {terms.colluding} colluding sites",
            allowed=f"at least {policy.colluding_min} (policy.colluding_min)",
            next_step="launch with protection.terms.colluding that large, or lower policy.colluding_min in site.yaml",
            refusal=RefusalCode.COHORT,
        )


def check_epsilon(epsilon: float, policy: PolicySettings, unit: str) -> None:
    """Refuse a run with which the data would have spent more than the site's cap.

    Raises:
        BudgetError: it would.
    """
    # Written so that NaN is refused.
    if not epsilon <= policy.epsilon_max:
        raise BudgetError(
            f"with this run ε per {unit} would be {epsilon:.3g} at δ {policy.delta:g}",
            allowed=f"at most {policy.epsilon_max:g} (policy.epsilon_max)",
            next_step="fedsite privacy shows what was spent; the cap is policy.epsilon_max in site.yaml",
        )


def check_claim(epsilon: float, plan: RoundPlan, unit: str) -> None:
    """Refuse a plan whose noise does not give the ε it names.

    Raises:
        PolicyError: it claims less than it costs.
    """
    claimed = plan.privacy.claim(unit).epsilon
    if claimed is not None and not epsilon <= claimed * (1 + CLAIM_SLACK):
        raise PolicyError(
            f"the plan claims ε {claimed:g} per {unit} and costs {epsilon:.4g}",
            allowed="a claim that is true",
            refusal=RefusalCode.PLAN_INVALID,
        )


def read_plan(data: bytes, header: Header) -> RoundPlan:
    """The plan of an instruction, bound to it by hash, run and federation.

    Raises:
        DocumentError: not a plan, or another one than the header names (`plan-invalid`, `wrong-run`).
    """
    try:
        plan = _parsed(data)
    except DocumentError as error:
        error.refusal = RefusalCode.PLAN_INVALID
        raise
    if plan.hash != header.plan_hash:
        raise DocumentError("the plan has another hash than its header says", refusal=RefusalCode.PLAN_INVALID)
    if plan.run_id != header.run_id or plan.federation != header.federation:
        raise DocumentError(f"plan of run {plan.run_id}", allowed=header.run_id, refusal=RefusalCode.WRONG_RUN)
    return plan


def evaluates(plan: RoundPlan, header: Header) -> bool:
    """True when this instruction evaluates on the holdout: never without noise where the run is private."""
    asked = header.kind == "evaluate" or (header.kind == "train" and header.body.get("evaluate") is True)
    return asked and (plan.privacy.mode == "none" or plan.privacy.evaluation_noise > 0)


def price(plan: RoundPlan, header: Header) -> dict[str, list[Spend]]:
    """What the answer to one instruction costs each unit; empty when the run is not private.

    Raises:
        PolicyError: it would have to read private data without noise.
    """
    privacy = plan.privacy
    if privacy.mode == "none":
        return {}
    needed = _NOISE.get(header.kind)
    if needed is not None and not getattr(privacy, needed) > 0:
        raise PolicyError(f"{header.kind} without noise in a private run", allowed=f"privacy.{needed} above 0")
    found: dict[str, list[Spend]] = {}
    if privacy.sample_level:
        found[privacy.unit] = [_own(plan, purpose) for purpose in _released(plan, header)]
    if privacy.site_level:
        found[SITE] = [sum_noise.spend(plan, purpose) for purpose in _released(plan, header)]
    return {unit: spends for unit, spends in found.items() if spends}


def _released(plan: RoundPlan, header: Header) -> list[Purpose]:
    """What an answer holds of the data: a round of training may bring an evaluation along."""
    asked = [purpose for purpose in get_args(Purpose) if purpose == header.kind]
    return [*asked, "evaluate"] if header.kind == "train" and evaluates(plan, header) else asked


def _own(plan: RoundPlan, purpose: Purpose) -> Spend:
    """One release that the site noises by itself."""
    if purpose == "train":
        steps, rate = plan.local.steps, plan.local.sampling_rate
        return Spend(noise_multiplier=plan.privacy.noise_multiplier, sampling_rate=rate, steps=steps)
    return Spend(noise_multiplier=getattr(plan.privacy, _NOISE[purpose]))


@lru_cache(maxsize=2)
def _parsed(data: bytes) -> RoundPlan:
    """A run's stages each bring a look at its plan."""
    return RoundPlan.parse(data)
