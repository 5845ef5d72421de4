"""One round as a pure state machine: events in, the next state and its effects out. No I/O, no clock, no waiting.

Rules:
 1. A round asks its sites once, when it opens; each asked site ends with exactly one status.
 2. Only the first answer of an asked site, to this round and attempt, received by the deadline, counts.
 3. A duplicate, late, unknown or wrong-attempt reply changes nothing but a counter.
 4. The round closes once, as soon as it is decided: the goal is met, every asked site has answered, the minimum can no
    longer be met, it is told to stop, or the deadline has passed.
 5. It closes with a named outcome: completed (goal met), degraded (minimum met, goal not), abandoned (with the reason).

The same machine bounds every exchange with the sites (prepare, evaluate, calibrate, install), not training alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

from fedsite.protocol.errors import RefusalCode

RoundOutcome = Literal["completed", "degraded", "abandoned"]


class Status(StrEnum):
    """What became of one asked site."""

    ASKED = "asked"  # no answer yet
    OK = "ok"  # counted
    REFUSED = "refused"  # the site said no, with a code
    FAILED = "failed"  # the site tried and could not, with a code
    INVALID = "invalid"  # its reply was not what it must be (signature, shape, a value that is not finite)
    UNREACHABLE = "unreachable"  # the instruction could not be delivered, or the link lost it
    SILENT = "silent"  # the round closed before it answered
    UNUSED = "unused"  # it answered, but the secure sum that it is in was not opened


class Ignored(StrEnum):
    """Why a reply did not count."""

    DUPLICATE = "duplicate"
    LATE = "late"
    UNKNOWN = "unknown"
    WRONG_ATTEMPT = "wrong-attempt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Bounds of one round."""

    minimum: int  # answers that count; below: abandoned
    goal: int | None = None  # answers wanted; None: every site asked
    over_select: float = 1.0  # asks ceil(goal * over_select) sites
    deadline_s: float  # seconds from opening to the last answer counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A verified reply, or the verdict that it is not one."""

    site: str
    round: int
    attempt: int
    at: float  # receipt time at the server, seconds
    status: Literal[Status.OK, Status.REFUSED, Status.FAILED, Status.INVALID]
    code: RefusalCode | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The instruction or its reply did not get through."""

    site: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time passes."""

    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """The run is being stopped."""

    at: float


Event = Reply | Lost | Tick | Stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Send the instruction to these sites."""

    sites: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Add this site's reply to the aggregate."""

    site: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Discard:
    """Drop this reply unread."""

    site: str
    why: Ignored


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """The round is over."""

    outcome: RoundOutcome
    reason: str


Effect = Ask | Count | Discard | Close


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundState:
    """Where a round stands; `outcome` is None exactly while it is open."""

    number: int
    attempt: int
    rules: Rules
    opened_at: float  # seconds
    sites: Mapping[str, Status] = field(default_factory=dict)
    codes: Mapping[str, RefusalCode] = field(default_factory=dict)
    ignored: Mapping[Ignored, int] = field(default_factory=dict)
    outcome: RoundOutcome | None = None
    reason: str = ""

    @property
    def deadline(self) -> float:
        """The last moment at which an answer counts, seconds."""
        return self.opened_at + self.rules.deadline_s

    @property
    def goal(self) -> int:
        """Answers wanted."""
        return len(self.sites) if self.rules.goal is None else self.rules.goal

    def having(self, status: Status) -> tuple[str, ...]:
        """The sites with this status, in the order in which they were asked."""
        return tuple(site for site, found in self.sites.items() if found is status)


def open_round(
    rules: Rules, *, number: int, attempt: int, candidates: Sequence[str], at: float
) -> tuple[RoundState, list[Effect]]:
    """Open a round over `candidates`, best first, and ask as many of them as the rules want."""
    wanted = len(candidates) if rules.goal is None else math.ceil(rules.goal * rules.over_select)
    asked = tuple(dict.fromkeys(candidates))[:wanted]
    state = RoundState(
        number=number, attempt=attempt, rules=rules, opened_at=at, sites=dict.fromkeys(asked, Status.ASKED)
    )
    effects: list[Effect] = []
    if len(asked) >= max(rules.minimum, 1):
        effects.append(Ask(sites=asked))
    state, closing = _decide(state, at)
    return state, effects + closing


def step(state: RoundState, event: Event) -> tuple[RoundState, list[Effect]]:
    """Take one event. A closed round stays as it is: replies that still arrive are counted as late."""
    if isinstance(event, Reply):
        why = ignored(state, event)
        if why is not None:
            counted = {**state.ignored, why: state.ignored.get(why, 0) + 1}
            state, closing = _decide(replace(state, ignored=counted), event.at)
            return state, [Discard(site=event.site, why=why), *closing]
        codes = state.codes if event.code is None else {**state.codes, event.site: event.code}
        state = replace(state, sites={**state.sites, event.site: event.status}, codes=codes)
        effects: list[Effect] = [Count(site=event.site)] if event.status is Status.OK else []
        state, closing = _decide(state, event.at)
        return state, effects + closing
    if state.outcome is not None:
        return state, []
    if isinstance(event, Lost):
        if state.sites.get(event.site) is Status.ASKED and event.at <= state.deadline:
            state = replace(state, sites={**state.sites, event.site: Status.UNREACHABLE})
        return _decide(state, event.at)
    if isinstance(event, Stop):
        return _close(state, "abandoned", "the run was stopped")
    return _decide(state, event.at)


def ignored(state: RoundState, reply: Reply) -> Ignored | None:
    """Why a reply does not count whatever is in it, or None."""
    if reply.site not in state.sites:
        return Ignored.UNKNOWN
    if (reply.round, reply.attempt) != (state.number, state.attempt):
        return Ignored.WRONG_ATTEMPT
    if state.outcome is not None or reply.at > state.deadline:
        return Ignored.LATE
    return None if state.sites[reply.site] is Status.ASKED else Ignored.DUPLICATE


def _decide(state: RoundState, at: float) -> tuple[RoundState, list[Effect]]:
    """Close the round if it is decided at this moment."""
    if state.outcome is not None:
        return state, []
    counted = len(state.having(Status.OK))
    pending = len(state.having(Status.ASKED))
    if not state.sites:
        return _close(state, "abandoned", "no site to ask")
    if counted >= state.goal:
        return _close(state, "completed", f"{counted} of {len(state.sites)} sites answered")
    if counted + pending < state.rules.minimum:
        short = f"{counted + pending} of {len(state.sites)} sites can answer, minimum {state.rules.minimum}"
        return _close(state, "abandoned", short)
    if pending and at < state.deadline:
        return state, []
    why = f"{counted} of {len(state.sites)} sites answered"
    if pending:
        why += f" by the deadline of {state.rules.deadline_s:g} s"
    if counted < state.rules.minimum:
        return _close(state, "abandoned", f"{why}, minimum {state.rules.minimum}")
    return _close(state, "degraded", f"{why}, goal {state.goal}")


def _close(state: RoundState, outcome: RoundOutcome, reason: str) -> tuple[RoundState, list[Effect]]:
    sites = {site: Status.SILENT if status is Status.ASKED else status for site, status in state.sites.items()}
    state = replace(state, sites=sites, outcome=outcome, reason=reason)
    return state, [Close(outcome=outcome, reason=reason)]
