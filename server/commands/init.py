"""`fedsite server init`: authority, keys and certificates of a new federation."""

from __future__ import annotations

from typing import Annotated

import typer

from fedsite.protocol import output

SCHEMA = "fedsite.server-init/1"
DEFAULT_NAME = "federation"
DEFAULT_ADDRESS = "127.0.0.1:9443"


def register(server_app: typer.Typer) -> None:
    """Add the command to `fedsite server`."""
    server_app.command("init")(init)


def init(
    name: Annotated[str | None, typer.Option(help=f"What people call it; {DEFAULT_NAME} by default.")] = None,
    address: Annotated[
        str | None,
        typer.Option(help=f"host:port where sites reach it; {DEFAULT_ADDRESS} (this machine only) by default."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Set up a federation on this host. Done already is not an error; nothing is ever overwritten."""
    from fedsite.protocol import instants
    from fedsite.server import home as homes

    home = homes.ServerHome.default()
    existed = home.exists
    if existed:
        federation = homes.create(home, name=name or "", address=address or "", now=instants.now())
    else:
        federation = homes.create(
            home, name=name or DEFAULT_NAME, address=address or DEFAULT_ADDRESS, now=instants.now()
        )
    output.emit(
        {
            "schema": SCHEMA,
            "id": federation.id,
            "name": federation.name,
            "address": federation.address,
            "fingerprint": federation.fingerprint,
            "directory": str(home.path),
            "already": existed,
        },
        json,
    )
    if not json:
        output.say("set up already; nothing was changed" if existed else "next: fedsite server up")
