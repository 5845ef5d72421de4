"""`fedsite status`: one screen about this site; works while the server, or the agent, does not."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fedsite.protocol import output


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("status", rich_help_panel="Site operator")(status)


def status(json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False) -> None:
    """Show agent, certificate, privacy budget, data, model, and what is not well with its remedy."""
    _show(look(), json)


def look() -> dict[str, Any]:
    """The site as it is now.

    Raises:
        ConfigError: this host has not joined. Others of the tree: its identity is damaged.
    """
    from fedsite.client import health_facts, overview, settings, site
    from fedsite.protocol import instants

    who = site.load(settings.state_directory())
    facts = health_facts.read(who, instants.now())
    return overview.value(who, facts, overview.findings(facts))


def _show(value: dict[str, Any], as_json: bool) -> None:
    from fedsite.client import status_screen
    from fedsite.protocol import instants

    output.emit(value if as_json else status_screen.lines(value, instants.now()), as_json)
