"""`fedsite up`: the agent in the foreground, until Ctrl-C."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("up", rich_help_panel="Site operator")(up)


def up(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Settings over site.yaml: data.path=FILE_OR_FOLDER, data.columns.CHANNEL=COLUMN, data.site=NAME; "
            "policy.tasks=[NAME], policy.epsilon_max=10, policy.require_privacy=true, "
            "policy.minimum_protection=sealed, policy.cohort_min=3, policy.colluding_min=0; agent.log=debug.",
        ),
    ] = None,
) -> None:
    """Run this site's agent until Ctrl-C: it asks the server for work and does what the site's policy allows."""
    from fedsite.client import running, settings

    directory = settings.state_directory()
    raise typer.Exit(running.run(directory, settings.SettingsFile(directory, overrides or [])))
