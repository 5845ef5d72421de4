"""`fedsite model`: the release on this device, and the way back to the one before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsite.protocol import output

if TYPE_CHECKING:
    from fedsite.client.device.slots import Installed, Slots

SCHEMA = "fedsite.model/1"
_JSON = typer.Option("--json", help="Print one JSON value.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="The release on this device: status, rollback.")
    group.command("status")(status)
    group.command("rollback")(rollback)
    app.add_typer(group, name="model", rich_help_panel="Site operator")


def status(json: Annotated[bool, _JSON] = False) -> None:
    """Show the release in use, verified again, and the one a rollback would bring back."""
    slots = open_slots()
    output.emit(as_value(slots.current(), slots), json)


def rollback(json: Annotated[bool, _JSON] = False) -> None:
    """Go back to the release before; the same command again undoes it."""
    slots = open_slots()
    output.emit(as_value(slots.rollback(), slots), json)


def open_slots() -> Slots:
    """The slots of the site in the state directory."""
    from fedsite.client import settings
    from fedsite.client.device import slots
    from fedsite.client.identity import site

    directory = settings.state_directory()
    return slots.Slots(directory, site.load(directory).federation)


def as_value(installed: Installed, slots: Slots) -> dict[str, Any]:
    """What the commands print."""
    from fedsite.protocol.errors import FedsiteError

    manifest = installed.manifest
    try:
        other = slots.other()
        rollback_to = other.manifest.version if other is not None else None
    except FedsiteError as error:
        rollback_to = f"damaged: {error.found}"
    return {
        "schema": SCHEMA,
        "version": manifest.version,
        "task": manifest.task.get("name"),
        "run_id": manifest.run_id,
        "slot": installed.slot,
        "created": manifest.created,
        "expires": manifest.expires or None,
        "bytes": manifest.bytes,
        "fp32_bytes": manifest.fp32_bytes,
        "metric": manifest.parity.metric,
        "fp32": manifest.parity.fp32,
        "int8": manifest.parity.int8,
        "threshold": manifest.threshold,
        "verified": True,
        "rollback_to": rollback_to,
    }
