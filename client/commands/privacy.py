"""`fedsite privacy`: what every run has cost this site's data, what is left, what another one would cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsite.protocol import output
from fedsite.protocol.errors import ConfigError

if TYPE_CHECKING:
    from fedsite.client.ledger.budget_entries import Entry
    from fedsite.client.ledger.budget_mark import Mark
    from fedsite.client.settings import Settings

FORECAST = "fedsite.privacy-forecast/1"
EXPORTED = "fedsite.ledger-exported/1"
VERIFIED = "fedsite.ledger-verified/1"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("privacy", rich_help_panel="Site operator")(privacy)


def privacy(
    close: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Close a run the server never ended (its id, or the beginning of it): what it did not spend is free.",
        ),
    ] = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Take a ledger that is refused as it is: what is not in it is forgotten.")
    ] = False,
    plan: Annotated[
        Path | None, typer.Option(metavar="PLAN.json", help="What this run would cost, and the balance after it.")
    ] = None,
    export: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the whole ledger to a file, signed by this site.")
    ] = None,
    verify: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Check an exported ledger; needs nothing but the file.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Show ε spent by run, task, unit and data source, and what is left; units are never added up."""
    from fedsite.client import settings
    from fedsite.client.ledger import accounts as ledger

    if sum(option is not None for option in (close, plan, export, verify, accept or None)) > 1:
        raise ConfigError("several things at once", allowed="one of --close, --accept, --plan, --export, --verify")
    directory = settings.state_directory()
    if verify is not None:
        output.emit(_verified(verify, directory), json)
        return
    found = settings.load(directory)
    if plan is not None:
        forecast = _forecast(plan, directory, found)
        output.emit(forecast if json else _forecast_lines(forecast), json)
    elif export is not None:
        output.emit(_exported(export, directory, found), json)
    else:
        if accept:
            _accept(directory)
        if close is not None:
            _close(directory, close)
        value = ledger.value(_entries(directory)[0], found.policy)
        output.emit(value if json else {**value, "runs": [_run(one) for one in value["runs"]]}, json)


def _entries(directory: Path) -> tuple[list[Entry], Mark | None]:
    from fedsite.client import state_directory
    from fedsite.client.ledger.budget import reader

    budget = reader(directory / state_directory.BUDGET)
    if budget is None:
        return [], None
    try:
        return budget.entries(), budget.mark()
    finally:
        budget.close()


def _forecast(path: Path, directory: Path, found: Settings) -> dict[str, Any]:
    """What a run would cost the data that is here now: read, so that its records are found under any file name."""
    from fedsite.client import data, state_directory
    from fedsite.client.commands.policy import read_plan
    from fedsite.client.identity import site
    from fedsite.client.ledger import covered, quote
    from fedsite.client.refusals import plain
    from fedsite.telemetry import coverage, loading
    from fedsite.telemetry.errors import TelemetryError
    from fedsite.telemetry.task import read_task

    plan = read_plan(path)
    task = read_task(plan.task)
    where = data.location(found, task)
    records, unread = None, None
    if plan.privacy.units and site.joined(directory):
        try:
            read = coverage.coverage(task, loading.load_site(task, where))
            records = covered.hashed(read, site.load(directory).key.derive(covered.PURPOSE))
        except TelemetryError as error:
            unread = plain(error)
    source = data.source_id(task, where)
    quotes = quote.quotes(plan, found.policy, directory / state_directory.BUDGET, source, records)
    return {
        "schema": FORECAST,
        "run_id": plan.run_id,
        "task": plan.task_name,
        "plan_hash": plan.hash,
        "source": source,
        "allowed": not any(one.refused for one in quotes),
        "price": [one.plain() for one in quotes],
        "refused": [plain(error) for one in quotes for error in one.refused],
        "unread": unread,
    }


def _run(found: dict[str, Any]) -> dict[str, Any]:
    """One line of the runs, as wide as a screen."""
    spent, reserved = (
        "?" if found[name] is None else output.epsilon(found[name]) for name in ("epsilon_spent", "epsilon_reserved")
    )
    kept = {name: found[name] for name in ("run_id", "task", "unit", "state")}
    return {
        **kept,
        "epsilon": spent if spent == reserved else f"{spent} of {reserved}",
        "created": found["created"][:10],
    }


def _forecast_lines(value: dict[str, Any]) -> list[str]:
    """What a run would cost, for people."""
    lines = [f"{value['task']} (run {value['run_id']})", f"on {value['source']}"]
    for one in value["price"]:
        spent = {name: output.epsilon(one[f"epsilon_{name}"]) for name in ("before", "after", "max")}
        lines += [f"ε {output.epsilon(one['epsilon'])} per {one['unit']} at δ {one['delta']:g}"]
        if one["epsilon_round"] is not None:
            lines += [f"  one round by itself  {output.epsilon(one['epsilon_round'])}"]
        lines += [f"  this data            {spent['before']} before, {spent['after']} after it, of {spent['max']}"]
        if one["epsilon_task_after"] is not None:
            lines += [f"  all runs of the task {output.epsilon(one['epsilon_task_after'])} after it"]
    if not value["price"]:
        lines += ["no ε: the run is not private"]
    if value["unread"]:
        lines += output.fold(f"the data could not be read ({value['unread']}): only what ran on the same source counts")
    for reason in value["refused"]:
        lines += output.fold(f"{reason['code']}: {reason['found']}; allowed: {reason['allowed']}")
        lines += output.fold(f"next: {reason['next']}", first="  ", then="  ") if reason["next"] else []
    return [*lines, "the caps allow it" if value["allowed"] else "the caps do not allow it"]


def _exported(path: Path, directory: Path, found: Settings) -> dict[str, Any]:
    from fedsite.client.identity import site
    from fedsite.client.ledger import ledger_export
    from fedsite.protocol import instants, storage

    entries, mark = _entries(directory)
    who = site.load(directory)
    storage.write_atomic(path, ledger_export.export(who, entries, found.policy, mark, instants.text(instants.now())))
    return {"schema": EXPORTED, "file": str(path), "site_id": who.id, "runs": len({one.run_id for one in entries})}


def _verified(path: Path, directory: Path) -> dict[str, Any]:
    from dataclasses import asdict

    from fedsite.client.identity import site
    from fedsite.client.ledger import ledger_export
    from fedsite.protocol import storage

    verified = ledger_export.verify(storage.read(path, limit=ledger_export.LIMIT))
    own = site.load(directory).id == verified.site_id if site.joined(directory) else None
    return {"schema": VERIFIED, "ok": True, **asdict(verified), "own": own}


def _accept(directory: Path) -> None:
    from fedsite.client.identity import site
    from fedsite.client.ledger.acceptance import accept

    told = accept(directory, site.person())
    before, after = told["before"], told["after"]
    known = "" if before is None else f", of {before['sequence']} that are known of"
    output.say(f"accepted with {after['sequence']} changes{known}; the audit log says so")


def _close(directory: Path, word: str) -> None:
    """End an open run here; the agent must not be running, because it may be answering that very run.

    Raises:
        ConfigError: no open run is meant, or several are, or an agent runs.
    """
    from fedsite.client import state_directory
    from fedsite.client.audit import log as audit_log
    from fedsite.client.ledger.budget import Budget
    from fedsite.client.store import Outbox
    from fedsite.protocol import instants

    if not _entries(directory)[0]:
        raise ConfigError(f"run {word} is not in the budget: nothing was ever spent here")
    with state_directory.only_one(directory):
        budget = Budget(directory / state_directory.BUDGET)
        try:
            run_id = _open_run(word, budget.entries())
            audit_log.record(directory, "closed", {"run_id": run_id})
            Outbox(directory / "outbox").finish(run_id)
            budget.finish(run_id, instants.text(instants.now()))
        finally:
            budget.close()


def _open_run(word: str, entries: list[Entry]) -> str:
    """The open run whose id is, or alone begins with, `word`."""
    from fedsite.protocol.shape import nearest

    known = sorted({entry.run_id for entry in entries if not entry.finished})
    found = [run_id for run_id in known if word and run_id.startswith(word.upper())]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(
            f"{len(found)} open runs begin with {word}", allowed=", ".join(found[:5]), next_step="fedsite privacy"
        )
    ended = [run_id for run_id in {entry.run_id for entry in entries} if word and run_id.startswith(word.upper())]
    raise ConfigError(
        f"run {word} is {'closed already' if ended else 'not in the budget'}",
        allowed=nearest(word, known[-5:]) if known else "no run is open: nothing is to be closed",
        next_step="fedsite privacy",
    )
