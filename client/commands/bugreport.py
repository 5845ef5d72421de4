"""`fedsite bugreport`: an archive that helps to find a defect, without data, keys or names."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedsite.protocol import output

SCHEMA = "fedsite.bugreport/1"
_ABOUT = {
    "versions.json": "versions of this program, Python, libraries and system",
    "settings.json": "site.yaml: numbers, switches, endings of paths, how many",
    "state.json": "findings by code, counts and sizes",
    "files.json": "sizes and modes of the state directory's own files",
    "logs": "times, levels, places in source files, words of this program",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("bugreport", rich_help_panel="Site operator")(bugreport)


def bugreport(
    file: Annotated[Path | None, typer.Argument(help="Where to write it; by default here, with the time.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Write a tar.gz for whoever looks into a defect: no data, keys, tokens or names in it."""
    from fedsite.client import settings
    from fedsite.client.health import bugreport as archive
    from fedsite.protocol import instants

    now = instants.now()
    path = Path(f"fedsite-bugreport-{now:%Y%m%dT%H%M%SZ}.tar.gz") if file is None else file
    members = archive.gather(settings.state_directory(), now)
    size = archive.write(path.absolute(), members, now)
    held = [
        {"name": name, "bytes": len(data), "about": _ABOUT["logs" if name.startswith("logs/") else name]}
        for name, data in members.items()
    ]
    value = {"schema": SCHEMA, "path": str(path.absolute()), "bytes": size, "members": held}
    if json:
        output.emit(value, json)
        return
    lines = [str(path), f"{size} bytes, readable by you alone. It holds"]
    lines += [f"  {item['name']:<16} {item['about']}" for item in held]
    output.emit([*lines, "look inside before you send it:", f"  tar -xzOf {path} | less"], json)
