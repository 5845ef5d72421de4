"""What the site's own rules say to a plan before any of its data is read: settings and a plan in, a refusal out."""

from __future__ import annotations

from functools import lru_cache
from typing import get_args

from fedsite.client.consent.approvals import check_size
from fedsite.client.settings import PolicySettings
from fedsite.models import sum_noise
from fedsite.privacy.accounting import Spend
from fedsite.protocol import shape
from fedsite.protocol.errors import BudgetError, DocumentError, FedsiteError, PolicyError, RefusalCode
from fedsite.protocol.messages import Header, Purpose
from fedsite.protocol.plan import SITE, RoundPlan

_HASH_DIGITS = 64
CLAIM_SLACK = 0.005  # relative: two machines' floating point, no more
_STRENGTH = {"none": 0, "sealed": 1, "secagg": 2}
_NEXT = {
    "secagg": "policy.minimum_protection=sealed lets the server see this site's own updates",
    "sealed": "policy.minimum_protection=none lets updates travel readable by the server",
    "none": "",
}
_NOISE = {"statistics": "statistics_noise", "evaluate": "evaluation_noise", "calibrate": "calibration_noise"}


def reasons(plan: RoundPlan, policy: PolicySettings) -> list[FedsiteError]:
    """Everything in a plan that the site's rules do not allow: each as the error it is refused with."""
    named = [
        _task(plan, policy),
        _named("strategy", plan.strategy.name, [plan.strategy.name], policy.strategies),
        _named("model", plan.model.name, [plan.model.name, *_weights(plan)], policy.models),
    ]
    found: list[FedsiteError | None] = [*named, _weak(plan, policy), *_cohort(plan, policy), _public(plan, policy)]
    found.append(_unit(plan, policy))
    for unit in plan.privacy.units:
        found += _claims(plan, policy, unit)
    if plan.local.steps > policy.steps_max:
        allowed = f"at most {policy.steps_max} (policy.steps_max)"
        found.append(PolicyError(f"{plan.local.steps} steps a round", allowed=allowed))
    return [reason for reason in found if reason is not None]


def _named(what: str, name: str, words: list[str], allowed: tuple[str, ...] | None) -> PolicyError | None:
    """Something that has to be on a list of the operator's, where there is one."""
    setting = {"strategy": "strategies", "model": "models"}[what]
    if allowed is None or set(words) & set(allowed):
        return None
    shown = " of weights ".join(filter(None, words))
    return PolicyError(
        f"{what} {shown}",
        allowed=shape.nearest(name, list(allowed)) or f"none (policy.{setting} is empty)",
        next_step=f"add it to policy.{setting} in site.yaml to allow it",
    )


def task_entry(plan: RoundPlan) -> str:
    """What in `policy.tasks` allows the plan's task document, and no other under its name."""
    return f"{plan.task_name}@sha256:{plan.task_hash}"


def _task(plan: RoundPlan, policy: PolicySettings) -> PolicyError | None:
    """A task whose name is not listed, or whose document is not, where its hash is."""
    allowed = policy.tasks
    # A name that is written like an entry with a hash is none.
    if allowed is None or task_entry(plan) in allowed or (plan.task_name in allowed and "@" not in plan.task_name):
        return None
    return PolicyError(
        f"task {task_entry(plan)}",
        allowed=shape.nearest(plan.task_name, list(allowed)) or "none (policy.tasks is empty)",
        next_step="add it to policy.tasks in site.yaml to allow this document, or its name to allow any of that name",
    )


def _unit(plan: RoundPlan, policy: PolicySettings) -> PolicyError | None:
    """A private run none of whose claims is for a unit of the operator's."""
    units = plan.privacy.units
    if policy.units is None or not units or set(units) & set(policy.units):
        return None
    return PolicyError(
        f"a claim per {' and per '.join(units)}",
        allowed=f"one for {' or '.join(policy.units) or 'nothing: the list is empty'} (policy.units)",
        next_step="launch with privacy.unit=entity or privacy=site, or add the unit to policy.units in site.yaml",
    )


def _weights(plan: RoundPlan) -> list[str]:
    """The hash of the weights that a run starts from: no word of the centre's that is one of an architecture."""
    found = plan.model.init_hash
    return [found] if len(found) == _HASH_DIGITS else []


def _weak(plan: RoundPlan, policy: PolicySettings) -> PolicyError | None:
    if _STRENGTH[plan.protection.mode] >= _STRENGTH[policy.minimum_protection]:
        return None
    return PolicyError(
        f"protection {plan.protection.mode}",
        allowed=policy.minimum_protection,
        next_step=_NEXT[policy.minimum_protection],
        refusal=RefusalCode.PROTECTION,
    )


def _cohort(plan: RoundPlan, policy: PolicySettings) -> list[PolicyError]:
    """A run that may add this site's values to fewer others than its rules want, or trusts more of them."""
    terms, found = plan.protection.terms, []
    if plan.protection.mode == "secagg" and terms.min_survivors < policy.cohort_min:
        few = PolicyError(
            f"sums over {terms.min_survivors} of {terms.min_cohort} sites",
            allowed=f"at least {policy.cohort_min} (policy.cohort_min)",
            next_step="policy.cohort_min=2 lets the one other site work out this one's values",
            refusal=RefusalCode.COHORT,
        )
        found.append(few)
    if plan.protection.mode == "secagg" and terms.colluding < policy.colluding_min:
        trusting = PolicyError(
            f"sums that hold against {terms.colluding} colluding sites",
            allowed=f"at least {policy.colluding_min} (policy.colluding_min)",
            next_step="launch with protection.terms.colluding that large, or lower policy.colluding_min in site.yaml",
            refusal=RefusalCode.COHORT,
        )
        found.append(trusting)
    return found


def _public(plan: RoundPlan, policy: PolicySettings) -> PolicyError | None:
    if plan.privacy.mode != "none" or not policy.require_privacy:
        return None
    return PolicyError(
        "a run without differential privacy",
        allowed="privacy=sample",
        next_step="policy.require_privacy=false allows runs that are not private",
    )


def _claims(plan: RoundPlan, policy: PolicySettings, unit: str) -> list[FedsiteError]:
    """What the plan itself says that one unit pays; what it really costs is worked out when it is to be reserved."""
    claim, found = plan.privacy.claim(unit), list[FedsiteError]()
    if claim.delta > policy.delta:
        found.append(PolicyError(f"delta {claim.delta} per {unit}", allowed=f"at most {policy.delta} (policy.delta)"))
    for allowed in (check_epsilon, check_epsilon_task):
        try:
            allowed(claim.epsilon or 0.0, policy, unit)
        except BudgetError as error:
            found.append(error)
    return found


def check_epsilon(epsilon: float, policy: PolicySettings, unit: str) -> None:
    """Refuse a run with which the data would have spent more than the site's cap for life.

    Raises:
        BudgetError: it would.
    """
    _capped(epsilon, policy.epsilon_max, f"with this run ε per {unit} would be", "epsilon_max", policy)


def check_epsilon_task(epsilon: float, policy: PolicySettings, unit: str) -> None:
    """Refuse a run with which the runs of its task would have spent more of the data than one task may.

    Args:
        epsilon: of all runs of this task on the same data, this one included, at `policy.delta`.
        policy: the site's.
        unit: of privacy.

    Raises:
        BudgetError: they would.
    """
    _capped(epsilon, policy.epsilon_task, f"with this run ε of its task per {unit} would be", "epsilon_task", policy)


def check_epsilon_round(epsilon: float, policy: PolicySettings, unit: str) -> None:
    """Refuse a run of which one round alone costs more than a round may.

    Args:
        epsilon: of what one round of training releases by itself, its evaluation included, at `policy.delta`.
        policy: the site's.
        unit: of privacy.

    Raises:
        BudgetError: it does.
    """
    _capped(epsilon, policy.epsilon_round, f"one round of this run costs ε per {unit} of", "epsilon_round", policy)


def _capped(epsilon: float, most: float | None, what: str, setting: str, policy: PolicySettings) -> None:
    # Written so that NaN is refused.
    if most is None or epsilon <= most:
        return
    raise BudgetError(
        f"{what} {epsilon:.3g} at δ {policy.delta:g}",
        allowed=f"at most {most:g} (policy.{setting})",
        next_step=f"fedsite privacy shows what was spent; the cap is policy.{setting} in site.yaml",
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
        IntegrityError: it is larger than a plan may be (`too-large`): to read it would take minutes.
    """
    check_size(len(data))
    try:
        plan = _parsed(data)
    except DocumentError as error:
        if error.refusal != RefusalCode.PROTOCOL_VERSION:  # of a release that is newer: to be upgraded, not repaired
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
