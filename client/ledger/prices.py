"""What a run costs one privacy unit, as ε: the whole of it, one round, and together with what was spent before.

ε brings torch along, so the agent asks its worker; a command that prints ε pays for it itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedsite.client.ledger.budget_entries import as_values
from fedsite.models import spends
from fedsite.privacy.accounting import Accountant, Spend
from fedsite.protocol.plan import SITE, RoundPlan


def whole(plan: RoundPlan, unit: str) -> tuple[Spend, ...]:
    """Everything that a site releases that takes part in all of a run."""
    asked = spends.whole(plan)
    return spends.in_sums(plan, asked) if unit == SITE else spends.own(plan, asked)


def one_round(plan: RoundPlan, unit: str) -> tuple[Spend, ...]:
    """What one round of training releases, with the evaluation that may come with it."""
    asked = spends.Asked(trained=1, evaluated=1, statistics=False, calibrated=False)
    return spends.in_sums(plan, asked) if unit == SITE else spends.own(plan, asked)


def epsilon(priced: Sequence[Spend], delta: float, unit: str, accountant: Accountant = "prv") -> float:
    """ε of one unit at `delta`; noise in sums is accounted for by its own bound.

    Raises:
        PrivacyError: no accountant can answer.
    """
    from fedsite.privacy import accounting, distributed

    return (
        distributed.equivalent_epsilon(priced, delta) if unit == SITE else accounting.epsilon(priced, delta, accountant)
    )


def cost(
    plan: RoundPlan, unit: str, *, delta: float, spent: Sequence[Spend], of_task: Sequence[Spend] | None
) -> dict[str, Any]:
    """The prices that a site's caps are about, as plain JSON.

    Args:
        plan: of the run.
        unit: the privacy unit.
        delta: the site's own.
        spent: of the same data before.
        of_task: what of that went to runs of the same task; None: not asked.

    Returns:
        `spends` of the run; `run`, `round`, `epsilon` (with `spent`) and `task` (with `of_task`) at `delta`; `claim` at
        the plan's own δ and accountant.
    """
    priced, claim = whole(plan, unit), plan.privacy.claim(unit)
    accountant = plan.privacy.accountant
    return {
        "spends": as_values(priced),
        "claim": epsilon(priced, claim.delta, unit, accountant),
        "run": epsilon(priced, delta, unit, accountant),
        "round": epsilon(one_round(plan, unit), delta, unit, accountant),
        "epsilon": epsilon([*spent, *priced], delta, unit),
        "task": None if of_task is None else epsilon([*of_task, *priced], delta, unit),
    }
