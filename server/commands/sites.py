"""`fedsite sites`: who is enrolled, who is online, who is out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fedsite.protocol import output

SCHEMA = "fedsite.sites/1"
ADMITTED = "fedsite.admitted/1"
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
_Name = Annotated[str, typer.Argument(metavar="NAME", help="A site's name or id.")]


def register(sites_app: typer.Typer) -> None:
    """Add the commands to `fedsite sites`; without one, `list` runs."""

    @sites_app.callback(invoke_without_command=True)
    def default(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            listing()

    sites_app.command("list")(listing)
    sites_app.command("show")(show)
    sites_app.command("revoke")(revoke)
    sites_app.command("label")(label)
    sites_app.command("carry")(carry)
    sites_app.command("admit")(admit)


def listing(json: _Json = False) -> None:
    """Every site with its state."""
    from fedsite.server.home import ServerHome
    from fedsite.server.sites.fleet_file import read_sites
    from fedsite.server.sites.view import site_view

    home = ServerHome.default()
    home.federation()
    found = _live()
    # A server that is down still answers who is enrolled: nobody is online then.
    if found is None:
        found = [site_view(site, frozenset()) for site in read_sites(home.database)] if home.database.exists() else []
    if json:
        output.emit({"schema": SCHEMA, "sites": found}, True)
    elif found:
        output.emit([_row(site) for site in found], False)
    else:
        output.say("no site has joined; next: fedsite token create")


def show(name: _Name, json: _Json = False) -> None:
    """One site."""
    from fedsite.server.link.admin_client import AdminClient

    with AdminClient.open() as server:
        output.emit(server.site(name), json)


def revoke(name: _Name, json: _Json = False) -> None:
    """Refuse a site from its next request on; its name becomes free, its keys never again."""
    from fedsite.server.link.admin_client import AdminClient

    with AdminClient.open() as server:
        site = server.revoke(name)
    output.emit(site, json)


def label(
    name: _Name,
    labels: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="KEY= removes one.")],
    json: _Json = False,
) -> None:
    """Set labels. `supernode=true` also admits the site without a client certificate, for a plain flower-supernode."""
    from fedsite.server.link.admin_client import AdminClient
    from fedsite.server.sites.view import parse_labels

    changes = parse_labels(labels)
    with AdminClient.open() as server:
        output.emit(server.label(name, changes), json)


def carry(
    name: _Name,
    off: Annotated[bool, typer.Option("--off", help="It is connected: its messages are sent again.")] = False,
    json: _Json = False,
) -> None:
    """Have a site without a network take part by files that people carry (fedsite server exchange)."""
    from fedsite.server.link.admin_client import AdminClient

    with AdminClient.open() as server:
        output.emit(server.carry(name, not off), json)


def admit(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What the site wrote: fedsite join TOKEN --request.")],
    answer: Annotated[Path, typer.Option(help="Where to write what the site takes back: fedsite join --answer.")],
    json: _Json = False,
) -> None:
    """Enrol a site without a network: its request came as a file, its token is used up."""
    from fedsite.protocol import documents
    from fedsite.protocol.enrolment import MAX_BYTES, Admission, open_answer, open_request
    from fedsite.protocol.exchange_medium import read_parcel, write_parcel
    from fedsite.server.link.admin_client import AdminClient

    body = read_parcel(file)
    request = open_request(body)
    with AdminClient.open() as server:
        told = documents.canonical(server.admit(documents.parse(body, limit=MAX_BYTES)))
    admission = Admission.parse(told)
    found = open_answer(documents.canonical(admission.answer), admission.read_federation())
    write_parcel(answer, told)
    value = {"schema": ADMITTED, "name": request.name, "site_id": found.site_id, "answer": str(answer)}
    output.emit(value, json)
    if not json:
        output.say(f"carry {answer} back to {request.name}; there: fedsite join --answer FILE")


def _live() -> list[dict[str, Any]] | None:
    from fedsite.protocol.errors import ConfigError, UnreachableError
    from fedsite.server.link.admin_client import AdminClient

    try:
        with AdminClient.open() as server:
            return server.sites()
    except (ConfigError, UnreachableError):
        return None


def _row(site: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": site["name"],
        "state": site["state"],
        "site_id": site["site_id"],
        "certificate_expires": site["certificate_expires"],
        "labels": " ".join(f"{key}={value}" for key, value in site["labels"].items()) or None,
    }
