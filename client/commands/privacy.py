"""`fedsite privacy`: what every run has cost this site's data, and what is left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsite.protocol import output
from fedsite.protocol.errors import ConfigError

if TYPE_CHECKING:
    from fedsite.client.budget_entries import Entry
    from fedsite.privacy.accounting import Spend

SCHEMA = "fedsite.privacy/1"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("privacy", rich_help_panel="Site operator")(privacy)


def privacy(
    close: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Close a run the server never ended: what it did not spend is free."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Show ε spent by run, unit and data source, and the site's cap; units are never added up."""
    from fedsite.client import assembly, settings
    from fedsite.client.budget import Budget

    directory = settings.state_directory()
    rules = settings.load(directory).policy
    if close is not None:
        _close(directory, close)
    path = directory / assembly.BUDGET
    entries: list[Entry] = []
    if path.exists():
        budget = Budget(path, read_only=True)
        entries = budget.entries()
        budget.close()
    value = {
        "schema": SCHEMA,
        "epsilon_max": rules.epsilon_max,
        "delta": rules.delta,
        "sources": [_source(key, entries, rules.epsilon_max, rules.delta) for key in _keys(entries)],
        "runs": [_run(entry, rules.delta) for entry in entries],
    }
    output.emit(value, json)


def _close(directory: Path, run_id: str) -> None:
    """End an open run here; the agent must not be running, because it may be answering that very run.

    Raises:
        ConfigError: there is no such open run, or an agent runs.
    """
    from fedsite.client import assembly, audit_log
    from fedsite.client.budget import Budget
    from fedsite.client.store import Outbox
    from fedsite.protocol import instants
    from fedsite.protocol.shape import nearest

    if not (directory / assembly.BUDGET).exists():
        raise ConfigError(f"run {run_id} is not in the budget: nothing was ever spent here")
    with assembly.only_one(directory):
        budget = Budget(directory / assembly.BUDGET)
        try:
            known = sorted({entry.run_id for entry in budget.entries() if not entry.finished})
            if run_id not in known:
                raise ConfigError(f"run {run_id} is not open", allowed=nearest(run_id, known) if known else "")
            audit_log.record(directory, "closed", {"run_id": run_id})
            Outbox(directory / "outbox").finish(run_id)
            budget.finish(run_id, instants.text(instants.now()))
        finally:
            budget.close()


def _keys(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    return sorted({(entry.unit, entry.source) for entry in entries})


def _source(key: tuple[str, str], entries: Sequence[Entry], cap: float, delta: float) -> dict[str, Any]:
    """One unit of one data source: what counts against the cap there, open reservations included."""
    from fedsite.client.budget_entries import overlap

    own = [entry for entry in entries if entry.unit == key[0] and overlap(entry.source, key[1])]
    charged = _epsilon([spend for entry in own for spend in entry.charged], delta, key[0])
    return {"source": key[1], "unit": key[0], "epsilon": charged, "left": max(0.0, cap - charged), "runs": len(own)}


def _run(entry: Entry, delta: float) -> dict[str, Any]:
    return {
        "run_id": entry.run_id,
        "task": entry.task,
        "unit": entry.unit,
        "state": "finished" if entry.finished else "open",
        "epsilon_spent": _epsilon(entry.spent, delta, entry.unit),
        "epsilon_reserved": _epsilon(entry.charged, delta, entry.unit),
        "releases": sum(spend.steps for spend in entry.spent),
        "created": entry.created,
    }


def _epsilon(spends: Sequence[Spend], delta: float, unit: str) -> float:
    """Of one unit; noise in sums is accounted for by its own bound."""
    from fedsite.privacy import accounting, distributed
    from fedsite.protocol.plan import SITE

    return distributed.equivalent_epsilon(spends, delta) if unit == SITE else accounting.epsilon(spends, delta)
