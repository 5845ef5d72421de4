"""`fedsite leave`: has the server revoke this site where it answers, and forgets the federation; the budget stays."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedsite.protocol import output
from fedsite.protocol.errors import ConfigError

SCHEMA = "fedsite.left/1"
_FIRST = "site.json"  # without it a host has not joined, however far a leave came
_LAST = "identity.key"  # while it is there, a leave that was interrupted is repeated
_FILES = (
    "joining.json",
    "site.signed.json",
    "ca.crt",
    "tls.pem",
    "tls.key",
    "node.key",
    "federation.json",
    "current",
    "pause.json",
)
# What one federation was agreed to, or answered, is nothing to the next.
_FOLDERS = ("outbox", "exchange", "slots", "contract", "approvals")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("leave", rich_help_panel="Site operator")(leave)


def leave(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Leave the federation: the server revokes this site, and its keys, certificate and releases are deleted here.

    The privacy budget stays: what was spent stays spent.
    """
    from fedsite.client import settings, state_directory

    directory = settings.state_directory()
    if not any((directory / name).exists() for name in (_FIRST, _LAST)):
        output.emit({"schema": SCHEMA, "left": False, "revoked": False}, json)
        output.say("this host has not joined a federation; nothing was changed")
        return
    with state_directory.only_one(directory):
        if not yes and not _confirmed(directory):
            raise ConfigError("not confirmed; nothing was changed", allowed="y", next_step="fedsite leave --yes")
        # First of all: afterwards nobody here has the keys to say it with, or knows the name.
        name = _name(directory)
        unwritten = _unwritten(directory)
        untold = _untold(directory)
        _delete(directory)
    output.emit({"schema": SCHEMA, "left": True, "revoked": not untold}, json)
    if unwritten:
        output.say(f"the audit log does not say so: {unwritten}")
    if untold:
        output.say(f"the server was not told: {untold}")
        output.say(f"left; ask the central team to revoke this site: fedsite sites revoke {name}")
    else:
        output.say("left; the server has revoked this site")


def _delete(directory: Path) -> None:
    """Everything that is this federation's; may be interrupted, and repeated.

    Raises:
        StorageError: something cannot be deleted.
    """
    import shutil

    from fedsite.protocol.storage import storage_errors

    with storage_errors(directory):
        (directory / _FIRST).unlink(missing_ok=True)
        for name in _FOLDERS:
            if (directory / name).is_dir():
                shutil.rmtree(directory / name)
        for name in (*_FILES, _LAST):
            (directory / name).unlink(missing_ok=True)


def _name(directory: Path) -> str:
    """What the server knows this site by: its name, else its id."""
    from fedsite.protocol import documents, site_document, storage
    from fedsite.protocol.errors import FedsiteError
    from fedsite.protocol.keys import SigningKey

    try:
        known = documents.parse(storage.read(directory / _FIRST))
        return site_document.check_name(str(known["name"]))
    except (FedsiteError, KeyError, TypeError):
        pass
    try:
        return SigningKey.load(directory / _LAST).public.id
    except FedsiteError:
        return "NAME (its name stands in fedsite sites list)"


def _untold(directory: Path) -> str:
    """Why the server could not be told; empty when it was. Leaving does not depend on it."""
    from fedsite.client.identity import renewal
    from fedsite.protocol.errors import FedsiteError

    try:
        renewal.tell_left(directory)
    except FedsiteError as error:
        return error.found
    return ""


def _unwritten(directory: Path) -> str:
    """Why the audit log could not be told; empty when it was. It stays here, and leaving does not depend on it."""
    from fedsite.client.audit import log as audit_log
    from fedsite.protocol.errors import FedsiteError

    try:
        audit_log.record(directory, "left", {})
    except FedsiteError as error:
        return error.found
    return ""


def _confirmed(directory: Path) -> bool:
    """The operator's yes; nobody there to ask (a script, a service) is a no, Ctrl-C stays Ctrl-C."""
    try:
        return typer.confirm(f"delete this site's keys and releases in {directory}?", err=True)
    except typer.Abort as abort:
        if isinstance(abort.__context__, EOFError):
            return False
        raise
