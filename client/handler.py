"""One instruction in, one signed reply out: verify, ask for consent, reserve the budget, work, protect, keep, answer.

The order is the guarantee. Nothing of an instruction is believed before its signature is checked; no data is read
before rules, host, operator and budget have agreed, whichever instruction it is (consent.Consent); a release is charged
before its reply exists, and the reply is in the audit log and on disk before it leaves. Whatever goes wrong, the centre
learns one code; the text stays in the site's log.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

from fedsite.client.audit import facts as audit_facts
from fedsite.client.audit.facts import Audit, Heads, NoHeads
from fedsite.client.consent import approvals, policy
from fedsite.client.consent.approvals import Approvals
from fedsite.client.consent.gate import Consent
from fedsite.client.health import last_check
from fedsite.client.identity.site import Site
from fedsite.client.ledger import covered
from fedsite.client.ledger.budget import Budget
from fedsite.client.ledger.reservations import Worker
from fedsite.client.refusals import is_refusal, refusal_of
from fedsite.client.releases import Releases
from fedsite.client.settings import Settings, SettingsFile
from fedsite.client.store import Outbox, terms_of
from fedsite.client.sums import terms
from fedsite.client.sums.incoming import blob, check_purpose
from fedsite.client.sums.store import SumStore
from fedsite.client.sums.sums import Sums
from fedsite.client.work.protect import protect, reply_header
from fedsite.protocol import instants, messages, signing
from fedsite.protocol.errors import DocumentError, IntegrityError, RefusalCode, TrustError
from fedsite.protocol.messages import CONTROL, NEXT, Frame, Header
from fedsite.protocol.plan import RoundPlan

_log = logging.getLogger(__name__)

# What each kind of work is done on; under secure aggregation these are the mask stage of a sum.
_WORK: Mapping[str, tuple[str, ...]] = {
    "statistics": (), "train": ("model",), "evaluate": ("model",), "calibrate": ("graph",)
}  # fmt: skip
_NO_RUN = "0" * 26  # stands for the run where an instruction is too broken to name one


class Installer(Protocol):
    """Whoever puts a release into the idle slot (slots.Slots.install with a way to fetch)."""

    def __call__(self, version: str, manifest_hash: str) -> None:
        """Fetch, verify, self-test, switch; or raise and leave the current release alone."""


class Handler:
    """Answers instructions one at a time."""

    def __init__(
        self,
        *,
        site: Site,
        settings: Settings | SettingsFile,
        worker: Worker,
        budget: Callable[[], Budget],
        outbox: Outbox,
        install: Installer,
        not_now: Callable[[], str | None] = lambda: None,
        audit: Audit = lambda kind, facts: None,
        heads: Heads | None = None,
        clock: Callable[[], datetime] = instants.now,
    ) -> None:
        """Put the parts together.

        Args:
            site: who we are and whom we believe.
            settings: data and policy of this site, or the file they are in, which is looked at every time.
            worker: does what needs torch or data.
            budget: opens the budget, each time anew: a damaged file then refuses private runs and nothing else.
            outbox: what was answered.
            install: installs a release.
            not_now: why nothing may begin at this moment, or None (conditions.gate).
            audit: told, by kind and facts, what was accepted, refused, released, installed and decided.
            heads: exchanges the heads of both sides' audit logs; None where there are none.
            clock: UTC.
        """
        self._site = site
        self._outbox = outbox
        self._install = install
        self._clock = clock
        self._audit = audit
        self._heads = NoHeads() if heads is None else heads
        self._meter = audit_facts.Meter()
        asked = Approvals(site.directory / approvals.FOLDER)
        self._consent = Consent(settings, approvals=asked, not_now=not_now, audit=audit, clock=clock)
        self._releases = Releases(
            settings=self._consent.settings,
            worker=worker,
            budget=budget,
            outbox=outbox,
            key=site.key.derive(covered.PURPOSE),
            clock=clock,
            looked=lambda task, broken: last_check.keep(site.directory, task, broken, clock()),
        )
        self._sums = Sums(site, SumStore(outbox, site.key.derive("secagg")), clock)

    def handle(self, frame: Frame) -> Frame:
        """The reply to an instruction; never raises for anything the centre may send."""
        try:
            self._releases.use(self._consent.look())
            header = self._verify(frame)
            self._heads.received(header)
            stored = self._outbox.reply(header)
            if stored is not None and _answers(stored, frame):
                return stored
            self._consent.begin(header)
            if stored is not None:
                raise _answered(header)
            started = time.monotonic()
            blobs, body, plan = self._carry_out(header, frame)
            sent = sum(len(data) for data in blobs.values())
            self._meter.add(header.run_id, frame.size, sent, time.monotonic() - started)
            self._tell(header, frame, plan, blobs)
            reply = self._sign(header, frame, blobs, body)
            self._outbox.keep_reply(header, reply)
            if header.kind == "finish":
                self._outbox.finish(header.run_id)
            _log.info(
                "run %s: %s answered (round %s, attempt %s)",
                header.run_id, " of ".join(filter(None, (header.kind, header.purpose))), header.round, header.attempt,
            )  # fmt: skip
            return reply
        except Exception as error:
            return self._refuse(frame, error)

    def _verify(self, frame: Frame) -> Header:
        most = self._consent.settings.policy.bytes_max
        if frame.size > most:
            raise IntegrityError(
                f"instruction of {frame.size} bytes",
                allowed=f"at most {most} (policy.bytes_max)",
                refusal=RefusalCode.TOO_LARGE,
            )
        header = signing.open_instruction(frame, self._site.federation, self._site.id, self._clock())
        check_purpose(header)
        return header

    def _carry_out(self, header: Header, frame: Frame) -> tuple[dict[str, bytes], dict[str, Any], RoundPlan | None]:
        """Do what is asked, then make keys for the sum to come, where one is named; the reply, and the run's plan."""
        if header.kind in ("install", "finish"):
            if NEXT in {*frame.blobs, *header.body}:
                raise DocumentError(f"a sum to come after {header.kind}", allowed="none: the run is over")
            return {}, self._ended(header), None
        plan = self._plan(header, frame)
        decision = self._consent.plan(plan)
        coming = self._sums.coming(header, frame, plan, limit=self._consent.settings.policy.bytes_max)
        blobs = self._answer(header, frame, plan)
        if header.kind == "prepare":
            self._consent.accepted(plan, decision)
        if coming is not None:
            blobs["advert"] = self._sums.advert(coming)
        return blobs, {}, plan

    def _answer(self, header: Header, frame: Frame, plan: RoundPlan) -> dict[str, bytes]:
        """What the reply brings."""
        if header.kind == "prepare":
            self._releases.accept(header, plan)
            return {}
        if header.kind in _WORK:
            return self._work(header, frame, plan)
        terms.check_mode(plan)
        if header.kind == "share":
            return self._sums.share(header, frame)
        if header.kind == "confirm":
            return self._sums.confirm(header, frame)
        if header.kind == "unmask":
            return self._sums.unmask(header, frame)
        return {}  # advertise: the keys are all

    def _work(self, header: Header, frame: Frame, plan: RoundPlan) -> dict[str, bytes]:
        blobs = {name: blob(frame, name) for name in _WORK[header.kind]}
        if header.kind == "train" and plan.strategy.control:
            blobs[CONTROL] = blob(frame, CONTROL)
        if header.kind == "evaluate" and "graph" in frame.blobs:
            blobs["graph"] = blob(frame, "graph")
        if "model" in blobs and hashlib.sha256(blobs["model"]).hexdigest() != header.model_hash:
            raise IntegrityError("the model has another hash than its header says")
        terms.check_round(plan, header.kind, header.round)
        terms.check_start(plan, header)
        if plan.protection.mode != "secagg":
            return protect(self._releases.values(header, plan, blobs), header, plan.protection)
        turn = self._sums.turn(header, frame)
        if turn.kept.vector:
            self._sums.check_again(turn, self._outbox.values(header, terms_of(header, turn.manifest)))
        return self._sums.masked(turn, self._releases.values(header, plan, blobs, turn.manifest))

    def _ended(self, header: Header) -> dict[str, Any]:
        """Do what may come when a run has ended, and what ends it; returns the reply's body."""
        if header.kind == "finish":
            self._releases.finish(header.run_id)
            self._consent.ended(header)
            return {}
        version, manifest_hash = header.body.get("version"), header.body.get("manifest_hash")
        if not isinstance(version, str) or not isinstance(manifest_hash, str):
            raise DocumentError("install names no release", allowed="body with version and manifest_hash")
        self._install(version, manifest_hash)
        return {"version": version, "verified": True}

    def _plan(self, header: Header, frame: Frame) -> RoundPlan:
        """The plan that is to be accepted, or that was.

        Raises:
            DocumentError: none of this run was accepted, or not the one the header names.
        """
        data = blob(frame, "plan") if header.kind == "prepare" else self._outbox.plan(header.run_id)
        if data is None:
            raise DocumentError(f"run {header.run_id} was not prepared here", refusal=RefusalCode.PLAN_UNKNOWN)
        return policy.read_plan(data, header)

    def _tell(self, header: Header, frame: Frame, plan: RoundPlan | None, blobs: Mapping[str, bytes]) -> None:
        """The audit entry of an answer: before the answer can leave."""
        of_sum = self._sums.told(header, frame) if plan is not None and plan.protection.mode == "secagg" else {}
        found = audit_facts.entry(header, plan, blobs, of_sum)
        if found is not None:
            kind, facts = found
            self._audit(kind, {**facts, **self._meter.take(header.run_id)})

    def _sign(self, header: Header, frame: Frame, blobs: Mapping[str, bytes], body: Mapping[str, Any]) -> Frame:
        return signing.sign_reply(
            reply_header(header, signing.instruction_hash(frame), body={**body, **self._heads.head()}),
            blobs,
            self._site.key,
        )

    def _refuse(self, frame: Frame, error: Exception) -> Frame:
        """A reply that says no with a code, and nothing else."""
        code, failed = refusal_of(error), not is_refusal(error)
        if failed:
            _log.error("instruction failed: %s", error, exc_info=not hasattr(error, "found"))
        else:
            _log.warning("instruction refused (%s): %s", code, error)
        instruction = signing.instruction_hash(frame)
        nobody = Header(
            kind="finish", federation=self._site.federation.id, site_id=self._site.id, run_id=_NO_RUN, round=0,
            attempt=1, plan_hash="0" * 64,
        )  # fmt: skip
        try:
            header = messages.read_header(frame.header)
        except Exception:
            header = messages.addressed(frame.header) or nobody
        with contextlib.suppress(Exception):  # a refusal needs no log to be one
            self._consent.refused(header, code)
        try:
            reply = reply_header(header, instruction, code=code, failed=failed, body=self._heads.head())
            return signing.sign_reply(reply, {}, self._site.key)
        except Exception:
            return signing.sign_reply(reply_header(nobody, instruction, code=code, failed=failed), {}, self._site.key)


def _answers(stored: Frame, frame: Frame) -> bool:
    """Whether a stored reply is the one to this very instruction: it is sent again, byte for byte."""
    return messages.read_reply(stored.header).instruction == signing.instruction_hash(frame)


def _answered(header: Header) -> TrustError:
    return TrustError(
        f"another instruction was answered as attempt {header.attempt} of {header.kind}, round {header.round}",
        allowed="a new attempt number",
        refusal=RefusalCode.REPLAYED,
    )
