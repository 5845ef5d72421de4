"""`fedsite join`: the token enrols this host; keys are made here and never leave."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsite.protocol import output
from fedsite.protocol.errors import ConfigError

if TYPE_CHECKING:
    from fedsite.client.identity.enrolment import Joined

SCHEMA = "fedsite.joined/1"
_SHORTEST = 200  # characters of a token
_MOST = 8192  # characters that are looked at: a device has no end
REQUESTED = "fedsite.join-requested/1"


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
    fingerprint: Annotated[
        str | None,
        typer.Option(help="The federation's fingerprint, as you were told it by another way; compared first of all."),
    ] = None,
    request: Annotated[
        Path | None,
        typer.Option(help="Without a network: write the request into this file, for fedsite sites admit."),
    ] = None,
    answer: Annotated[
        Path | None, typer.Option(help="Without a network: the file that came back from fedsite sites admit.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Join a federation with a single-use token from the central team (fedsite token create)."""
    from fedsite.client import settings
    from fedsite.client.audit import log as audit_log
    from fedsite.client.identity import enrolment

    directory = settings.state_directory()
    joined = None
    if answer is not None:
        joined = _answered(directory, answer, fingerprint, alone=token is None and name is None and request is None)
    elif request is not None:
        joined = _requested(directory, read_token(token), request, name, fingerprint, json)
        if joined is None:
            return
    elif not (token or os.environ.get("FEDSITE_TOKEN")):
        joined = _known(directory, name, fingerprint)
    joined = joined or enrolment.join(read_token(token), directory, name=name, fingerprint=fingerprint)
    if not joined.already:
        facts = {"federation": joined.federation.id, "name": joined.name, "replaces": joined.replaces}
        audit_log.record(directory, "joined", {**facts, "certificate_expires": joined.certificate_expires})
    value = {
        "schema": SCHEMA,
        "site_id": joined.site_id,
        "name": joined.name,
        "federation": {
            "id": joined.federation.id,
            "name": joined.federation.name,
            "address": joined.federation.address,
            "fingerprint": joined.federation.fingerprint,
        },
        "certificate_expires": joined.certificate_expires,
        "already": joined.already,
        "replaces": joined.replaces,
    }
    output.emit(value, json)
    if json:
        return
    if joined.replaces:
        output.say(
            f"this host took the place of the lost {joined.name}; what that one spent of the privacy budget is not "
            f"known here: put its budget.db into {directory} from a backup, or lower policy.epsilon_max by it"
        )
    then = "fedsite up" if answer is None else "fedsite exchange import FILE, with what the central team exports"
    output.say("this host had joined already; nothing was changed" if joined.already else f"joined; next: {then}")
    if fingerprint is None and not joined.already:
        output.say(
            "compare the federation's fingerprint with what the central team told you; if it differs: fedsite leave"
        )


def _requested(
    directory: Path, token: str, request: Path, name: str | None, fingerprint: str | None, as_json: bool
) -> Joined | None:
    """Write the request to be carried; what an earlier join left, where that is enough."""
    from fedsite.client.identity import carried_join
    from fedsite.protocol.exchange_medium import write_parcel

    body = carried_join.request(token, directory, name=name, fingerprint=fingerprint)
    if not isinstance(body, bytes):
        return body
    write_parcel(request, body)
    output.emit({"schema": REQUESTED, "request": str(request)}, as_json)
    if not as_json:
        output.say(
            f"carry {request} to the central team (fedsite sites admit FILE --answer FILE); the token is in it: it is "
            "as secret as that; next, with what comes back: fedsite join --answer FILE"
        )
    return None


def _answered(directory: Path, answer: Path, fingerprint: str | None, *, alone: bool) -> Joined:
    """Join with what came back."""
    from fedsite.client.identity import carried_join
    from fedsite.protocol.enrolment import Admission
    from fedsite.protocol.exchange_medium import read_parcel
    from fedsite.protocol.federation import check_fingerprint

    if not alone:
        raise ConfigError("--answer with a token, --name or --request", allowed="fedsite join --answer FILE")
    data = read_parcel(answer)
    if fingerprint is not None:
        check_fingerprint(fingerprint, Admission.parse(data).read_federation().digest)
    return carried_join.answered(directory, data)


def _known(directory: Path, name: str | None, fingerprint: str | None) -> Joined | None:
    """What an earlier join left, for a `fedsite join` without a token: there is nothing to ask for."""
    from fedsite.client.identity import enrolment
    from fedsite.protocol.federation import check_fingerprint

    joined = enrolment.load_joined(directory)
    if joined is None or name not in (None, joined.name):
        return None
    if fingerprint is not None:
        check_fingerprint(fingerprint, joined.federation.digest)
    return joined


def read_token(given: str | None) -> str:
    """The token, from wherever it was put.

    Raises:
        ConfigError: there is none, or its file cannot be read.
    """
    if given is None:
        given = os.environ.pop("FEDSITE_TOKEN", "").strip() or _asked()
    elif given == "-":
        given = sys.stdin.readline(_MOST)
    elif given.startswith("file:"):
        given = _in_file(Path(given.removeprefix("file:")).expanduser())
    else:
        if len(given) < _SHORTEST and Path(given).expanduser().is_file():
            raise ConfigError(f"{given} is a file", allowed="file:PATH", next_step=f"fedsite join file:{given}")
        output.say("warning: a token on the command line is in the shell's history and in ps; next time: file:PATH")
    if not given.strip():
        raise ConfigError("the token is empty", allowed="a token", next_step="ask the central team for a token")
    return given.strip()


def _in_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_MOST).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise ConfigError(f"token file {path}: {reason}", next_step="fedsite join file:PATH") from None
    if stat.S_ISREG(mode) and mode & 0o077:
        output.say(f"warning: other users of this host may use the token in {path}, until it is used; chmod 600 {path}")
    return text


def _asked() -> str:
    if not sys.stdin.isatty():
        raise ConfigError(
            "no token was given",
            allowed="file:PATH, -, or the environment variable FEDSITE_TOKEN",
            next_step="fedsite join file:PATH",
        )
    return str(typer.prompt("token", hide_input=True, err=True))
