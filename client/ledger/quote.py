"""What a run would cost this site's data, and the balance after: for people who have not agreed to it yet.

Nothing of the data is read: what counts is what runs on the same source, and on records known to be the same, have
spent. The agent asks again once it has seen whose records the run reads, and may then refuse what this allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fedsite.client.consent import policy
from fedsite.client.ledger import prices
from fedsite.client.ledger.budget import Budget, reader
from fedsite.client.ledger.covered import Covered
from fedsite.client.settings import PolicySettings
from fedsite.protocol.errors import FedsiteError
from fedsite.protocol.plan import RoundPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """ε of one privacy unit, all at the site's own δ."""

    unit: str
    delta: float
    run: float  # the whole run by itself
    round: float  # one round by itself
    before: float | None  # everything spent on this data; None without a budget
    after: float
    task_after: float | None  # of the runs of the same task; None where that has no cap
    cap: float
    refused: tuple[FedsiteError, ...] = ()  # why the caps do not allow it

    @property
    def left(self) -> float:
        """Of the cap, after the run."""
        return max(0.0, self.cap - self.after)

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "unit": self.unit,
            "delta": self.delta,
            "epsilon": self.run,
            "epsilon_round": self.round,
            "epsilon_before": self.before,
            "epsilon_after": self.after,
            "epsilon_task_after": self.task_after,
            "epsilon_max": self.cap,
            "epsilon_left": self.left,
        }


def quotes(
    plan: RoundPlan, rules: PolicySettings, path: Path, source: str, covered: Covered | None = None
) -> list[Quote]:
    """One for each unit the run makes a claim about; none without privacy.

    Args:
        plan: of the run.
        rules: the site's.
        path: of the budget, which may not be there yet.
        source: of the data (data.source_id).
        covered: the records that the data holds, where it has been read; None: those that runs on it have read.

    Raises:
        BudgetError: the budget cannot be read. PrivacyError: no accountant can answer.
    """
    if not plan.privacy.units:
        return []
    budget = reader(path)
    try:
        return [_quote(plan, rules, budget, source, unit, covered) for unit in plan.privacy.units]
    finally:
        if budget is not None:
            budget.close()


def _quote(
    plan: RoundPlan, rules: PolicySettings, budget: Budget | None, source: str, unit: str, covered: Covered | None
) -> Quote:
    charged = None if budget is None else partial(budget.charged, unit, source, without=plan.run_id, covered=covered)
    spent = [] if charged is None else charged()
    same = [] if charged is None else charged(task=plan.task_name)
    of_task = None if rules.epsilon_task is None else same
    cost = prices.cost(plan, unit, delta=rules.delta, spent=spent, of_task=of_task)
    refused = []
    try:
        policy.check_claim(float(cost["claim"]), plan, unit)
    except FedsiteError as error:
        refused.append(error)
    for check, value in (
        (policy.check_epsilon_round, cost["round"]),
        (policy.check_epsilon_task, cost["task"]),
        (policy.check_epsilon, cost["epsilon"]),
    ):
        try:
            check(0.0 if value is None else float(value), rules, unit)
        except FedsiteError as error:
            refused.append(error)
    return Quote(
        unit=unit,
        delta=rules.delta,
        run=float(cost["run"]),
        round=float(cost["round"]),
        before=prices.epsilon(spent, rules.delta, unit) if spent else (None if budget is None else 0.0),
        after=float(cost["epsilon"]),
        task_after=None if cost["task"] is None else float(cost["task"]),
        cap=rules.epsilon_max,
        refused=tuple(refused),
    )
