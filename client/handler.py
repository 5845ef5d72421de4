"""One instruction in, one signed reply out: verify, ask the policy, reserve the budget, work, protect, keep, answer.

The order is the guarantee. Nothing of an instruction is believed before its signature is checked; no data is read
before policy and budget have agreed; a release is charged before its reply exists, and the reply is on disk before it
leaves. Whatever goes wrong, the centre learns one code; the text stays in the site's log.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from fedsite.client import data, pipe, policy
from fedsite.client.budget import Budget, as_values, from_values
from fedsite.client.protect import protect, reply_header
from fedsite.client.refusals import is_refusal, refusal_of
from fedsite.client.settings import Settings
from fedsite.client.site import Site
from fedsite.client.store import Outbox, release_name
from fedsite.privacy.accounting import Spend
from fedsite.protocol import instants, messages, signing
from fedsite.protocol.errors import DocumentError, IntegrityError, RefusalCode, TrustError
from fedsite.protocol.messages import Frame, Header
from fedsite.protocol.plan import ProtectionPlan, RoundPlan
from fedsite.telemetry.task import Task, read_task

_log = logging.getLogger(__name__)

_BLOBS = {"statistics": (), "train": ("model",), "evaluate": ("model",), "calibrate": ("graph",)}
_NO_RUN = "0" * 26  # stands for the run where an instruction is too broken to name one


class Worker(Protocol):
    """Whoever holds torch and the data (worker_link.WorkerLink; tests have their own)."""

    def call(
        self, operation: str, arguments: Mapping[str, Any], blobs: Mapping[str, bytes], *, timeout_s: float
    ) -> pipe.Message:
        """Do one operation or raise."""


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
        settings: Settings,
        worker: Worker,
        budget: Callable[[], Budget],
        outbox: Outbox,
        install: Installer,
        clock: Callable[[], datetime] = instants.now,
    ) -> None:
        """Put the parts together.

        Args:
            site: who we are and whom we believe.
            settings: data and policy of this site.
            worker: does what needs torch or data.
            budget: opens the budget, each time anew: a damaged file then refuses private runs and nothing else.
            outbox: what was answered.
            install: installs a release.
            clock: UTC.
        """
        self._site = site
        self._settings = settings
        self._worker = worker
        self._open_budget = budget
        self._outbox = outbox
        self._install = install
        self._clock = clock

    def handle(self, frame: Frame) -> Frame:
        """The reply to an instruction; never raises for anything the centre may send."""
        try:
            header = self._verify(frame)
            stored = self._outbox.reply(header)
            if stored is not None:
                return self._again(header, frame, stored)
            reply = self._carry_out(header, frame)
            self._outbox.keep_reply(header, reply)
            if header.kind == "finish":
                self._outbox.finish(header.run_id)
            _log.info(
                "run %s: %s answered (round %s, attempt %s)", header.run_id, header.kind, header.round, header.attempt
            )
            return reply
        except Exception as error:
            return self._refuse(frame, error)

    def _verify(self, frame: Frame) -> Header:
        if frame.size > self._settings.policy.bytes_max:
            raise IntegrityError(
                f"instruction of {frame.size} bytes",
                allowed=f"at most {self._settings.policy.bytes_max} (policy.bytes_max)",
                refusal=RefusalCode.TOO_LARGE,
            )
        return signing.open_instruction(frame, self._site.federation, self._site.id, self._clock())

    def _again(self, header: Header, frame: Frame, stored: Frame) -> Frame:
        """The very bytes that were sent before, for the very same instruction only."""
        if messages.read_reply(stored.header).instruction != signing.instruction_hash(frame):
            raise TrustError(
                f"another instruction was answered as attempt {header.attempt} of {header.kind}, round {header.round}",
                allowed="a new attempt number",
                refusal=RefusalCode.REPLAYED,
            )
        return stored

    def _carry_out(self, header: Header, frame: Frame) -> Frame:
        if header.kind == "prepare":
            return self._prepare(header, frame)
        if header.kind == "install":
            return self._install_release(header, frame)
        if header.kind == "finish":
            return self._finish(header, frame)
        if header.kind in _BLOBS:
            return self._work(header, frame)
        raise DocumentError(f"instruction {header.kind}", allowed=", ".join(_BLOBS))

    def _prepare(self, header: Header, frame: Frame) -> Frame:
        plan = policy.read_plan(_blob(frame, "plan"), header)
        policy.check(plan, self._settings.policy)
        task = read_task(plan.task)
        private = plan.privacy.mode != "none"
        if private:
            self._reserve(plan, task)
        try:
            self._ask(header, plan, task, {}, {})
        except Exception:
            if private and self._outbox.plan(plan.run_id) is None:
                # Nothing has been read out of the data: what was set aside for it is free again.
                self._budget(lambda budget: budget.cancel(plan.run_id))
            raise
        self._outbox.accept(plan.run_id, plan.encode())
        return self._sign(header, frame, {})

    def _work(self, header: Header, frame: Frame) -> Frame:
        plan = self._plan(header)
        task = read_task(plan.task)
        blobs = {name: _blob(frame, name) for name in _BLOBS[header.kind]}
        if header.kind == "evaluate" and "graph" in frame.blobs:
            blobs["graph"] = _blob(frame, "graph")
        if "model" in blobs and hashlib.sha256(blobs["model"]).hexdigest() != header.model_hash:
            raise IntegrityError("the model has another hash than its header says")
        policy.check_round(plan, header)
        values = self._release(header, plan, task, header.body, blobs)
        return protect(values, header, signing.instruction_hash(frame), plan.protection, self._site.key, body={})

    def _release(
        self, header: Header, plan: RoundPlan, task: Task, body: Mapping[str, Any], blobs: Mapping[str, bytes]
    ) -> bytes:
        """The values to send: those of an earlier attempt at the same work, or new ones, charged before they return."""
        spends, values = policy.price(plan, header), self._outbox.values(header)
        if spends:
            source = data.source_id(task, data.location(self._settings, task))
            known = "" if values is None else release_name(header, values)
            self._budget(lambda budget: budget.authorise(plan.run_id, known, spends, source=source))
        if values is None:
            values = self._compute(header, plan, task, body, blobs)
            self._outbox.keep_values(header, values)
        if spends:
            self._charge(plan, release_name(header, values), spends)
        return values

    def _compute(
        self, header: Header, plan: RoundPlan, task: Task, body: Mapping[str, Any], blobs: Mapping[str, bytes]
    ) -> bytes:
        try:
            answer = self._ask(header, plan, task, body, blobs)
        except Exception:
            if header.kind == "calibrate":
                # The graph is the centre's: that it never ended, or killed the worker, can be a fact about the data.
                self._charge(plan, f"{header.round}/{header.kind}/failed", policy.price(plan, header))
            raise
        return bytes(answer.blobs.get("values", b""))

    def _ask(
        self, header: Header, plan: RoundPlan, task: Task, body: Mapping[str, Any], blobs: Mapping[str, bytes]
    ) -> pipe.Message:
        arguments = {
            "location": data.plain(data.location(self._settings, task)),
            "round": header.round,
            "normalisation": body.get("normalisation"),
            "tensors": body.get("tensors"),
            "evaluate": policy.evaluates(plan, header),
        }
        return self._worker.call(
            header.kind, arguments, {"plan": plan.encode(), **blobs}, timeout_s=self._seconds_left(header)
        )

    def _charge(self, plan: RoundPlan, release: str, spends: Sequence[Spend]) -> None:
        now = instants.text(self._clock())
        if spends:
            self._budget(lambda budget: budget.commit(plan.run_id, release, spends, now))

    def _reserve(self, plan: RoundPlan, task: Task) -> None:
        """Set the whole run's cost aside, when with it the data stays within the site's cap."""
        rules = self._settings.policy
        unit, source = plan.privacy.unit, data.source_id(task, data.location(self._settings, task))
        spent = self._budget(lambda budget: budget.charged(unit, source, without=plan.run_id))
        answer = self._worker.call(
            "cost",
            {"spent": as_values(spent), "delta": rules.delta},
            {"plan": plan.encode()},
            timeout_s=self._settings.agent.operation_s,
        )
        policy.check_claim(float(answer.header["claim"]), plan)
        policy.check_epsilon(float(answer.header["epsilon"]), rules, unit)
        self._budget(
            lambda budget: budget.reserve(
                run_id=plan.run_id,
                unit=unit,
                source=source,
                task=plan.task_name,
                plan_hash=plan.hash,
                spends=from_values(answer.header["spends"]),
                epsilon=float(answer.header["run"]),
                delta=rules.delta,
                now=instants.text(self._clock()),
            )
        )

    def _install_release(self, header: Header, frame: Frame) -> Frame:
        version, manifest_hash = header.body.get("version"), header.body.get("manifest_hash")
        if not isinstance(version, str) or not isinstance(manifest_hash, str):
            raise DocumentError("install names no release", allowed="body with version and manifest_hash")
        self._install(version, manifest_hash)
        return self._sign(header, frame, {"version": version, "verified": True})

    def _finish(self, header: Header, frame: Frame) -> Frame:
        now = instants.text(self._clock())
        self._budget(lambda budget: budget.finish(header.run_id, now))
        return self._sign(header, frame, {})

    def _plan(self, header: Header) -> RoundPlan:
        data = self._outbox.plan(header.run_id)
        if data is None:
            raise DocumentError(f"run {header.run_id} was not prepared here", refusal=RefusalCode.PLAN_UNKNOWN)
        plan = policy.read_plan(data, header)
        # The operator may have tightened the policy since the run was accepted.
        policy.check(plan, self._settings.policy)
        return plan

    def _budget(self, action: Callable[[Budget], Any]) -> Any:
        budget = self._open_budget()
        try:
            return action(budget)
        finally:
            budget.close()

    def _seconds_left(self, header: Header) -> float:
        longest = self._settings.agent.operation_s
        if not header.expires:
            return longest
        left = (instants.read(header.expires) - self._clock()).total_seconds()
        return max(0.0, min(left, longest))

    def _sign(self, header: Header, frame: Frame, body: Mapping[str, Any]) -> Frame:
        return protect(
            b"", header, signing.instruction_hash(frame), ProtectionPlan(mode="none"), self._site.key, body=body
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
            return signing.sign_reply(reply_header(header, instruction, code=code, failed=failed), {}, self._site.key)
        except Exception:
            return signing.sign_reply(reply_header(nobody, instruction, code=code, failed=failed), {}, self._site.key)


def _blob(frame: Frame, name: str) -> bytes:
    if name not in frame.blobs:
        raise DocumentError(
            f"the instruction brings no {name}", allowed=f"a blob {name}", refusal=RefusalCode.MALFORMED
        )
    return bytes(frame.blobs[name])
