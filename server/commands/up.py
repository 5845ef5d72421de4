"""`fedsite server up`: the central server in the foreground, until Ctrl-C."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Annotated

import typer

from fedsite.protocol import output

if TYPE_CHECKING:
    from fedsite.protocol.federation import Federation
    from fedsite.server.launcher import Ports


def register(server_app: typer.Typer) -> None:
    """Add the command to `fedsite server`."""
    server_app.command("up")(up)


def up(
    port: Annotated[int | None, typer.Option(help="Port to listen on; the federation's own by default.")] = None,
    listen: Annotated[str | None, typer.Option(help="Address to listen on; every one unless it is loopback.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value when ready.")] = False,
) -> None:
    """Run the server until Ctrl-C: one public TLS port for enrolled sites, everything else on loopback."""
    from fedsite.protocol import documents, storage
    from fedsite.protocol.errors import ConfigError
    from fedsite.server import launcher
    from fedsite.server.home import ServerHome

    home = ServerHome.default()
    federation = home.federation()
    if port is not None and not 1 <= port <= 65535:
        raise ConfigError(f"port {port}", allowed="1 to 65535", next_step="fedsite server up --port 9443")

    def ready(ports: Ports) -> None:
        if json:
            output.emit(documents.parse(storage.read(home.running)), True)
        else:
            output.say(f"{federation.name} ({federation.id}) listens on port {ports.port}; Ctrl-C stops it")
        if ports.port != federation.port:
            output.say(f"warning: sites were told {federation.address}; that port has to lead to {ports.port}")

    launcher.run(home, host=listen or _listen_on(federation), port=port or federation.port, ready=ready)


def _listen_on(federation: Federation) -> str:
    """Loopback stays on loopback; any other name means every interface of its family."""
    if federation.host == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(federation.host)
    except ValueError:
        return "0.0.0.0"  # noqa: S104
    if address.is_loopback:
        return str(address)
    return "::" if address.version == 6 else "0.0.0.0"  # noqa: S104
