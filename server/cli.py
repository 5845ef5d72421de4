"""The central team's commands, which join `fedsite` by entry point. Each imports what it needs when it runs."""

from __future__ import annotations

import typer

from fedsite.server.commands import exchange, init, launch, runs, sites, token, up

PANEL = "Central team"


def register(app: typer.Typer) -> None:
    """Add `server`, `token`, `sites`, `launch` and `runs`."""
    server_app = typer.Typer(no_args_is_help=True)
    init.register(server_app)
    up.register(server_app)
    exchange.register(server_app)
    app.add_typer(server_app, name="server", rich_help_panel=PANEL, help="Set up and run the central server.")
    token_app = typer.Typer(no_args_is_help=True)
    # A group of one command would otherwise be that command.
    token_app.callback()(lambda: None)
    token.register(token_app)
    app.add_typer(token_app, name="token", rich_help_panel=PANEL, help="Invite sites.")
    sites_app = typer.Typer()
    sites.register(sites_app)
    app.add_typer(sites_app, name="sites", rich_help_panel=PANEL, help="See and change who belongs to the federation.")
    launch.register(app)
    runs_app = typer.Typer(no_args_is_help=True)
    runs.register(runs_app)
    app.add_typer(runs_app, name="runs", rich_help_panel=PANEL, help="See, follow and stop runs.")
