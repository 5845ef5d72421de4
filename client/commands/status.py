"""`fedsite status`: one screen about this site; works while the server, or the agent, does not."""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from fedsite.protocol import output
from fedsite.protocol.errors import UnreachableError

AGAIN_S = 2.0  # between looks at the files of a site without an agent
_CLEAR = "\x1b[H\x1b[2J"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("status", rich_help_panel="Site operator")(status)


def status(
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it again whenever it changes, until Ctrl-C.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value; with --watch one line for each.")] = False,
) -> None:
    """Show agent, certificate, privacy budget, data, model, and what is not well with its remedy."""
    if not watch:
        _show(look(), json)
        return
    last: dict[str, Any] | None = None
    for value in looks():
        if _lasting(value) == last:
            continue
        last = _lasting(value)
        if not json and sys.stdout.isatty():
            sys.stdout.write(_CLEAR)
        _show(value, json)


def look() -> dict[str, Any]:
    """The site as it is now.

    Raises:
        ConfigError: this host has not joined. Others of the tree: its identity is damaged.
    """
    from fedsite.client import settings
    from fedsite.client.health import facts as health_facts
    from fedsite.client.health import overview
    from fedsite.client.identity import site
    from fedsite.protocol import instants

    who = site.load(settings.state_directory())
    facts = health_facts.read(who, instants.now())
    return overview.value(who, facts, overview.findings(facts))


def looks() -> Iterator[dict[str, Any]]:
    """The site now and whenever something changed: by the agent where one runs, else from files."""
    from fedsite.client import settings
    from fedsite.client.local import local_client

    directory = settings.state_directory()
    while True:
        yield look()
        with local_client.connect(directory) as agent, contextlib.suppress(UnreachableError):
            for told in agent.watch() if agent is not None else ():
                # The agent holds nothing that counts ε: it tells what was counted.
                uncounted = any(source["epsilon"] is None for source in told["budget"]["sources"])
                yield look() if uncounted else told
        time.sleep(AGAIN_S)


def _lasting(value: dict[str, Any]) -> dict[str, Any]:
    """What makes a look another one: not how much of a disk or a memory is free just now."""
    return {**value, "host": None}


def _show(value: dict[str, Any], as_json: bool) -> None:
    from fedsite.client.health import status_screen
    from fedsite.protocol import instants

    # On a terminal the prompt, or the cursor, takes a line; a pager and a file take all.
    height = shutil.get_terminal_size().lines - 1 if sys.stdout.isatty() else None
    output.emit(value if as_json else status_screen.lines(value, instants.now(), height), as_json)
