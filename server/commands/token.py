"""`fedsite token create`: a single-use, expiring invitation for one site. Nothing is stored when one is made."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from fedsite.protocol import output

SCHEMA = "fedsite.token-created/1"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def register(token_app: typer.Typer) -> None:
    """Add the command to `fedsite token`."""
    token_app.command("create")(create)


def create(
    expires: Annotated[str, typer.Option(help="How long it can be used: 30m, 1h, 2d.")] = "1h",
    label: Annotated[str, typer.Option(help="A note, such as the site it is meant for; anybody can read it.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Make a token for one site. Whoever holds it can join: hand it over like a password."""
    from fedsite.protocol import instants, tokens
    from fedsite.server.home import ServerHome

    home = ServerHome.default()
    text = tokens.create(
        home.federation(), home.signing_key(), expires_s=duration_s(expires), label=label, now=instants.now()
    )
    if json:
        output.emit({"schema": SCHEMA, "token": text, "expires": tokens.read(text).expires, "label": label}, True)
        return
    print(text)
    output.say(f"valid until {tokens.read(text).expires}, for one site: fedsite join file:PATH")


def duration_s(text: str) -> float:
    """Seconds of "90s", "30m", "1h" or "2d".

    Raises:
        ConfigError: another spelling.
    """
    from fedsite.protocol.errors import ConfigError

    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text.strip())
    if match is None:
        raise ConfigError(
            f"--expires {text!r:.40}",
            allowed="a number with s, m, h or d",
            next_step="fedsite token create --expires 1h",
        )
    return float(int(match[1]) * _UNITS[match[2]])
