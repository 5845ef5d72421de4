"""`fedsite pause` and `fedsite resume`: keep this site's data untouched for a while, without ending the agent."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from fedsite.protocol import output
from fedsite.protocol.errors import UnreachableError

SCHEMA = "fedsite.pause/1"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("pause", rich_help_panel="Site operator")(pause)
    app.command("resume", rich_help_panel="Site operator")(resume)


def pause(
    lasting: Annotated[
        str | None, typer.Argument(metavar="[DURATION]", help="Such as 90m, 2h or 1d; without, until fedsite resume.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Shown by fedsite status; it never leaves this host.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Begin nothing new: the centre is told "not now". The agent stays connected, and ends what it is working on."""
    from fedsite.protocol import durations

    length = None
    if lasting is not None:
        length = timedelta(seconds=durations.seconds(lasting, "pause", example="fedsite pause 2h"))
    _show(_paused(_directory(), length, reason), json)


def resume(json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False) -> None:
    """End a pause; not an error when there is none."""
    _show(_resumed(_directory()), json)


def _paused(directory: Path, length: timedelta | None, reason: str) -> dict[str, Any]:
    """Through the agent where one answers: who watches it sees it at once. It reads the same file either way."""
    from fedsite.client.consent import pause
    from fedsite.client.local import local_client
    from fedsite.protocol import instants

    with local_client.connect(directory) as agent, contextlib.suppress(UnreachableError):
        if agent is not None:
            told = agent.pause(length, reason)
            return _value(told.pause, told.changed, told.working)
    found, changed = pause.begin(directory, length, reason, instants.now())
    return _value(pause.plain(found), changed, None)


def _resumed(directory: Path) -> dict[str, Any]:
    from fedsite.client.consent import pause
    from fedsite.client.local import local_client
    from fedsite.protocol import instants

    with local_client.connect(directory) as agent, contextlib.suppress(UnreachableError):
        if agent is not None:
            told = agent.resume()
            return _value(told.pause, told.changed, told.working)
    return _value(None, pause.end(directory, instants.now()), None)


def _value(held: Mapping[str, Any] | None, changed: bool, working: Mapping[str, Any] | None) -> dict[str, Any]:
    value = {"since": None, "until": None, "reason": ""} if held is None else dict(held)
    return {"schema": SCHEMA, "paused": held is not None, **value, "changed": changed, "working": working}


def _show(value: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.emit(value, True)
        return
    working = value["working"]
    if value["paused"]:
        end = "until fedsite resume" if value["until"] is None else f"until {value['until']}"
        output.emit(f"paused since {value['since']}, {end}", False)
        if working is not None:
            output.say(f"{working['kind']} of round {working['round']} of run {working['run_id']} ends first")
    else:
        output.emit("resumed" if value["changed"] else "not paused; nothing was changed", False)


def _directory() -> Path:
    """The state directory of a site that has joined.

    Raises:
        ConfigError: this host has not joined.
    """
    from fedsite.client import settings
    from fedsite.client.identity import site

    directory = settings.state_directory()
    site.load(directory)
    return directory
