"""fedsite.db: who is enrolled, seen by the one writer and by readers."""

from __future__ import annotations

import dataclasses
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedsite.protocol.errors import ConfigError, StorageError, TrustError
from fedsite.server.sites.fleet import Fleet
from fedsite.server.sites.fleet_file import MIGRATIONS, Site, Superseded, read_sites
from fedsite.server.sites.view import check_labels, parse_labels, site_view

WHEN = "2026-01-01T00:00:00Z"


def _site(name: str, number: int) -> Site:
    return Site(
        site_id=f"{number:032x}",
        name=name,
        node_id=str(2**64 - number),
        identity=b"i%d" % number,
        node_key=b"n%d" % number,
        certificate=b"c%d" % number,
        certified=b"d%d" % number,
        enrolled=WHEN,
        expires=datetime(2026, 4, 1, tzinfo=UTC),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fedsite.db"


def _enrolled(path: Path, *names: str) -> Fleet:
    fleet = Fleet(path)
    for number, name in enumerate(names, start=1):
        fleet.enrol(_site(name, number), nonce=f"nonce{number}", request="r", answer=b"a")
    return fleet


def test_what_was_written_is_there_after_a_restart_and_for_readers(path: Path) -> None:
    fleet = _enrolled(path, "beta", "alpha")
    fleet.label(_site("", 1).site_id, {"line": "3", "supernode": "true"})
    before = fleet.sites()
    assert read_sites(path) == before
    fleet.close()
    again = Fleet(path)
    assert again.sites() == before
    assert [site.name for site in before] == ["alpha", "beta"]
    assert (before[1].labels, before[1].supernode) == ({"line": "3"}, True)
    again.close()


def test_a_token_and_its_site_are_written_together_or_not_at_all(path: Path) -> None:
    fleet = _enrolled(path, "alpha")
    with pytest.raises(TrustError):
        fleet.enrol(_site("beta", 2), nonce="nonce1", request="r", answer=b"a")  # the token is used
    with pytest.raises(TrustError):
        fleet.enrol(_site("alpha", 3), nonce="nonce3", request="r", answer=b"a")  # the name is taken
    assert [site.name for site in fleet.sites()] == ["alpha"]
    assert fleet.token_use("nonce3") is None
    used = fleet.token_use("nonce1")
    assert used is not None
    assert (used.request, used.answer) == ("r", b"a")
    fleet.close()


def test_revoking_frees_the_name_keeps_the_keys_and_may_be_repeated(path: Path) -> None:
    fleet = _enrolled(path, "alpha")
    first = fleet.find("alpha")
    fleet.revoke(first.site_id, WHEN)
    fleet.revoke(first.site_id, "2027-01-01T00:00:00Z")
    gone = fleet.by_certificate(b"c1")
    assert gone is not None
    assert gone.revoked == WHEN
    assert fleet.find("alpha").revoked == WHEN
    fleet.enrol(_site("alpha", 2), nonce="n2", request="r", answer=b"a")
    assert fleet.find("alpha").site_id == _site("", 2).site_id
    assert fleet.find(first.site_id).revoked == WHEN
    with pytest.raises(TrustError, match="revoked"):
        fleet.check_free("gamma", b"i1", b"other")
    fleet.close()


def test_an_unknown_site_names_the_known_ones(path: Path) -> None:
    fleet = _enrolled(path, "alpha", "beta")
    with pytest.raises(ConfigError) as caught:
        fleet.find("gamma")
    assert caught.value.allowed == "alpha, beta"
    with pytest.raises(ConfigError) as caught:
        fleet.find("btea")
    assert "did you mean beta?" in caught.value.allowed
    fleet.close()


def test_a_database_of_the_first_version_goes_on(path: Path) -> None:
    db = sqlite3.connect(path)
    db.executescript(f"{MIGRATIONS[0]} PRAGMA user_version = 1;")
    db.close()
    fleet = _enrolled(path, "alpha")
    alpha = fleet.find("alpha")
    presented = Superseded(certificate=alpha.certificate, expires=alpha.expires, stated=WHEN)
    fleet.renew(dataclasses.replace(alpha, certificate=b"new"), presented)
    fleet.close()
    again = Fleet(path)
    assert [again.by_certificate(der) is not None for der in (b"new", alpha.certificate)] == [True, True]
    assert again.stated(alpha.site_id) == WHEN
    assert again.by_id(alpha.site_id) == again.find("alpha")
    again.close()


def test_a_newer_database_is_refused_with_the_remedy(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    with pytest.raises(StorageError, match="version"):
        Fleet(path)


def test_a_damaged_or_missing_database_is_a_storage_error(path: Path) -> None:
    with pytest.raises(StorageError, match=r"no .*fedsite\.db"):
        read_sites(path)
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StorageError):
        Fleet(path)
    with pytest.raises(StorageError):
        read_sites(path)


def test_a_view_says_the_state_and_holds_no_key(path: Path) -> None:
    fleet = _enrolled(path, "alpha")
    site = fleet.find("alpha")
    assert site_view(site, frozenset())["state"] == "offline"
    online = site_view(site, {site.node_id})
    assert online["state"] == "online"
    assert online["certificate_expires"] == "2026-04-01T00:00:00Z"
    assert not {"identity", "node_key", "certificate"} & set(online)
    fleet.close()


def test_labels_are_words() -> None:
    assert parse_labels(["line=3", "hall="]) == {"line": "3", "hall": None}
    for wrong in (["line"], ["Line=3"], ["line=a b"], ["supernode=yes"], ["=1"]):
        with pytest.raises(ConfigError):
            parse_labels(wrong)
    for body in (None, [], {"a": 1}, {"a" * 40: "x"}):
        with pytest.raises(ConfigError):
            check_labels(body)


def test_a_site_is_carried_from_when_somebody_says_so_and_before_nobody_is(path: Path) -> None:
    fleet = _enrolled(path, "alpha")
    (site,) = fleet.sites()
    assert not site.carried
    fleet.carry(site.site_id, True)
    assert [found.carried for found in read_sites(path)] == [True]
    fleet.carry(site.site_id, False)
    assert [found.carried for found in fleet.sites()] == [False]
    fleet.close()


def test_a_file_of_the_release_before_is_read_without_being_migrated(tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    db = sqlite3.connect(old)
    db.executescript(f"{''.join(MIGRATIONS[:2])} PRAGMA user_version = 2;")
    db.execute("INSERT INTO sites VALUES ('1','alpha','7',x'01',x'02',x'03',x'04',?,?,NULL,0,'{}')", (WHEN, WHEN))
    db.commit()
    db.close()
    assert [(site.name, site.carried) for site in read_sites(old)] == [("alpha", False)]
    fleet = Fleet(old)
    assert [(site.name, site.carried) for site in fleet.sites()] == [("alpha", False)]
    fleet.close()
