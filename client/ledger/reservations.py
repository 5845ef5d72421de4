"""What a run costs is set aside before data is read, and checked again once it is known whose records it reads.

A run is accepted when with it nothing it reads goes over a cap: neither what lies under the same name, nor any record
that earlier runs have read under another one. Where the data grows while the run goes on, the same check comes before
another release.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol

from fedsite.client import data
from fedsite.client.consent import policy
from fedsite.client.ledger import covered
from fedsite.client.ledger.budget import Budget
from fedsite.client.ledger.budget_entries import as_values, from_values
from fedsite.client.ledger.covered import Covered
from fedsite.client.settings import Settings
from fedsite.client.work import pipe
from fedsite.protocol import documents, instants
from fedsite.protocol.plan import RoundPlan
from fedsite.telemetry import coverage
from fedsite.telemetry.task import read_task

COVERAGE = "coverage"  # the part of the worker's answers that is for the budget alone


class Worker(Protocol):
    """Whoever holds torch and the data (worker_link.WorkerLink; tests have their own)."""

    def call(
        self, operation: str, arguments: Mapping[str, Any], blobs: Mapping[str, bytes], *, timeout_s: float
    ) -> pipe.Message:
        """Do one operation or raise."""


class Reservations:
    """The way of a run into the budget."""

    def __init__(
        self,
        *,
        settings: Settings,
        worker: Worker,
        budget: Callable[[], AbstractContextManager[Budget]],
        key: bytes,
        clock: Callable[[], datetime],
    ) -> None:
        """Put the parts together.

        Args:
            settings: data and policy.
            worker: prices runs.
            budget: opens the budget.
            key: hides the names of entities.
            clock: UTC.
        """
        self.settings = settings
        self._worker = worker
        self._budget = budget
        self._key = key
        self._clock = clock
        self._last = (b"", covered.everything(covered.key_id(key)))  # what the worker said, and what it means

    def reserve(self, plan: RoundPlan) -> None:
        """Set the whole run's cost aside for every unit, when with it the data stays within the site's caps.

        Raises:
            BudgetError, PolicyError: it costs more than the site allows, or than the plan claims.
        """
        source = self.source(plan)
        costs = {unit: self._checked(plan, unit, source, None) for unit in plan.privacy.units}
        with self._budget() as budget:
            for unit, cost in costs.items():
                budget.reserve(
                    run_id=plan.run_id,
                    unit=unit,
                    source=source,
                    task=plan.task_name,
                    plan_hash=plan.hash,
                    spends=from_values(cost["spends"]),
                    epsilon=float(cost["run"]),
                    delta=self.settings.policy.delta,
                    now=instants.text(self._clock()),
                )

    def cover(self, plan: RoundPlan, answer: pipe.Message) -> None:
        """Note whose records the worker has read, when these too stay within the caps.

        Args:
            plan: of the run, reserved.
            answer: the worker's; one that does not say stands for everything.

        Raises:
            BudgetError: some record would have spent more than the site allows. Nothing is noted.
        """
        found = self._read(answer)
        with self._budget() as budget:
            known = budget.covered(plan.run_id)
            if known is not None and found.within(known):
                return
            wider = found if known is None else known.joined(found)
            source = self.source(plan)
            more = [
                unit
                for unit in plan.privacy.units
                if self._spent(budget, plan, unit, source, wider) != self._spent(budget, plan, unit, source, known)
            ]
        for unit in more:
            self._checked(plan, unit, source, wider)
        with self._budget() as budget:
            budget.cover(plan.run_id, found)

    def source(self, plan: RoundPlan) -> str:
        """The data that the settings mean for a plan's task."""
        task = read_task(plan.task)
        return data.source_id(task, data.location(self.settings, task))

    def _read(self, answer: pipe.Message) -> Covered:
        if COVERAGE not in answer.blobs:
            return covered.everything(covered.key_id(self._key))
        told = answer.blobs[COVERAGE]
        if told != self._last[0]:
            value = documents.parse(told, limit=pipe.MAX_HEADER)
            self._last = (told, covered.hashed(coverage.from_plain(value), self._key))
        return self._last[1]

    def _checked(self, plan: RoundPlan, unit: str, source: str, reads: Covered | None) -> Mapping[str, Any]:
        """What the run costs one unit, once that is found to be within every cap."""
        rules = self.settings.policy
        with self._budget() as budget:
            spent, of_task = self._spent(budget, plan, unit, source, reads)
        answer = self._worker.call(
            "cost",
            {"unit": unit, "spent": spent, "of_task": of_task, "delta": rules.delta},
            {"plan": plan.encode()},
            timeout_s=self.settings.agent.operation_s,
        )
        cost = answer.header
        policy.check_claim(float(cost["claim"]), plan, unit)
        policy.check_epsilon_round(float(cost["round"]), rules, unit)
        if of_task is not None:
            policy.check_epsilon_task(float(cost["task"]), rules, unit)
        policy.check_epsilon(float(cost["epsilon"]), rules, unit)
        return cost

    def _spent(
        self, budget: Budget, plan: RoundPlan, unit: str, source: str, reads: Covered | None
    ) -> tuple[list[list[Any]], list[list[Any]] | None]:
        """What other runs have charged to the same data, and of that, those of the same task where it has a cap."""
        all_of_it = budget.charged(unit, source, without=plan.run_id, covered=reads)
        if self.settings.policy.epsilon_task is None:
            return as_values(all_of_it), None
        of_task = budget.charged(unit, source, without=plan.run_id, covered=reads, task=plan.task_name)
        return as_values(all_of_it), as_values(of_task)
