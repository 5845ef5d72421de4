"""`fedsite token create`: a single-use, expiring invitation for one site. Only the audit log knows that it was made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fedsite.protocol import output

if TYPE_CHECKING:
    from fedsite.server.home import ServerHome
    from fedsite.server.sites.fleet_file import Site

SCHEMA = "fedsite.token-created/1"


def register(token_app: typer.Typer) -> None:
    """Add the command to `fedsite token`."""
    token_app.command("create")(create)


def create(
    expires: Annotated[str, typer.Option(help="How long it can be used: 30m, 1h, 2d.")] = "1h",
    label: Annotated[str, typer.Option(help="A note, such as the site it is meant for; anybody can read it.")] = "",
    replaces: Annotated[
        str, typer.Option(metavar="NAME", help="A site whose host was lost: the new one takes its name, it is revoked.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Make a token for one site. Whoever holds it can join: hand it over like a password."""
    from fedsite.protocol import durations, instants, tokens
    from fedsite.server.audit_log import open_log, token_name
    from fedsite.server.home import ServerHome

    expires_s = durations.seconds(expires, "--expires", example="fedsite token create --expires 1h")
    home = ServerHome.default()
    federation = home.federation()
    lost = _lost(home, replaces, label) if replaces else None
    text = tokens.create(
        federation,
        home.signing_key(),
        expires_s=expires_s,
        label=label if lost is None else lost.name,
        replaces="" if lost is None else lost.site_id,
        now=instants.now(),
    )
    token = tokens.read(text)
    facts = {"label": token.label, "expires": token.expires, "replaces": token.replaces or None}
    open_log(home).append("token", {"token": token_name(token), **facts})
    if json:
        output.emit({"schema": SCHEMA, "token": text, **facts, "fingerprint": federation.fingerprint}, True)
        return
    print(text)
    output.say(f"valid until {token.expires}, for one site: fedsite join file:PATH")
    if lost is not None:
        output.say(f"whoever joins with it is {lost.name}; site {lost.site_id} is revoked in that moment")
    output.say(f"tell its operator by another way, such as the telephone: fingerprint {federation.fingerprint}")


def _lost(home: ServerHome, name: str, label: str) -> Site:
    """The site to replace, as the database has it now.

    Raises:
        ConfigError: there is none that is still in, or a label asks for another name.
    """
    from fedsite.protocol.errors import ConfigError
    from fedsite.protocol.shape import nearest
    from fedsite.server.sites.fleet_file import read_sites

    sites = [site for site in read_sites(home.database) if site.revoked is None] if home.database.exists() else []
    for site in sites:
        if name in (site.name, site.site_id):
            if label not in ("", site.name):
                raise ConfigError(
                    f"--label {label!r:.40} with --replaces {name}",
                    allowed=f"no label: the new site is called {site.name}",
                    next_step=f"fedsite token create --replaces {name}",
                )
            return site
    raise ConfigError(
        f"--replaces {name!r:.80}: no such site is enrolled",
        allowed=nearest(name, [site.name for site in sites]) if sites else "none is enrolled",
        next_step="fedsite sites list; a site that was revoked needs no replacing: its name is free",
    )
