"""What a site releases and pays for: reserved before data is read, charged before it leaves, free when sent again.

A release is the noised values of one piece of work, as they will be sent, sealed or masked. Another attempt at the same
work sends these again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime

from fedsite.client import data, variates
from fedsite.client.consent import policy
from fedsite.client.ledger.budget import Budget
from fedsite.client.ledger.reservations import COVERAGE, Reservations, Worker
from fedsite.client.settings import Settings
from fedsite.client.store import Outbox, failure_name, release_name, terms_of
from fedsite.client.work import pipe
from fedsite.client.work.control import VARIATE
from fedsite.privacy.accounting import Spend
from fedsite.protocol import instants
from fedsite.protocol.errors import DocumentError, RefusalCode
from fedsite.protocol.messages import Header
from fedsite.protocol.plan import RoundPlan
from fedsite.protocol.secagg.manifest import Manifest
from fedsite.telemetry.task import read_task


class Releases:
    """The way to the worker, past the budget."""

    def __init__(
        self,
        *,
        settings: Settings,
        worker: Worker,
        budget: Callable[[], Budget],
        outbox: Outbox,
        key: bytes,
        clock: Callable[[], datetime],
        looked: Callable[[str, Sequence[str]], None] = lambda task, broken: None,
    ) -> None:
        """Put the parts together; arguments as for handler.Handler, `key` as for Reservations.

        `looked` is told, by task, what breaks its contract when the data was looked at for a run (last_check.keep).
        """
        self._settings = settings
        self._worker = worker
        self._open_budget = budget
        self._outbox = outbox
        self._clock = clock
        self._looked = looked
        self._reservations = Reservations(settings=settings, worker=worker, budget=self._budget, key=key, clock=clock)

    def use(self, settings: Settings) -> None:
        """Go by these settings from now on."""
        self._settings = self._reservations.settings = settings

    def accept(self, header: Header, plan: RoundPlan) -> None:
        """Reserve what the whole run costs, have the worker check model and data and say whose it is, keep the plan.

        Raises:
            DocumentError: the run was accepted with another plan (`wrong-run`).
            BudgetError, PolicyError: it costs more than the site allows, or than the plan claims.
            Others of the tree: the worker's refusal; what was reserved is free again.
        """
        known = self._outbox.plan(plan.run_id)
        if known is not None and known != plan.encode():
            # Keys and values of this run are for the sums, and the noise, of the plan they were made under.
            raise DocumentError(
                f"another plan for run {plan.run_id}", allowed="the accepted one", refusal=RefusalCode.WRONG_RUN
            )
        private = plan.privacy.mode != "none"
        if private:
            self._reservations.reserve(plan)
        try:
            answer = self._ask(header, plan, {})
            self._looked(plan.task_name, ())
            if private:
                self._reservations.cover(plan, answer)
        except Exception as error:
            broken = tuple(getattr(error, "broken", ()))
            if broken:
                self._looked(plan.task_name, broken)
            if private and known is None:
                # Nothing has left: what was set aside for it is free again.
                with self._budget() as budget:
                    budget.cancel(plan.run_id)
            raise
        self._outbox.accept(plan.run_id, plan.encode())

    def values(
        self, header: Header, plan: RoundPlan, blobs: Mapping[str, bytes], manifest: Manifest | None = None
    ) -> bytes:
        """The values to send: those of an earlier attempt at the same work, or new ones, charged before they return.

        Where a sum's noise is shared among its sites, another attempt is other noise, and paid for again.

        Args:
            header: of the instruction.
            plan: the accepted one.
            blobs: what the work is done on.
            manifest: of the sum they are for; None outside a secure sum.

        Returns:
            Encoded arrays (weights.encode), or for a sum its vector (protect.vector).
        """
        terms = terms_of(header, manifest)
        spends, values = policy.price(plan, header), self._outbox.values(header, terms)
        if spends:
            source = self._reservations.source(plan)
            known = "" if values is None else release_name(header, values, terms)
            with self._budget() as budget:
                for unit, costs in spends.items():
                    budget.authorise(plan.run_id, known, costs, unit=unit, source=source)
        if values is None:
            values = self._compute(header, plan, blobs, manifest)
            self._outbox.keep_values(header, values, terms)
        self._charge(plan, release_name(header, values, terms), spends)
        if _controlled(header, plan):
            variates.paid(self._outbox.folder(plan.run_id), header.round, values)
        return values

    def finish(self, run_id: str) -> None:
        """Give back what a run reserved and did not use."""
        with self._budget() as budget:
            budget.finish(run_id, instants.text(self._clock()))

    def _compute(self, header: Header, plan: RoundPlan, blobs: Mapping[str, bytes], manifest: Manifest | None) -> bytes:
        given = blobs if manifest is None else {**blobs, "manifest": manifest.encode()}
        controlled, folder = _controlled(header, plan), self._outbox.folder(plan.run_id)
        if controlled and (kept := variates.before(folder, variates.counted(header))) is not None:
            given = {**given, VARIATE: kept}
        private = plan.privacy.mode != "none"
        if private and header.kind == "calibrate":
            # Its failure is charged too, and brings no word of whose records were read: these are asked for before. A
            # graph that may not run at all is refused then, unread and free.
            self._reservations.cover(plan, self._ask(header, plan, given, COVERAGE))
        try:
            answer = self._ask(header, plan, given)
        except Exception:
            if header.kind == "calibrate":
                # The graph is the centre's: that it never ended, or killed the worker, can be a fact about the data.
                self._charge(plan, failure_name(header), policy.price(plan, header))
            raise
        if private:
            self._reservations.cover(plan, answer)
        values = bytes(answer.blobs["values" if manifest is None else "vector"])
        if controlled:
            # Before the update is kept, which is never computed again then.
            variates.pending(folder, header.round, bytes(answer.blobs[VARIATE]), values)
        return values

    def _ask(self, header: Header, plan: RoundPlan, blobs: Mapping[str, bytes], operation: str = "") -> pipe.Message:
        arguments = {
            "location": data.plain(data.location(self._settings, read_task(plan.task))),
            "round": header.round,
            "normalisation": header.body.get("normalisation"),
            "tensors": header.body.get("tensors"),
            "evaluate": policy.evaluates(plan, header),
        }
        return self._worker.call(
            operation or header.kind, arguments, {"plan": plan.encode(), **blobs}, timeout_s=self._seconds_left(header)
        )

    def _charge(self, plan: RoundPlan, release: str, spends: Mapping[str, Sequence[Spend]]) -> None:
        if spends:
            with self._budget() as budget:
                for unit, costs in spends.items():
                    budget.commit(plan.run_id, release, costs, instants.text(self._clock()), unit=unit)

    @contextlib.contextmanager
    def _budget(self) -> Iterator[Budget]:
        budget = self._open_budget()
        try:
            yield budget
        finally:
            budget.close()

    def _seconds_left(self, header: Header) -> float:
        longest = self._settings.agent.operation_s
        if not header.expires:
            return longest
        left = (instants.read(header.expires) - self._clock()).total_seconds()
        return max(0.0, min(left, longest))


def _controlled(header: Header, plan: RoundPlan) -> bool:
    """Whether this is a round whose steps are corrected by control variates."""
    return header.kind == "train" and plan.strategy.control
