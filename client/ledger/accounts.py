"""What `fedsite privacy` shows: ε by run, by data source and by task, each unit apart, and what is left of the caps.

ε is that of all runs on the same data together, whatever task they belonged to and whichever model came of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fedsite.client.ledger.budget_entries import Entry, concerning
from fedsite.client.ledger.prices import epsilon
from fedsite.client.settings import PolicySettings
from fedsite.protocol.plan import SITE

SCHEMA: Final = "fedsite.privacy/1"
WHOLE_SITE: Final = "this site"  # stands for the source where the unit is a site, which is one whatever it reads


def value(entries: Sequence[Entry], rules: PolicySettings) -> dict[str, Any]:
    """Everything as one JSON value.

    Raises:
        PrivacyError: no accountant can answer.
    """
    return {
        "schema": SCHEMA,
        **caps(rules),
        "sources": [source(unit, name, entries, rules) for unit, name in keys(entries)],
        "tasks": [_task(unit, name, entries, rules) for unit, name in sorted({(e.unit, e.task) for e in entries})],
        "runs": [run(entry, rules.delta) for entry in entries],
    }


def caps(rules: PolicySettings) -> dict[str, Any]:
    """What the site allows, and at which δ."""
    return {
        "epsilon_max": rules.epsilon_max,
        "epsilon_task": rules.epsilon_task,
        "epsilon_round": rules.epsilon_round,
        "delta": rules.delta,
    }


def keys(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """Units and sources that have an account."""
    return sorted({(entry.unit, WHOLE_SITE if entry.unit == SITE else entry.source) for entry in entries})


def counted(unit: str, source: str, entries: Sequence[Entry]) -> list[Entry]:
    """The runs that an account consists of: on that source, or on records that runs on it have read."""
    return concerning(entries, unit, source)


def source(unit: str, name: str, entries: Sequence[Entry], rules: PolicySettings) -> dict[str, Any]:
    """One unit of one data source: what counts against the cap there, open reservations included."""
    found = counted(unit, name, entries)
    charged = epsilon([spend for entry in found for spend in entry.charged], rules.delta, unit)
    elsewhere = 0 if unit == SITE else sum(entry.source != name for entry in found)
    return {
        "source": name,
        "unit": unit,
        "epsilon": charged,
        "left": max(0.0, rules.epsilon_max - charged),
        "runs": len(found),
        "inherited": elsewhere,
    }


def run(entry: Entry, delta: float) -> dict[str, Any]:
    """One unit of one run."""
    return {
        "run_id": entry.run_id,
        "task": entry.task,
        "unit": entry.unit,
        "state": "finished" if entry.finished else "open",
        "epsilon_spent": epsilon(entry.spent, delta, entry.unit),
        "epsilon_reserved": epsilon(entry.charged, delta, entry.unit),
        "releases": sum(spend.steps for spend in entry.spent),
        "created": entry.created,
    }


def _task(unit: str, name: str, entries: Sequence[Entry], rules: PolicySettings) -> dict[str, Any]:
    """All runs of one task, as if they had all been on the same data: no less than what its cap is compared with."""
    found = [entry for entry in entries if (entry.unit, entry.task) == (unit, name)]
    charged = epsilon([spend for entry in found for spend in entry.charged], rules.delta, unit)
    left = None if rules.epsilon_task is None else max(0.0, rules.epsilon_task - charged)
    return {"task": name, "unit": unit, "epsilon": charged, "left": left, "runs": len(found)}
