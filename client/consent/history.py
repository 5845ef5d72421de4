"""The runs this site knows of, and what each came to: plans and decisions, the audit log, the budget. Reads only.

No ε is worked out here, because that takes torch: what a run was reserved for stands in the budget.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fedsite.client.consent import approvals
from fedsite.client.consent.approvals import Approvals, Decision, Known
from fedsite.client.ledger.budget import reader
from fedsite.protocol import audit, audit_file, audit_lines
from fedsite.protocol.errors import ConfigError, FedsiteError, PolicyError
from fedsite.protocol.plan import RoundPlan
from fedsite.protocol.shape import nearest

SCHEMA: Final = "fedsite.rounds/1"
_ROUND: Final = ("released", "masked")  # kinds of audit entries that are a round's update, where the work is training


def value(directory: Path) -> dict[str, Any]:
    """Every run, oldest first, as one JSON value.

    Raises:
        BudgetError, StorageError: what it is read from is damaged.
    """
    store = Approvals(directory / approvals.FOLDER)
    ran, prices = _ran(directory), _prices(directory)
    found = [_run(known, _decision(store, known), ran.pop(known.plan.run_id, {}), prices) for known in store.known()]
    # Older runs, whose plans are kept no longer.
    found += [_bare(run_id, facts, prices) for run_id, facts in ran.items()]
    return {"schema": SCHEMA, "rounds": sorted(found, key=lambda run: str(run["run_id"]))}


def find(directory: Path, word: str) -> Known:
    """The plan of the run that `word` names: its id or the beginning of it, the hash of its plan, or `latest`.

    Raises:
        ConfigError: none, or several.
    """
    store = Approvals(directory / approvals.FOLDER)
    every = store.known()
    if word == "latest" and every:
        return every[-1]
    found = [one for one in every if one.plan.run_id.startswith(word.upper()) or one.plan.hash.startswith(word.lower())]
    if not found or not word:
        raise ConfigError(
            f"no run {word!r} is known here",
            allowed=nearest(word, [one.plan.run_id for one in every[-5:]]) if every else "none was ever asked for",
            next_step="fedsite rounds",
        )
    if len({one.plan.hash for one in found}) > 1:
        raise ConfigError(f"{word!r} names {len(found)} plans", allowed=", ".join(one.plan.hash for one in found[:5]))
    return found[0]


def state(known: Known, decision: Decision | None) -> str:
    """One word for where a run stands at this site."""
    if known.ended is not None:
        return "ended"
    if decision is not None and decision.verdict == "rejected":
        return "rejected"
    if known.accepted is not None:
        return "accepted"
    return "waiting" if decision is None else "approved"


def previous(directory: Path, plan: RoundPlan) -> RoundPlan | None:
    """The last plan of the same task that was agreed to here, before this one."""
    store = Approvals(directory / approvals.FOLDER)
    agreed = [
        known.plan
        for known in store.known()
        if known.plan.task_name == plan.task_name and known.plan.hash != plan.hash and _agreed(store, known)
    ]
    return agreed[-1] if agreed else None


def _agreed(store: Approvals, known: Known) -> bool:
    decision = _decision(store, known)
    return known.accepted is not None or (decision is not None and decision.verdict == "approved")


def _decision(store: Approvals, known: Known) -> Decision | None:
    with contextlib.suppress(PolicyError):
        return store.decision(known.plan.hash)
    return None


def _run(known: Known, decision: Decision | None, ran: Mapping[str, Any], prices: Mapping[str, Any]) -> dict[str, Any]:
    plan = known.plan
    return {
        **_bare(plan.run_id, ran, prices),
        "state": state(known, decision),
        "task": plan.task_name,
        "of": plan.rounds.count,
        "asked": known.asked,
        "ended": known.ended,
        "outcome": known.outcome or None,
        "plan_hash": plan.hash,
        "decided": None if decision is None else {name: getattr(decision, name) for name in ("verdict", "by", "at")},
    }


def _bare(run_id: str, ran: Mapping[str, Any], prices: Mapping[str, Any]) -> dict[str, Any]:
    """What the logs know of a run."""
    epsilon = prices.get(run_id, {})
    return {
        "run_id": run_id,
        "state": "ended" if ran.get("ended") else "accepted",
        "task": ran.get("task", ""),
        "rounds": ran.get("rounds", 0),
        "of": None,
        "asked": ran.get("at"),
        "ended": ran.get("ended"),
        "outcome": ran.get("outcome"),
        "bytes_down": ran.get("bytes_down", 0),
        "bytes_up": ran.get("bytes_up", 0),
        "seconds": round(float(ran.get("seconds", 0.0)), 3),
        "price": [{"unit": unit, "epsilon_reserved": value} for unit, value in sorted(epsilon.items())],
        "plan_hash": None,
        "decided": None,
    }


def _ran(directory: Path) -> dict[str, dict[str, Any]]:
    """What the audit log says of each run this site took part in."""
    found: dict[str, dict[str, Any]] = {}
    folder = directory / audit_file.FOLDER
    every = audit_lines.logs([folder]).values() if folder.is_dir() else ()
    for line in (line for paths in every for line in audit_lines.lines(paths)):
        try:
            entry = audit.read(line.data)
        except FedsiteError:
            continue  # fedsite audit verify names it
        run_id = str(entry.facts.get("run_id", ""))
        if entry.kind == "accepted":
            found.setdefault(run_id, {"at": entry.at, "task": str(entry.facts.get("task", ""))})
        if run_id not in found:
            continue
        run = found[run_id]
        for name in ("bytes_down", "bytes_up", "seconds"):
            run[name] = run.get(name, 0) + entry.facts.get(name, 0)
        if entry.kind in _ROUND and entry.facts.get("work") == "train":
            run.setdefault("numbers", set()).add(entry.facts.get("round"))
            run["rounds"] = len(run["numbers"])
        if entry.kind == "ended":
            run |= {"ended": entry.at, "outcome": str(entry.facts.get("outcome", "")) or None}
    return found


def _prices(directory: Path) -> dict[str, dict[str, float | None]]:
    """ε that each run was reserved for, by run and unit."""
    budget = reader(directory / "budget.db")
    if budget is None:
        return {}
    try:
        found: dict[str, dict[str, float | None]] = {}
        for entry in budget.entries():
            found.setdefault(entry.run_id, {})[entry.unit] = entry.epsilon
        return found
    finally:
        budget.close()
