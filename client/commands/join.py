"""`fedsite join`: the token enrols this host; keys are made here and never leave."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from fedsite.protocol import output
from fedsite.protocol.errors import ConfigError

SCHEMA = "fedsite.joined/1"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("join", rich_help_panel="Site operator")(join)


def join(
    token: Annotated[
        str | None, typer.Argument(help="file:PATH, - for stdin, or the token; without it FEDSITE_TOKEN, or a prompt.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of this site; by default the token's label, else the host's name."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Join a federation with a single-use token from the central team (fedsite token create)."""
    from fedsite.client import enrolment, settings

    text = read_token(token)
    joined = enrolment.join(text, settings.state_directory(), name=name)
    value = {
        "schema": SCHEMA,
        "site_id": joined.site_id,
        "name": joined.name,
        "federation": {
            "id": joined.federation.id,
            "name": joined.federation.name,
            "address": joined.federation.address,
        },
        "certificate_expires": joined.certificate_expires,
        "already": joined.already,
    }
    output.emit(value, json)
    if not json:
        output.say(
            "this host had joined already; nothing was changed" if joined.already else "joined; next: fedsite up"
        )


def read_token(given: str | None) -> str:
    """The token, from wherever it was put.

    Raises:
        ConfigError: there is none, or its file cannot be read.
    """
    if given is None:
        given = os.environ.get("FEDSITE_TOKEN", "").strip() or _asked()
    elif given == "-":
        given = sys.stdin.readline()
    elif given.startswith("file:"):
        path = Path(given.removeprefix("file:")).expanduser()
        try:
            given = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise ConfigError(f"token file {path}: {reason}", next_step="fedsite join file:PATH") from None
    else:
        output.say("warning: a token on the command line is in the shell's history and in ps; next time: file:PATH")
    if not given.strip():
        raise ConfigError("the token is empty", allowed="a token", next_step="ask the central team for a token")
    return given.strip()


def _asked() -> str:
    if not sys.stdin.isatty():
        raise ConfigError(
            "no token was given",
            allowed="file:PATH, -, or the environment variable FEDSITE_TOKEN",
            next_step="fedsite join file:PATH",
        )
    return str(typer.prompt("token", hide_input=True, err=True))
