"""The checks of a site: each takes facts and gives a finding, or None where all is well or nothing is known.

Nothing in here reads a file, a clock or the network: `health_facts` does, and `doctor` measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fedsite.client.consent.pause import Pause
from fedsite.client.health.findings import Finding
from fedsite.protocol import instants, output
from fedsite.protocol.errors import ExitCode

CERTIFICATE_WARNING = timedelta(days=7)  # the agent renews long before: whoever sees this has one that could not
CLOCK_AHEAD_S = 5.0  # Flower's bounds for the time in a request's signature
CLOCK_BEHIND_S = 300.0
CLOCK_WARNING = 0.4  # share of a bound from which the clock is worth a look
DISK_RESERVE = 4  # times what is needed, below which the disk is worth a look
LEFT_LOW = 0.1  # share of the ε cap that is worth a word
UNSENT_OLD = timedelta(hours=1)
CONTRACT_OLD = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """What one data source has been charged per unit, against the site's cap."""

    source: str
    unit: str
    epsilon: float | None  # None where nothing here can count it
    cap: float
    runs: int

    @property
    def left(self) -> float | None:
        """ε that runs may still cost."""
        return None if self.epsilon is None else max(0.0, self.cap - self.epsilon)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What the last look at a task's data said."""

    task: str
    checked: datetime | None  # None: never
    codes: tuple[str, ...] = ()  # of what is wrong


def agent(state: str) -> Finding | None:
    """Whether an agent runs."""
    if state != "stopped":
        return None
    return Finding(
        code="agent",
        severity="error",
        title="no agent runs",
        text="the centre's instructions go unanswered",
        remedy="fedsite up",
        exit_code=ExitCode.UNREACHABLE,
    )


def link(state: str, error: str) -> Finding | None:
    """Whether the agent reaches the server, and the two agree what time it is."""
    if state == "clock":
        title, remedy = "the clock is wrong", "switch time synchronisation on (timedatectl set-ntp true)"
        why = {"text": error, "depends_on": ("agent",), "exit_code": ExitCode.TRUST}
        return Finding(code="clock", severity="error", title=title, remedy=remedy, **why)  # type: ignore[arg-type]
    if state != "unreachable":
        return None
    return Finding(
        code="link",
        severity="error",
        title="the server is out of reach",
        text=error or "the server does not answer",
        remedy="nothing, if it is down: the agent keeps trying; else fedsite doctor",
        depends_on=("agent", "resolve", "connect", "tls"),
        exit_code=ExitCode.UNREACHABLE,
    )


def certificate(expires: datetime | None, now: datetime) -> Finding | None:
    """How long the site's certificate still holds."""
    if expires is None or expires - now >= CERTIFICATE_WARNING:
        return None
    gone = now >= expires
    left = f"it expired at {instants.text(expires)}" if gone else f"{days(expires, now):.1f} days are left"
    return Finding(
        code="certificate",
        severity="error" if gone else "warning",
        title="the certificate has expired" if gone else "the certificate ends soon",
        text=left,
        remedy="ask the central team for a new token, then fedsite join file:TOKENFILE"
        if gone
        else "keep fedsite up running: it renews by itself; else ask for a token and join again",
        exit_code=ExitCode.TRUST,
    )


def days(until: datetime, now: datetime) -> float:
    """Days from `now`; below 0 in the past."""
    return (until - now).total_seconds() / 86_400


def clock(ahead_s: float | None, uncertainty_s: float = 0.0) -> Finding | None:
    """Whether this host's clock is near enough to the server's.

    Args:
        ahead_s: seconds by which it is ahead of the server's; below 0 behind it.
        uncertainty_s: seconds by which the measurement may be wrong.
    """
    if ahead_s is None:
        return None
    bound = CLOCK_AHEAD_S if ahead_s > 0 else CLOCK_BEHIND_S
    off = max(0.0, abs(ahead_s) - uncertainty_s)
    if off <= CLOCK_WARNING * bound:
        return None
    return Finding(
        code="clock",
        severity="error" if off > bound else "warning",
        title="the clock is wrong" if off > bound else "the clock is off",
        text=f"{off:.0f} s {'ahead of' if ahead_s > 0 else 'behind'} the server's; "
        f"allowed: at most {CLOCK_AHEAD_S:.0f} s ahead and {CLOCK_BEHIND_S:.0f} s behind",
        remedy="switch time synchronisation on (timedatectl set-ntp true)",
        depends_on=("tls",),
        exit_code=ExitCode.TRUST,
    )


def disk(free: int | None, needed: int, where: str) -> Finding | None:
    """Whether an answer and a release still fit on the disk; `free` and `needed` in bytes."""
    if free is None or free >= DISK_RESERVE * needed:
        return None
    full = free < needed
    return Finding(
        code="disk",
        severity="error" if full else "warning",
        title="the disk is full" if full else "the disk fills up",
        text=f"{size(free)} free at {where}; needed: {size(needed)} for answers and a release",
        remedy=f"free some space (df -h {where}), or set FEDSITE_HOME to another disk",
        exit_code=ExitCode.STORAGE,
    )


def memory(available: int | None, allowed: int, needed: int) -> Finding | None:
    """Whether a round of training fits; all in bytes, `allowed` (agent.worker_memory) 0 where there is no bound."""
    if 0 < allowed < needed:
        text = f"the training process may take {size(allowed)}; needed: about {size(needed)}"
        remedy = "raise agent.worker_memory in site.yaml, or use a host with more memory"
    elif available is not None and available < needed:
        text = f"{size(available)} available; needed: about {size(needed)} for a round of training"
        remedy = "end other programs, or use a host with more memory"
    else:
        return None
    return Finding(
        code="memory",
        severity="warning",
        title="little memory for training",
        text=text,
        remedy=remedy,
        exit_code=ExitCode.STORAGE,
    )


def budget(balance: Balance) -> Finding | None:
    """How much ε one data source has left."""
    if balance.epsilon is None or balance.left is None or balance.left >= LEFT_LOW * balance.cap:
        return None
    gone = balance.left <= 0
    spent, cap = output.epsilon(balance.epsilon), output.epsilon(balance.cap)
    return Finding(
        code="budget",
        severity="warning",
        title="the privacy budget is used up" if gone else "little privacy budget left",
        text=f"ε {spent} of {cap} per {balance.unit} of {balance.source}"
        + (": private runs on it are refused" if gone else ""),
        remedy="fedsite privacy lists the runs; the cap is policy.epsilon_max in site.yaml",
        depends_on=("settings", "ledger"),
        exit_code=ExitCode.BUDGET,
    )


def uncounted(balances: Sequence[Balance]) -> Finding | None:
    """Whether ε of what was charged is not counted yet: the agent does not, nor a device without the libraries."""
    if not any(balance.epsilon is None for balance in balances):
        return None
    return Finding(
        code="uncounted",
        severity="info",
        title="ε is not counted yet",
        text="something was charged since it was counted last",
        remedy="fedsite privacy counts it, where fedsite[site] is installed",
        depends_on=("settings", "ledger"),
    )


def contract(last: Contract, now: datetime) -> Finding | None:
    """What the last check of a task's data said, and how long ago that was."""
    remedy = f"fedsite data check {last.task}"
    if last.codes:
        return Finding(
            code="contract",
            severity="error",
            title=f"the data does not fit {last.task}",
            text=", ".join(last.codes) + (f", checked {ago(last.checked, now)}" if last.checked else ""),
            remedy=remedy,
            depends_on=("settings",),
            exit_code=ExitCode.DATA,
        )
    if last.checked is not None and now - last.checked < CONTRACT_OLD:
        return None
    return Finding(
        code="contract",
        severity="info",
        title=f"data for {last.task} " + ("was never checked" if last.checked is None else "was checked long ago"),
        text="the check tells before a run does" if last.checked is None else ago(last.checked, now),
        remedy=remedy,
        depends_on=("settings",),
    )


def approvals(runs: Sequence[str]) -> Finding | None:
    """Whether runs wait for a person's decision."""
    if not runs:
        return None
    more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
    return Finding(
        code="approval",
        severity="warning",
        title="a run waits for your decision" if len(runs) == 1 else f"{len(runs)} runs wait for your decision",
        text=runs[0] + more,
        remedy=f"fedsite rounds show {runs[0]}",
    )


def pause(found: Pause | None) -> Finding | None:
    """Whether the operator has paused the agent."""
    if found is None:
        return None
    end = f"until {instants.text(found.until)}" if found.until is not None else "until fedsite resume"
    return Finding(
        code="paused",
        severity="info" if found.until is not None else "warning",
        title="paused",
        text=f"since {instants.text(found.since)}, {end}" + (f" ({found.reason})" if found.reason else ""),
        remedy="fedsite resume",
    )


def conditions(reasons: Sequence[str]) -> Finding | None:
    """Whether the host's own conditions (hours, power, heat, link) keep the agent from working now."""
    if not reasons:
        return None
    return Finding(
        code="not-now",
        severity="info",
        title="not working just now",
        text="; ".join(reasons),
        remedy="nothing: the agent works when they hold again; they are policy in site.yaml",
        depends_on=("settings",),
    )


def outbox(unsent: int, oldest: datetime | None, now: datetime) -> Finding | None:
    """Whether answers wait to be sent."""
    if not unsent:
        return None
    old = oldest is not None and now - oldest > UNSENT_OLD
    return Finding(
        code="unsent",
        severity="warning" if old else "info",
        title="an answer waits to be sent" if unsent == 1 else f"{unsent} answers wait to be sent",
        text=f"the oldest was made {ago(oldest, now)}" if oldest is not None else "the server was out of reach",
        remedy="nothing: they are sent after the next connection, once, or dropped when they expire",
    )


def size(count: int) -> str:
    """Bytes for people: 1.5 MB."""
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "bytes" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("the last unit returns")


def ago(moment: datetime, now: datetime) -> str:
    """How long ago, for people."""
    seconds = (now - moment).total_seconds()
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return "just now"
