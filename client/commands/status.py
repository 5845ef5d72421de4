"""`fedsite status`: one screen about this site; reads files only, so it works while the server does not."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from fedsite.protocol import output

SCHEMA = "fedsite.status/1"
WARN_DAYS = 14


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("status", rich_help_panel="Site operator")(status)


def status(json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False) -> None:
    """Show link, certificate, budget, model and alerts of this site."""
    from fedsite.client import enrolment_state, settings, site
    from fedsite.protocol import instants

    directory = settings.state_directory()
    who = site.load(directory)
    expires = enrolment_state.certificate_expires(directory)
    alerts: list[dict[str, str]] = []
    value = {
        "schema": SCHEMA,
        "site": {"id": who.id, "name": who.name},
        "federation": {"id": who.federation.id, "name": who.federation.name, "address": who.federation.address},
        "certificate": _certificate(expires, instants.now(), alerts),
        "agent": _agent(directory, alerts),
        "budget": _budget(directory, alerts),
        "model": _model(directory, who, alerts),
        "alerts": alerts,
    }
    output.emit(value, json)
