"""`fedsite status`: one screen about this site; reads files only, so it works while the server does not."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsite.protocol import output
from fedsite.protocol.errors import FedsiteError

if TYPE_CHECKING:
    from fedsite.client.site import Site

SCHEMA = "fedsite.status/1"
WARN_DAYS = 14


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("status", rich_help_panel="Site operator")(status)


def status(json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False) -> None:
    """Show agent, certificate, privacy budget, model and alerts of this site."""
    from fedsite.client import settings, site
    from fedsite.protocol import instants

    directory = settings.state_directory()
    who = site.load(directory)
    alerts: list[dict[str, str]] = []
    value = {
        "schema": SCHEMA,
        "site": {"id": who.id, "name": who.name},
        "federation": {"id": who.federation.id, "name": who.federation.name, "address": who.federation.address},
        "certificate": certificate(who.certificate_expires, instants.now(), alerts),
        "agent": agent(directory, alerts),
        "budget": budget(directory, alerts),
        "model": model(directory, who, alerts),
        "alerts": alerts,
    }
    output.emit(value, json)


def certificate(expires: str, now: datetime, alerts: list[dict[str, str]]) -> dict[str, Any]:
    """When the site's certificate ends."""
    from fedsite.protocol import instants

    days = (instants.read(expires) - now).total_seconds() / 86_400 if expires else None
    if days is not None and days < WARN_DAYS:
        text = f"the certificate ends in {days:.1f} days" if days > 0 else "the certificate has expired"
        alerts.append(alert("certificate", "warning" if days > 0 else "error", text, "fedsite join with a new token"))
    return {"expires": expires or None, "days": None if days is None else round(days, 1)}


def agent(directory: Path, alerts: list[dict[str, str]]) -> dict[str, Any]:
    """What the agent is doing, when there is one."""
    from fedsite.client import assembly
    from fedsite.protocol import documents, storage

    if not assembly.running(directory):
        alerts.append(alert("agent", "error", "no agent runs at this site", "fedsite up"))
        return {"state": "stopped"}
    state: dict[str, Any] = {"state": "starting"}
    path = directory / assembly.STATE
    if path.exists():
        try:
            state = dict(documents.parse(storage.read(path)))
        except FedsiteError:
            return state  # ended in this very moment
    if state.get("state") == "unreachable":
        alerts.append(alert("link", "error", str(state.get("error", "the server does not answer")), "see fedsite up"))
    return state


def budget(directory: Path, alerts: list[dict[str, str]]) -> dict[str, Any]:
    """How many runs the privacy budget holds; their ε takes longer, and is `fedsite privacy`."""
    from fedsite.client import assembly, settings
    from fedsite.client.budget import Budget

    value: dict[str, Any] = {"epsilon_max": settings.load(directory).policy.epsilon_max, "open": 0, "finished": 0}
    path = directory / assembly.BUDGET
    if path.exists():
        try:
            opened = Budget(path, read_only=True)
            entries = opened.entries()
            opened.close()
        except FedsiteError as error:
            alerts.append(alert("budget", "error", error.found, error.next_step))
            return value
        unfinished = {entry.run_id for entry in entries if entry.finished is None}  # a run has one for each unit
        value["open"] = len(unfinished)
        value["finished"] = len({entry.run_id for entry in entries} - unfinished)
    return value


def model(directory: Path, who: Site, alerts: list[dict[str, str]]) -> dict[str, Any] | None:
    """The release in use; None when there is none yet."""
    from fedsite.client.slots import Slots
    from fedsite.protocol.errors import ConfigError

    try:
        installed = Slots(directory, who.federation).current()
    except ConfigError:
        return None
    except FedsiteError as error:
        alerts.append(alert("model", "error", error.found, error.next_step))
        return None
    manifest = installed.manifest
    return {"version": manifest.version, "task": manifest.task.get("name"), "slot": installed.slot, "verified": True}


def alert(code: str, severity: str, text: str, remedy: str) -> dict[str, str]:
    """One alert, as `status` lists it."""
    return {"code": code, "severity": severity, "text": text, "remedy": remedy}
