"""Joining: once, again, with another fingerprint, with a damaged pair, and killed at every write."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from fedsite.client.identity import enrolment, pair
from fedsite.protocol.errors import ConfigError, StorageError, TrustError
from fedsite.protocol.keys import TlsKey
from tests.centre import START
from tests.site_place import Place, killed, place_at


def test_a_kill_at_any_write_of_a_join_lets_the_same_token_finish_it(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = place.centre.token(label="alpha")

    def join(home: Path) -> enrolment.Joined:
        here = place_at(home, START, monkeypatch)
        return enrolment.join(token, here.directory, clock=here.clock)

    for die_at in range(1, 50):
        home = tmp_path / f"case-{die_at}"
        shutil.copytree(tmp_path / "server", home / "server")
        died = killed(lambda home=home: join(home), die_at)
        join(home)
        here = place_at(home, START, monkeypatch)
        assert here.in_force(), f"killed at step {die_at}"
        assert [site.name for site in here.centre.fleet.sites()] == ["alpha"]
        here.centre.fleet.close()
        if not died:
            break
    assert die_at == 19  # three keys, five files and one that goes, before and after each, and once to the end
    assert not (here.directory / enrolment.STAGED_KEY).exists()


def test_joining_again_is_said_and_changes_nothing(member: Place) -> None:
    before = {path.name: path.read_bytes() for path in member.directory.iterdir()}
    assert member.join().already
    assert member.join(fingerprint=member.centre.federation.fingerprint).already
    with pytest.raises(ConfigError, match="has joined as alpha"):
        enrolment.join(member.centre.token(), member.directory, name="beta", clock=member.clock)
    assert member.posts == []
    assert {path.name: path.read_bytes() for path in member.directory.iterdir()} == before


@pytest.mark.parametrize("damage", ["ended", "lost", "other-key", "cut"])
def test_a_pair_that_does_not_count_is_replaced_with_a_new_token(member: Place, damage: str) -> None:
    path = member.directory / pair.FILE
    if damage == "ended":
        member.centre.now = START + timedelta(days=91)
    elif damage == "lost":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:200])
    else:
        path.write_bytes(TlsKey.generate().pem + pair.certificate(member.directory).encode())
    if damage != "ended":
        with pytest.raises((TrustError, StorageError)):
            pair.check(member.directory, member.centre.federation, member.clock())
    again = member.join()
    assert not again.already
    assert member.in_force()
    assert len(member.centre.fleet.sites()) == 1


def test_another_fingerprint_ends_a_join_before_anything_is_made_or_sent(place: Place) -> None:
    with pytest.raises(TrustError, match="not the one you were told"):
        place.join(fingerprint="ab" * 32)
    with pytest.raises(ConfigError):
        place.join(fingerprint="pumps")
    assert place.posts == []
    assert not place.directory.exists()
