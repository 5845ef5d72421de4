"""`fedsite token create`: a single-use, expiring invitation for one site. Only the audit log knows that it was made."""

from __future__ import annotations

from typing import Annotated

import typer

from fedsite.protocol import output

SCHEMA = "fedsite.token-created/1"


def register(token_app: typer.Typer) -> None:
    """Add the command to `fedsite token`."""
    token_app.command("create")(create)


def create(
    expires: Annotated[str, typer.Option(help="How long it can be used: 30m, 1h, 2d.")] = "1h",
    label: Annotated[str, typer.Option(help="A note, such as the site it is meant for; anybody can read it.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Make a token for one site. Whoever holds it can join: hand it over like a password."""
    from fedsite.protocol import durations, instants, tokens
    from fedsite.server.audit_log import open_log, token_name
    from fedsite.server.home import ServerHome

    expires_s = durations.seconds(expires, "--expires", example="fedsite token create --expires 1h")
    home = ServerHome.default()
    text = tokens.create(home.federation(), home.signing_key(), expires_s=expires_s, label=label, now=instants.now())
    token = tokens.read(text)
    facts = {"token": token_name(token), "label": label, "expires": token.expires}
    open_log(home).append("token", facts)
    if json:
        output.emit({"schema": SCHEMA, "token": text, "expires": tokens.read(text).expires, "label": label}, True)
        return
    print(text)
    output.say(f"valid until {tokens.read(text).expires}, for one site: fedsite join file:PATH")
