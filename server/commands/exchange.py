"""`fedsite server exchange`: files to and from sites without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedsite.protocol import output

EXPORTED = "fedsite.exchange-exported/1"
IMPORTED = "fedsite.exchange-imported/1"
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]


def register(server_app: typer.Typer) -> None:
    """Add `fedsite server exchange`."""
    app = typer.Typer(no_args_is_help=True)
    app.command("export")(export)
    app.command("import")(take_in)
    server_app.add_typer(app, name="exchange", help="Files to and from sites without a network.")


def export(
    site: Annotated[str, typer.Argument(metavar="SITE", help="A carried site's name or id.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write; a file that is there is replaced.")],
    json: _Json = False,
) -> None:
    """Write everything that is open for a site into one signed file; nothing is written where nothing is open."""
    from fedsite.protocol import instants
    from fedsite.protocol.exchange_medium import write_parcel
    from fedsite.server.carried import parcels
    from fedsite.server.home import ServerHome

    found = parcels.export(ServerHome.default(), site, instants.now())
    if found.data is not None:
        write_parcel(file, found.data)
    value = {
        "schema": EXPORTED,
        "site": found.site.name,
        "file": None if found.data is None else str(file),
        "bytes": 0 if found.data is None else len(found.data),
        "sequence": found.sequence,
        "messages": [parcels.summary(item) for item in found.instructions],
    }
    if json:
        output.emit(value, True)
    elif found.data is None:
        output.say(f"nothing is open for {found.site.name}; no file was written")
    else:
        output.emit(value["messages"], False)
        output.say(f"carry {file} ({len(found.data)} bytes) to {found.site.name}; there: fedsite exchange import FILE")


def take_in(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What the site wrote: fedsite exchange export.")],
    json: _Json = False,
) -> None:
    """Take in the replies of a site: all of them, or none."""
    from fedsite.protocol import instants
    from fedsite.protocol.exchange_medium import read_parcel
    from fedsite.server.audit_log import appending, open_log
    from fedsite.server.carried import parcels
    from fedsite.server.home import ServerHome

    home = ServerHome.default()
    found = parcels.take_in(home, read_parcel(file), instants.now(), appending(open_log(home)))
    value = {
        "schema": IMPORTED,
        "site": found.site.name,
        "sequence": found.sequence,
        "taken": found.taken,
        "closed": found.closed,
    }
    output.emit(value, json)
