"""The facts that a site's health is judged by, read from its state directory; works with an agent and without one.

What cannot be read is a finding itself, and the facts that it would have given are left out.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from fedsite.client import state_directory
from fedsite.client.audit import log as audit_log
from fedsite.client.carried import standing
from fedsite.client.carried.standing import Standing
from fedsite.client.consent import approvals, conditions, host_facts, pause
from fedsite.client.device.slots import Installed
from fedsite.client.health import findings as health
from fedsite.client.health import last_check
from fedsite.client.health.checks import Balance, Contract
from fedsite.client.health.findings import Finding
from fedsite.client.identity.site import Site
from fedsite.client.ledger import balance, forgotten
from fedsite.client.ledger.balance import Count
from fedsite.client.link.unsent import FOLDER as UNSENT
from fedsite.client.link.unsent import Unsent
from fedsite.client.settings import Settings
from fedsite.client.store import Outbox, kept_plan
from fedsite.protocol import documents, instants, storage
from fedsite.protocol.errors import ConfigError, DocumentError, FedsiteError

RENEWAL: Final = "renewal"  # in agent.json and as a finding: the certificate could not be renewed
OVERRIDES: Final = "overrides"  # in agent.json: settings of the agent's command line
STOPPED: Mapping[str, Any] = {"state": "stopped"}
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One look at a site."""

    now: datetime
    directory: Path
    settings: Settings | None = None  # with those of the agent's command line; None: broken
    agent: Mapping[str, Any] = field(default_factory=lambda: STOPPED)  # agent.json, or state "stopped"
    certificate_expires: datetime | None = None
    balances: tuple[Balance, ...] = ()
    runs_open: int = 0
    runs_finished: int = 0
    runs_forgotten: tuple[str, ...] = ()  # ids of open ones that are over by their own plan
    contracts: tuple[Contract, ...] = ()
    waiting: tuple[str, ...] = ()  # ids of runs that wait for a person
    pause: pause.Pause | None = None
    not_now: tuple[str, ...] = ()  # why the host's own conditions keep the agent from working
    unsent: int = 0  # answers that wait to be sent
    unsent_since: datetime | None = None
    carried: Standing | None = None  # what waits to be carried; None: a connected site, or its agent runs
    model: Installed | None = None
    disk_free: int | None = None  # bytes
    memory_available: int | None = None  # bytes
    problems: tuple[Finding, ...] = ()  # of what could not be read


def read(who: Site, now: datetime, *, counting: Count | None = balance.count) -> Facts:
    """Look at a site that has joined.

    Args:
        who: the site.
        now: UTC.
        counting: how ε is counted; None: only figures that are kept are told (the agent holds no torch).
    """
    directory = who.directory
    problems: list[Finding] = []
    told = agent(directory)
    settings = _tried(problems, "settings", "site.yaml is broken", lambda: _settings(directory, overrides(told)))
    ledger = _tried(
        problems, "ledger", "the ledger cannot be read", lambda: _ledger(directory, settings, counting, now)
    )
    model = _tried(problems, "model", "the release cannot be used", lambda: _model(directory, who, now))
    balances, still_open, finished, left = ledger or ((), 0, 0, ())
    unsent = _tried(problems, "outbox", "the outbox cannot be read", lambda: _unsent(directory))
    waiting = _tried(problems, "decisions", "a decision cannot be read", lambda: _waiting(directory))
    _tried(problems, "audit", "the audit log takes no entries, so nothing leaves", audit_log.open_log(who).look)
    host = None if settings is None else host_facts.read(settings)
    carried = _carried(problems, directory, now) if told == STOPPED else None
    with contextlib.suppress(ConfigError):
        problems += [health.from_plain(told.pop(RENEWAL))] if RENEWAL in told else []
    return Facts(
        now=now,
        directory=directory,
        settings=settings,
        agent=told,
        certificate_expires=instants.read(who.certificate_expires) if who.certificate_expires else None,
        balances=balances,
        runs_open=still_open,
        runs_finished=finished,
        runs_forgotten=left,
        contracts=tuple(last_check.read(directory, () if settings is None else named_tasks(settings))),
        waiting=tuple(waiting or ()),
        pause=pause.read(directory, now),
        not_now=() if settings is None or host is None else tuple(conditions.reasons(settings.policy, host)),
        unsent=0 if unsent is None else unsent[0],
        unsent_since=None if unsent is None else unsent[1],
        carried=carried,
        model=model,
        disk_free=disk_free(directory),
        memory_available=memory_available(),
        problems=(*problems, *(() if settings is None or host is None else conditions.unknown(settings.policy, host))),
    )


def _carried(problems: list[Finding], directory: Path, now: datetime) -> Standing | None:
    if not standing.is_carried(directory):
        return None
    title = "what waits to be carried cannot be read"
    return _tried(problems, "exchange", title, lambda: standing.look(directory, now)) or Standing()


def agent(directory: Path) -> dict[str, Any]:
    """What the agent is doing; a file that was left by kill -9 does not count."""
    if not state_directory.running(directory):
        return dict(STOPPED)
    try:
        found = documents.parse(storage.read(directory / state_directory.STATE, limit=64 << 10))
    except FedsiteError:
        return {"state": "starting"}  # or it ended in this very moment
    return dict(found) if isinstance(found, dict) and isinstance(found.get("state"), str) else {"state": "starting"}


def overrides(told: Mapping[str, Any]) -> list[str]:
    """Settings of the command line that the agent was started with."""
    found = told.get(OVERRIDES)
    return [str(item) for item in found] if isinstance(found, list) else []


def disk_free(directory: Path) -> int | None:
    """Bytes that this user may still write there; None where the system does not say."""
    there = next((path for path in (directory, *directory.parents) if path.exists()), directory)
    try:
        return shutil.disk_usage(there).free
    except OSError:
        return None


def memory_available() -> int | None:
    """Bytes that programs may still take without swapping; None where the system does not say."""
    found = host_facts.memory_available()
    if found is not None:
        return found
    try:  # a device that only scores has no psutil
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def named_tasks(settings: Settings) -> list[str]:
    """The tasks that the site's settings name."""
    return list(dict.fromkeys([*settings.data.tasks, *(settings.policy.tasks or ())]))


def _settings(directory: Path, laid: Sequence[str]) -> Settings:
    from fedsite.client import settings

    return settings.load(directory, laid)


def _ledger(
    directory: Path, settings: Settings | None, counting: Count | None, now: datetime
) -> tuple[tuple[Balance, ...], int, int, tuple[str, ...]]:
    """Balances, the numbers of open and finished runs, and which of the open ones are over by their own plan."""
    from fedsite.client.ledger.budget import reader

    budget = reader(directory / state_directory.BUDGET)
    if budget is None:
        return (), 0, 0, ()
    try:
        entries = budget.entries()
        unfinished = {entry.run_id for entry in entries if entry.finished is None}  # a run has one for each unit
        found: tuple[Balance, ...] = ()
        if settings is not None:
            rules = settings.policy
            counted = balance.balances(entries, directory, cap=rules.epsilon_max, delta=rules.delta, counting=counting)
            found = tuple(counted)
        plans = directory / "outbox"
        left = forgotten.forgotten(entries, lambda run_id: forgotten.plan_of(kept_plan(plans, run_id)), now)
        return found, len(unfinished), len({entry.run_id for entry in entries} - unfinished), tuple(left)
    finally:
        budget.close()


def _model(directory: Path, who: Site, now: datetime) -> Installed | None:
    """The release in use, verified; None when there is none yet."""
    from fedsite.client.device.slots import Slots

    try:
        return Slots(directory, who.federation, clock=lambda: now).current()
    except DocumentError:
        raise
    except ConfigError:
        return None


def _unsent(directory: Path) -> tuple[int, datetime | None]:
    """How many answers wait to be sent, and since when the oldest does."""
    folder = directory / "outbox"
    return Unsent(Outbox(folder)).waiting() if (folder / UNSENT).is_dir() else (0, None)


def _waiting(directory: Path) -> list[str]:
    """Runs that nobody has decided about, the newest first.

    Raises:
        PolicyError: a decision is damaged.
    """
    store = approvals.Approvals(directory / approvals.FOLDER)
    open_ones = [known.plan for known in store.known() if known.accepted is None and known.ended is None]
    return [plan.run_id for plan in reversed(open_ones) if store.decision(plan.hash) is None]


def _tried(problems: list[Finding], code: str, title: str, read: Callable[[], T]) -> T | None:
    """What `read` gives; where it fails, its error is a problem."""
    try:
        return read()
    except Exception as error:
        # Lower layers have trees of their own, whose errors carry the same fields; anything else is a defect.
        if not hasattr(error, "found") and not isinstance(error, OSError | ValueError):
            raise
        problems.append(health.from_error(code, title, error))
        return None
