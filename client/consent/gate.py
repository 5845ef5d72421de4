"""What has to agree before this site's data is touched: the rules as they are now, the hour, the host, and a person.

The handler asks it for every instruction, not for the first of a run alone: what the operator changes holds from the
next instruction on. Rules that cannot be read allow nothing but the end of what has begun.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

from fedsite.client.audit.facts import Audit
from fedsite.client.consent import approvals, policy
from fedsite.client.consent.approvals import Approvals, Decision
from fedsite.client.settings import PolicySettings, Settings, SettingsFile
from fedsite.protocol import documents, instants, shape
from fedsite.protocol.errors import ASK_LATER, FedsiteError, PolicyError, RefusalCode
from fedsite.protocol.messages import Header
from fedsite.protocol.plan import RoundPlan
from fedsite.telemetry.errors import TelemetryError
from fedsite.telemetry.task import read_task

# Kinds that begin something: they read data, or bind this site to a sum that it would then leave.
BEGINS: Final = frozenset({"prepare", "statistics", "train", "evaluate", "calibrate", "advertise", "share"})
# Kinds that end what has begun, and are answered though nothing may begin now, and though the rules cannot be read: by
# those that could be read last. A rule that does not allow the run, and a person's no, hold for them too.
ENDS: Final = frozenset({"confirm", "unmask", "finish"})
_REMEMBERED: Final = 1000  # pairs of run and code

_log = logging.getLogger(__name__)


def objections(plan: RoundPlan, rules: PolicySettings) -> list[Exception]:
    """Everything about a plan that nobody at this site could agree to: the agent refuses with the first of them.

    What it would cost, and the data, come after: ledger.quote says the first without reading the second.
    """
    found: list[Exception] = []
    try:
        approvals.check_size(len(plan.encode()))
        read_task(plan.task)
    except (FedsiteError, TelemetryError) as error:
        found.append(error)
    return [*found, *policy.reasons(plan, rules)]


class Consent:
    """The gate in front of the data."""

    def __init__(
        self,
        settings: Settings | SettingsFile,
        *,
        approvals: Approvals,
        not_now: Callable[[], str | None],
        audit: Audit,
        clock: Callable[[], datetime],
    ) -> None:
        """Put the parts together.

        Args:
            settings: the operator's, or the file they are in, which is looked at before every instruction.
            approvals: what people were asked and answered.
            not_now: why nothing begins at this moment, or None (conditions.gate).
            audit: told what was accepted, what was refused, and when the rules changed.
            clock: UTC.

        Raises:
            ConfigError: there is a file, and it cannot be read.
        """
        self._file = settings if isinstance(settings, SettingsFile) else None
        self.settings = settings if isinstance(settings, Settings) else settings.current()
        self._approvals = approvals
        self._not_now = not_now
        self._audit = audit
        self._clock = clock
        self._broken: Exception | None = None
        self._digest = ""
        self._told: set[tuple[str, str]] = set()  # (run, code) of refusals that a person's delay repeats
        self._seen()

    def look(self) -> Settings:
        """The rules as they are now; where they cannot be read, those that held last, and nothing begins."""
        if self._file is not None:
            try:
                self.settings = self._file.current()
                self._broken = None
            except Exception as error:
                self._broken = error
        self._seen()
        return self.settings

    def begin(self, header: Header) -> None:
        """Refuse what would begin while it must not.

        Raises:
            PolicyError: not at this moment (`not-now`).
        """
        if self._broken is not None and header.kind not in ENDS:
            raise PolicyError(
                f"the rules of this site cannot be read: {getattr(self._broken, 'found', self._broken)}",
                allowed=str(getattr(self._broken, "allowed", "")),
                next_step=str(getattr(self._broken, "next_step", "") or "fedsite policy show"),
                refusal=RefusalCode.NOT_NOW,
            )
        reason = self._not_now() if header.kind in BEGINS else None
        if reason is not None:
            raise PolicyError(reason, next_step="fedsite status; or fedsite resume", refusal=RefusalCode.NOT_NOW)

    def plan(self, plan: RoundPlan) -> Decision | None:
        """Refuse a plan that the rules or a person do not allow; returns the decision that it rests on, if any.

        Raises:
            PolicyError, BudgetError: the rules do not allow it, or a person said no.
            PolicyError: nobody has decided yet (`approval`); the plan is kept for them.
            IntegrityError, TelemetryError: it is too large, or its task is none: nobody is asked about that.
        """
        for objection in objections(plan, self.settings.policy):
            raise objection
        try:
            return approvals.check(plan, self.settings.policy.approval, self._approvals)
        except PolicyError as error:
            if error.refusal == RefusalCode.APPROVAL:
                self._approvals.note(plan, instants.text(self._clock()))
            raise

    def accepted(self, plan: RoundPlan, decision: Decision | None) -> None:
        """Write down that this site takes part in a run."""
        self._approvals.note(plan, instants.text(self._clock()), accepted=True)
        facts = {"run_id": plan.run_id, "plan": plan.hash, "recipe": plan.recipe, "task": plan.task_name}
        who = None if decision is None else {"plan": decision.plan_hash, "by": decision.by, "at": decision.at}
        self._audit("accepted", {**facts, "decision": who})

    def ended(self, header: Header) -> None:
        """Write down that a run is over."""
        self._approvals.end(header.run_id, str(header.body.get("outcome", "")), instants.text(self._clock()))
        self._told = {item for item in self._told if item[0] != header.run_id}

    def refused(self, header: Header, code: RefusalCode) -> None:
        """Tell the audit of a refusal: of one that is asked for again and again, once a run."""
        if code in ASK_LATER and not self._first(header.run_id, str(code)):
            return
        facts = {"run_id": header.run_id, "instruction": header.kind, "round": header.round, "code": str(code)}
        self._audit("refused", facts)

    def _first(self, run_id: str, what: str) -> bool:
        """Whether this is told for the first time of a run; a few runs are remembered."""
        if len(self._told) > _REMEMBERED:
            self._told.clear()
        known = (run_id, what) in self._told
        self._told.add((run_id, what))
        return not known

    def _seen(self) -> None:
        """Tell the audit which rules hold, when these are others than before."""
        if self._broken is not None:
            digest = "unreadable"
        elif self._file is not None:
            digest = self._file.digest
        else:
            digest = documents.digest(shape.plain(self.settings))
        if digest != self._digest:
            if self._digest:
                _log.warning("the rules of this site have changed (site.yaml, %s)", digest[:12])
            self._digest = digest
            self._audit("policy", {"site_yaml": digest})
