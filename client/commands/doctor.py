"""`fedsite doctor`: measures what may be wrong between this host, its data and the server, and names the remedy."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fedsite.protocol import output


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor", rich_help_panel="Site operator")(doctor)


def doctor(json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False) -> None:
    """Measure network, clock, speed, disk, memory, data and budget; the exit code is the first error's."""
    from fedsite.client import settings
    from fedsite.client.health.doctor import Doctor

    try:
        value = Doctor(settings.state_directory(), say=output.progress).examine()
    finally:
        output.progress("")
    output.emit(value if json else lines(value), json)
    raise typer.Exit(value["exit_code"])


def lines(value: dict[str, Any]) -> list[str]:
    """The screen: each step and what it measured, then what is not well."""
    from fedsite.client.health import status_screen

    steps = [
        status_screen.row(step["name"], ("" if step["ok"] else "NOT WELL: ") + (step["text"] or "measured"))
        for step in value["steps"]
    ]
    return [*steps, "", *status_screen.findings(value["findings"])]
