"""One exchange with the sites over the round machine: instructions out, verified answers in, over by its deadline."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from fedsite.protocol import instants, signing
from fedsite.protocol.errors import FedsiteError
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.messages import NEXT, Frame, Header, ReplyHeader, read_header
from fedsite.protocol.plan import RoundPlan
from fedsite.protocol.sealing import RunKey
from fedsite.server.audit_log import RunTrail
from fedsite.server.link.transport import Failure, Link, SiteLink
from fedsite.server.rounds import machine as rounds
from fedsite.server.rounds.machine import Reply, Status
from fedsite.server.rounds.overdue import Late, Overdue
from fedsite.server.rounds.question import Answer, Question, Result, SiteAnswer
from fedsite.server.rounds.replies import read_raw, read_values
from fedsite.server.runs.journal import Draft, Journal

SLICE_S = 0.5  # longest wait before stop requests are looked at, seconds
GRACE_S = 30.0  # an instruction outlives its deadline by this, so that a site's clock may be off
SPARE_S = 1.0  # once there is enough, the rest has as long again as it took so far, and this, seconds
EPOCH = 1000  # attempt numbers of one driver

_log = logging.getLogger(__name__)
Taking = Callable[[Answer], None]


class Exchange:
    """Asks sites questions in the name of one run and attempt.

    Attempt numbers rise through the whole run: epoch e of its drivers begins at (e - 1) * EPOCH + 1, and each sum that
    is tried again takes the next one.
    """

    def __init__(
        self,
        *,
        plan: RoundPlan,
        epoch: int,
        link: Link,
        key: SigningKey,
        run_key: RunKey | None,
        journal: Journal,
        stopping: Callable[[], bool],
        trail: RunTrail | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._plan = plan
        self.trail = RunTrail(None, plan.run_id) if trail is None else trail
        self._last = epoch * EPOCH
        self.attempt = self._last - EPOCH + 1
        self._link = link
        self._key = key
        self._run_key = run_key
        self._public = "" if run_key is None else run_key.public
        self._journal = journal
        self._stopping = stopping
        self._clock = clock
        self._now = now
        self.overdue = Overdue(link, journal, clock)

    def renew(self) -> bool:
        """Go on under the next attempt number; false when this driver has used up all of its own."""
        self.attempt = min(self.attempt + 1, self._last)
        return self.attempt < self._last

    def ask(self, question: Question, sites: Sequence[SiteLink], take: Taking | None = None) -> Result:
        """Ask `sites`, best first, and hand each answer that is in time to `take`, one at a time.

        `take` is called before the next reply is opened, and keeps nothing of it that it does not copy. What it raises
        of our own errors makes the answer invalid.
        """
        return _Asking(self, question, sites, take).run()

    def instruction(self, question: Question, site: SiteLink) -> Frame:
        """The signed instruction for one site."""
        lasts = question.valid_s
        if site.carried and question.kind == "finish":
            lasts = self._plan.rounds.deadline_s  # nobody waits for its answer, but it has a way to go
        expires = datetime.fromtimestamp(self._now(), UTC) + timedelta(seconds=lasts + GRACE_S)
        header = Header(
            kind=question.kind,
            purpose=question.purpose or "",
            federation=self._plan.federation,
            site_id=site.site_id,
            run_id=self._plan.run_id,
            round=question.round,
            attempt=self.attempt,
            plan_hash=self._plan.hash,
            model_hash=question.model_hash,
            run_key=self._public,
            expires=instants.text(expires),
            body={
                **question.body,
                **question.own.get(site.site_id, {}),
                **self.trail.offer(question.kind, site.site_id),
            },
        )
        blobs = {**question.blobs, **question.each.get(site.site_id, {})}
        return signing.sign_instruction(header, blobs, self._key)


@dataclass(slots=True)
class _Sent:
    site: SiteLink
    header: bytes
    asked: Header
    size: int


class _Asking:
    """One question on its way."""

    def __init__(self, desk: Exchange, question: Question, sites: Sequence[SiteLink], take: Taking | None) -> None:
        self._desk = desk
        self._question = question
        self._sites = {site.site_id: site for site in sites}
        self._take = take
        self._sent: dict[str, _Sent] = {}  # by message id
        self._answers: dict[str, SiteAnswer] = {}
        self._late: list[Late] = []
        self._drafts: list[Draft] = []  # of a stage's replies: many small ones

    def run(self) -> Result:
        desk, question = self._desk, self._question
        started = desk._clock()
        self._state, effects = rounds.open_round(
            question.rules, number=question.round, attempt=desk.attempt, candidates=list(self._sites), at=started
        )
        asked = [site for effect in effects if isinstance(effect, rounds.Ask) for site in effect.sites]
        desk._journal.record(
            "asked",
            **self._phase,
            round=question.round,
            attempt=desk.attempt,
            sites=[self._sites[site].name for site in asked],
            deadline_s=question.rules.deadline_s,
        )
        desk.trail.begin()
        self._send([self._sites[site] for site in asked])
        while self._state.outcome is None:
            if desk._stopping():
                self._step(rounds.Stop(at=desk._clock()))
                break
            self._receive()
            self._hurry()
            self._step(rounds.Tick(at=desk._clock()))
        seconds = desk._clock() - started
        unanswered = {message: self._as_late(sent.site) for message, sent in self._sent.items()}
        if self._drafts:
            desk._journal.record_all(self._drafts)
        desk.overdue.add(unanswered, started + question.valid_s + GRACE_S)
        self._late += desk.overdue.settle()
        answers = self._final()
        desk.trail.exchanged(self._facts(), answers)
        return Result(state=self._state, seconds=seconds, answers=answers, late=self._late)

    def _send(self, sites: Sequence[SiteLink]) -> None:
        desk, question = self._desk, self._question
        frames = [(site, desk.instruction(question, site)) for site in sites]
        ids = desk._link.send(frames, question.valid_s + GRACE_S) if frames else []
        for (site, frame), message in zip(frames, ids, strict=True):
            down = frame.size if message is not None else 0
            self._answers[site.site_id] = SiteAnswer(
                status=Status.ASKED, code=None, seconds=0.0, bytes_up=0, bytes_down=down, charged=down > 0
            )
            if message is None:
                self._lost(site, "could not be sent")
            else:
                asked = read_header(frame.header)
                self._sent[message] = _Sent(site=site, header=frame.header, asked=asked, size=down)

    def _receive(self) -> None:
        left = self._state.deadline - self._desk._clock()
        for message, found in self._desk._link.poll(list(self._sent), wait_s=max(0.0, min(left, SLICE_S))):
            sent = self._sent.pop(message, None)
            if sent is None:
                continue
            if isinstance(found, Failure):
                self._lost(sent.site, found.reason)
            else:
                self._answer(sent, found)
            if self._state.outcome is not None:
                return

    def _hurry(self) -> None:
        """Bring the deadline closer once there is enough."""
        state = self._state
        if state.outcome is None and self._question.enough():
            passed = self._desk._clock() - state.opened_at
            sooner = min(state.rules.deadline_s, 2 * passed + SPARE_S)
            self._state = dataclasses.replace(state, rules=dataclasses.replace(state.rules, deadline_s=sooner))
            self._question = dataclasses.replace(self._question, enough=lambda: False)

    def _answer(self, sent: _Sent, frame: Frame) -> None:
        """Verify, open and count one reply; whatever is wrong with it is that site's outcome, not the run's."""
        at = self._desk._clock()
        told = Reply(
            site=sent.site.site_id, round=self._question.round, attempt=self._desk.attempt, at=at, status=Status.OK
        )
        if rounds.ignored(self._state, told) is not None:
            self._step(told)
            self._late.append(self._as_late(sent.site))
            self._desk.overdue.note(self._late[-1])
            return
        status, code, reply = Status.INVALID, None, None
        try:
            reply = signing.open_reply(frame, sent.site.public_key, instruction=sent.header)
            self._desk.trail.replied(sent.site.site_id, frame, reply)
            code = reply.code
            status = {"ok": Status.OK, "refused": Status.REFUSED, "failed": Status.FAILED}[reply.outcome]
            if status is Status.OK:
                self._count(sent, frame, reply)
        except FedsiteError as error:
            status, code = Status.INVALID, error.refusal
            _log.warning("reply of site %s does not count: %s", sent.site.name, error)
        body = {} if reply is None or status is Status.INVALID else reply.body
        self._note(sent.site, status, code, at, frame.size, body)
        self._step(dataclasses.replace(told, status=status, code=code))  # type: ignore[arg-type]

    def _count(self, sent: _Sent, frame: Frame, reply: ReplyHeader) -> None:
        """Open an ok reply and hand it on.

        Raises:
            FedsiteError: it is not what it must be.
        """
        question = self._question
        raw = read_raw(frame, reply, question.sizes.get(reply.site_id, {}), next_sum=NEXT in question.blobs)
        values = read_values(frame, reply, sent.asked, self._desk._run_key, question.expected, without=set(raw))
        if self._take is not None:
            self._take(Answer(site=sent.site, reply=reply, values=values, blobs=raw))

    @property
    def _phase(self) -> dict[str, str]:
        question = self._question
        found: dict[str, str] = {"phase": question.kind}
        return found if question.purpose is None else {**found, "purpose": question.purpose}

    def _facts(self) -> dict[str, Any]:
        """Of the exchange, for the audit log."""
        desk, question = self._desk, self._question
        facts = {"kind": question.kind, "purpose": question.purpose or "", "round": question.round}
        return {**facts, "attempt": desk.attempt, "plan": desk._plan.hash, "model": question.model_hash}

    def _as_late(self, site: SiteLink) -> Late:
        kind, number = self._question.kind, self._question.round
        return Late(site_id=site.site_id, site=site.name, phase=kind, round=number, carried=site.carried)

    def _lost(self, site: SiteLink, reason: str) -> None:
        _log.warning("site %s: %s", site.name, reason)
        at = self._desk._clock()
        self._step(rounds.Lost(site=site.site_id, at=at))
        self._note(site, Status.UNREACHABLE, None, at, 0, {})

    def _note(
        self, site: SiteLink, status: Status, code: str | None, at: float, size: int, body: Mapping[str, Any]
    ) -> None:
        seconds = at - self._state.opened_at
        answer = dataclasses.replace(
            self._answers[site.site_id], status=status, code=code, seconds=seconds, bytes_up=size, body=body
        )
        self._answers[site.site_id] = answer
        reply = self._desk._journal.draft(
            "reply",
            **self._phase,
            round=self._question.round,
            attempt=self._desk.attempt,
            site=site.name,
            outcome=str(status),
            code=None if code is None else str(code),
            seconds=round(seconds, 4),
            bytes_up=size,
            bytes_down=answer.bytes_down,
        )
        if self._question.purpose is None:
            self._desk._journal.record_all([reply])
        else:
            self._drafts.append(reply)

    def _step(self, event: rounds.Event) -> list[rounds.Effect]:
        self._state, effects = rounds.step(self._state, event)
        return effects

    def _final(self) -> dict[str, SiteAnswer]:
        """Answers with the machine's own verdict on those that never came."""
        return {
            site: dataclasses.replace(answer, status=self._state.sites[site]) for site, answer in self._answers.items()
        }
