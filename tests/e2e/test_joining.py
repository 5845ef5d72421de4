"""Joining a federation, against the real server: tokens that do not count, other federations, clocks, taken ports."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fedsite.client.enrolment import join
from fedsite.protocol import instants, tokens
from fedsite.protocol.errors import FedsiteError, TrustError
from fedsite.server import home as homes


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
