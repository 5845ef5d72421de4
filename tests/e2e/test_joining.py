"""Joining a federation, against the real server: tokens that do not count, other federations, clocks, taken ports."""

from __future__ import annotations

import dataclasses
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from fedsite.client.identity import pair
from fedsite.client.identity.enrolment import join, load_joined, open_connection, use_new_pair
from fedsite.client.identity.renewal import CertificateRenewal
from fedsite.client.link.flower_fleet import FleetLink
from fedsite.protocol import certificates, instants, renewal, tokens
from fedsite.protocol.errors import FedsiteError, TrustError
from fedsite.protocol.keys import SigningKey, TlsKey
from fedsite.server import home as homes
from fedsite.server.sites.fleet import Fleet
from fedsite.server.sites.fleet_file import Superseded


def test_a_second_server_and_a_taken_port_are_named(federation: Any, federations: Any, tmp_path: Path) -> None:
    second = federation.cli("server", "up")
    assert second.code == 2
    assert "running already" in second.stderr
    other = federations.Federation(tmp_path)
    assert other.cli("server", "up").code == 2  # not set up
    assert other.cli("server", "init", "--address", f"127.0.0.1:{federation.port}").code == 0
    taken = other.cli("server", "up")
    assert taken.code == 2
    assert f"port {federation.port}" in taken.stderr
    assert "Traceback" not in taken.stderr
    again = other.cli("server", "init", "--address", "127.0.0.1:1", "--json")
    assert again.code == 2
    assert other.cli("server", "init", "--json").value["already"]


@pytest.mark.parametrize("damage", ["reused", "forged", "expired", "text"])
def test_a_token_that_does_not_count_is_refused_with_exit_4(federation: Any, tmp_path: Path, damage: str) -> None:
    token = federation.token()
    if damage == "reused":
        join(token, tmp_path / "first", name="first")
    elif damage == "forged":
        token = token[:-6] + ("AAAAAA" if token[-6:] != "AAAAAA" else "BBBBBB")
    elif damage == "expired":
        token = federation.token(1.0)
        while instants.now() < instants.read(tokens.read(token).expires):
            time.sleep(0.1)
    else:
        token = "hello"
    done = federation.cli("join", "-", "--name", f"x-{damage}", home=tmp_path / "site", stdin=token + "\n")
    assert done.code == 4, done.stderr
    assert "next:" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "site" / "site" / "site.json").exists()


def test_joining_twice_changes_nothing_and_another_federation_is_refused(federation: Any, tmp_path: Path) -> None:
    site = tmp_path / "site"
    first = join(federation.token(), site, name="twice")
    unused = federation.token()
    again = join(unused, site)
    assert again.already
    assert again.site_id == first.site_id
    assert not join(unused, tmp_path / "other", name="thrice").already  # it was not spent
    other = homes.ServerHome(tmp_path / "server")
    made = homes.create(other, name="other", address=f"127.0.0.1:{federation.port}", now=instants.now())
    foreign = tokens.create(made, other.signing_key(), expires_s=60, now=instants.now())
    with pytest.raises(FedsiteError, match="has joined federation"):
        join(foreign, site)
    # The server at that address is not the one that this token pins: nothing secret was sent.
    with pytest.raises(TrustError, match="not the one this token is for"):
        join(foreign, tmp_path / "fresh")
    assert not (tmp_path / "fresh" / "identity.key").exists()


def test_a_wrong_clock_is_named_with_its_distance(federation: Any, tmp_path: Path) -> None:
    for shift, where in ((timedelta(seconds=100), "ahead of"), (timedelta(seconds=-1000), "behind")):
        with pytest.raises(TrustError, match=rf"\d+ s {where} the server's"):
            join(federation.token(), tmp_path / where, clock=lambda shift=shift: instants.now() + shift)


def test_an_unreachable_server_is_exit_5(federation: Any, federations: Any, tmp_path: Path) -> None:
    away = homes.ServerHome(tmp_path / "server")
    address = f"127.0.0.1:{federations.free_port()}"
    made = homes.create(away, name="away", address=address, now=instants.now())
    token = tokens.create(made, away.signing_key(), expires_s=60, now=instants.now())
    done = federation.cli("join", "-", home=tmp_path / "site", stdin=token + "\n")
    assert done.code == 5
    assert address in done.stderr


def test_what_a_site_says_of_its_certificate_has_to_be_its_own_word(federation: Any) -> None:
    directory = federation.site_state("alpha")
    document = load_joined(directory).federation
    keys = {name: SigningKey.load(federation.site_state(name) / "identity.key") for name in ("alpha", "beta")}
    fields = {"federation": document.id, "time": instants.text(instants.now())}
    fields["certificate"] = certificates.fingerprint(pair.certificate(directory))
    own, other = (renewal.Departure(site_id=keys[name].public.id, **fields) for name in ("alpha", "beta"))
    with httpx.Client(verify=pair.tls(directory, document), trust_env=False) as http:
        for body, status in (
            (b"", 400),
            (b"x" * (1 << 20), 413),
            (renewal.sign(own, keys["beta"]), 403),
            (renewal.sign(other, keys["beta"]), 403),
            (renewal.sign(other, keys["alpha"]), 403),
            (renewal.sign(own, keys["alpha"])[:-1], 400),
        ):
            for path in ("/leave", "/renew"):
                assert http.post(f"https://{document.address}{path}", content=body).status_code == status
    states = {site["name"]: site["state"] for site in federation.cli("sites", "list", "--json").value["sites"]}
    assert (states["alpha"], states["beta"]) == ("offline", "offline")  # and not revoked


def _aged(federation: Any, name: str, days: int) -> None:
    """Give an enrolled site a certificate that was issued so many days ago; the server must be down."""
    directory, home = federation.site_state(name), homes.ServerHome(federation.state)
    key, now = TlsKey.generate(), instants.now()
    fleet = Fleet(home.database)
    known = fleet.find(name)
    request = certificates.make_request(key, known.site_id)
    issued = now - timedelta(days=days)
    text = certificates.issue_site(home.load_keys().authority, request, known.site_id, issued)
    site = dataclasses.replace(known, certificate=certificates.der(text), expires=certificates.dates(text)[1])
    earlier = Superseded(certificate=known.certificate, expires=now, stated=instants.text(issued))
    fleet.renew(site, earlier)
    fleet.close()
    pair.save(directory, key, text)


def test_an_agent_renews_its_certificate_by_itself_and_goes_on(federations: Any, tmp_path: Path) -> None:
    with federations.Federation(tmp_path) as running:
        running.join_site("alpha")
        running.stop()
        _aged(running, "alpha", 80)
        old = pair.certificate(running.site_state("alpha"))
        running.start()
        agent = running.start_agent("alpha")
        running.wait_online("alpha")
        until = time.monotonic() + 60
        while pair.certificate(running.site_state("alpha")) == old:
            assert time.monotonic() < until, running.log("alpha", "server")
            time.sleep(0.2)
        shown = running.cli("sites", "show", "alpha", "--json").value
        assert shown["certificate_expires"] == pair.expires(running.site_state("alpha"))
        assert shown["state"] == "online"
        told = running.cli("status", "--json", home=running.site_home("alpha")).value
        assert told["certificate"]["expires"] == shown["certificate_expires"]
        # The agent itself has no connection under the old certificate any more: it may end now.
        running.agents.clear()
        assert federations.end(agent) == 0


def test_a_link_goes_over_to_the_new_certificate_without_losing_a_call(federation: Any, tmp_path: Path) -> None:
    directory = tmp_path / "site"
    join(federation.token(), directory, name="renewing")
    first = pair.certificate(directory)
    connection = open_connection(directory)
    renewing = CertificateRenewal(directory, lambda: use_new_pair(connection, directory))
    with FleetLink(connection) as link:
        link.activate()
        for _ in range(2):
            renewing.renew()
            assert renewing.problem is None
            assert link.pull(wait_s=0) is None
            time.sleep(1.1)  # a statement has to be newer than the last one, in whole seconds
        # Two certificates are in force at most: the first is not, so the link is on one of the others.
        kept = pair.certificate(directory)
        key = (directory / pair.FILE).read_bytes().partition(b"-----BEGIN CERTIFICATE")[0]
        (directory / pair.FILE).write_bytes(key + first.encode())
        with pytest.raises(TrustError, match="do not fit"):
            open_connection(directory)
        (directory / pair.FILE).write_bytes(key + kept.encode())
        assert link.pull(wait_s=0) is None
    known = Fleet(homes.ServerHome(federation.state).database)
    assert known.by_certificate(certificates.der(first)) is None
    known.close()


def test_a_lost_host_is_replaced_and_a_host_leaves_by_itself(federation: Any, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    done = federation.cli("join", "-", "--name", "plant", home=first, stdin=federation.token() + "\n")
    assert done.code == 0, done.stderr
    made = federation.cli("token", "create", "--replaces", "plant", "--json").value
    (first / "site" / "tls.pem").rename(tmp_path / "backup.pem")  # the disk is gone
    told = federation.cli(
        "join", "-", "--fingerprint", made["fingerprint"], "--json", home=second, stdin=made["token"] + "\n"
    )
    assert (told.code, told.value["name"], told.value["replaces"]) == (0, "plant", True), told.stderr
    # A backup of the disk is of no use to anybody.
    (tmp_path / "backup.pem").rename(first / "site" / "tls.pem")
    lost = federation.cli("up", home=first)
    assert lost.code == 4, lost.stderr
    assert federation.cli("leave", "--yes", "--json", home=first).value == {
        "schema": "fedsite.left/1",
        "left": True,
        "revoked": False,
    }
    assert federation.cli("leave", "--yes", "--json", home=second).value["revoked"] is True
    listed = federation.cli("sites", "list", "--json").value["sites"]
    assert [site["state"] for site in listed if site["name"] == "plant"] == ["revoked", "revoked"]
