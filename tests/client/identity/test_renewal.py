"""A certificate that renews itself: when, with which key, and that no kill leaves a pair that does not fit."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fedsite.client.audit import log as audit_log
from fedsite.client.identity import enrolment, introduction, pair, site
from fedsite.client.identity import renewal as renewing
from fedsite.protocol import audit_lines, certificates, documents, envelope, instants, storage
from fedsite.protocol.audit_file import AuditFile
from fedsite.protocol.errors import ConfigError, FedsiteError, StorageError, TrustError, UnreachableError
from fedsite.protocol.keys import SigningKey, TlsKey
from tests.centre import START
from tests.site_place import Place, killed, place_at

RENEWED_AT = START + timedelta(days=61)


def _files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def _log(directory: Path) -> AuditFile:
    return audit_log.open_log(site.load(directory))


def test_it_is_due_in_the_last_third_of_its_life(member: Place) -> None:
    renewal = member.renewal()
    assert not renewal.due(START + timedelta(days=59))
    assert renewal.due(START + timedelta(days=63))
    assert not renewal.due(START - timedelta(hours=1))


def test_a_renewal_changes_key_and_certificate_and_nothing_else(member: Place) -> None:
    before = _files(member.directory)
    member.centre.now = RENEWED_AT
    used: list[str] = []
    renewal = member.renewal(lambda: used.append(pair.expires(member.directory)))
    renewal.when_due()
    assert member.posts == []
    member.centre.now += timedelta(days=2)
    renewal.when_due()
    end = instants.text(member.centre.now + timedelta(days=90))
    assert used == [end]
    assert not renewal.due(member.centre.now)
    assert member.in_force()
    after = _files(member.directory)
    assert {name for name in after if before.get(name) != after[name]} == {"tls.pem", "site.signed.json", "site.json"}
    keys = [TlsKey.parse(files["tls.pem"].split(b"-----BEGIN CERT")[0], "pair") for files in (before, after)]
    assert keys[0].pem != keys[1].pem
    assert json.loads(after["site.json"])["expires"] == end
    assert os.stat(member.directory / "tls.pem").st_mode & 0o777 == 0o600


def test_a_failure_leaves_the_old_pair_and_is_tried_again_ever_more_seldom(member: Place) -> None:
    member.centre.now = START + timedelta(days=65)
    old = (member.directory / "tls.pem").read_bytes()
    member.failure = UnreachableError("no answer")
    renewal, tries = member.renewal(), []
    for _ in range(24 * 60):
        if renewal.due(member.centre.now):
            tries.append(member.centre.now)
        renewal.when_due()
        member.centre.now += timedelta(minutes=1)
    gaps = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert gaps[0] == timedelta(minutes=5)
    assert gaps[-1] == timedelta(hours=6)
    assert len(tries) == len(member.posts) < 12
    assert renewal.problem is member.failure
    assert (member.directory / "tls.pem").read_bytes() == old
    member.failure = None
    member.centre.now += timedelta(hours=6)
    renewal.when_due()
    assert renewal.problem is None
    assert (member.directory / "tls.pem").read_bytes() != old


def test_a_renewal_is_in_the_sites_log_before_it_holds(member: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    member.centre.now = RENEWED_AT
    renewing.renew(member.directory, clock=member.clock)
    last = audit_lines.head(audit_lines.files(_log(member.directory).folder))
    assert last is not None
    fingerprint = certificates.fingerprint(pair.certificate(member.directory))
    ends = pair.expires(member.directory)
    assert (last.kind, last.facts) == ("renewed", {"certificate": fingerprint, "certificate_expires": ends})

    def full(self: AuditFile, kind: str, facts: Any, heads: Any = None) -> None:
        raise StorageError("No space left on device")

    member.centre.now += timedelta(days=61)
    with monkeypatch.context() as patch:
        patch.setattr(AuditFile, "append", full)
        with pytest.raises(StorageError):
            renewing.renew(member.directory, clock=member.clock)
    assert pair.expires(member.directory) == ends
    assert member.in_force()


def test_a_full_disk_keeps_the_old_pair_which_still_counts(member: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    member.centre.now = RENEWED_AT

    def full(path: Path, data: bytes, mode: int = 0o600) -> None:
        raise StorageError(f"{path}: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_atomic", full)
        with pytest.raises(StorageError):
            renewing.renew(member.directory, clock=member.clock)
    assert member.in_force()
    member.centre.now += timedelta(seconds=2)
    renewing.renew(member.directory, clock=member.clock)
    assert member.in_force()


def test_a_new_pair_is_used_even_where_the_rest_could_not_be_written(
    member: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    member.centre.now = START + timedelta(days=65)
    write, used = storage.write_atomic, []

    def nearly_full(path: Path, data: bytes, mode: int = 0o600) -> None:
        if path.name != pair.FILE:
            raise StorageError(f"{path}: No space left on device")
        write(path, data, mode)

    monkeypatch.setattr(storage, "write_atomic", nearly_full)
    renewal = member.renewal(lambda: used.append(pair.expires(member.directory)))
    renewal.when_due()
    assert used == [instants.text(member.centre.now + timedelta(days=90))]
    assert isinstance(renewal.problem, StorageError)
    assert member.in_force()
    # Who asks what the site is, is told of the certificate that it has.
    known = enrolment.load_joined(member.directory)
    assert known is not None
    assert [known.certificate_expires] == used


def test_an_answer_for_another_key_is_not_kept(member: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    member.centre.now = RENEWED_AT
    answers = member._post
    identity = SigningKey.load(member.directory / "identity.key")

    def other(federation: Any, path: str, body: bytes, tls: Any = None) -> bytes:
        from fedsite.protocol import renewal

        value = json.loads(body)["signed"]
        value["request"] = certificates.make_request(TlsKey.generate(), identity.public.id)
        return answers(federation, path, renewal.sign(renewal.Renewal(**value), identity), tls)

    monkeypatch.setattr(introduction, "post", other)
    with pytest.raises(TrustError, match="another key"):
        renewing.renew(member.directory, clock=member.clock)
    assert member.in_force()


@pytest.mark.parametrize(
    "garbage",
    [b"", b"<html>", b"null", b"[" * 100_000, b"\xff\xfe", b" " * (1 << 20), b"cut", b"unsigned", b"other"],
    ids=lambda data: data[:8].decode("latin1").strip() or f"{len(data)}-bytes",
)
def test_an_answer_that_is_none_leaves_the_pair_and_the_agent(
    member: Place, monkeypatch: pytest.MonkeyPatch, garbage: bytes
) -> None:
    member.centre.now = START + timedelta(days=65)
    answers, old = member._post, (member.directory / "tls.pem").read_bytes()

    def answer(federation: Any, path: str, body: bytes, tls: Any = None) -> bytes:
        good = answers(federation, path, body, tls)
        value = json.loads(good)
        changed = {
            b"cut": good[:-9],
            b"unsigned": documents.canonical({**value, "signature": ""}),
            b"other": envelope.wrap("fedsite/sig/enrolled/1", value["signed"], SigningKey.generate()),
        }
        return changed.get(garbage, garbage)

    monkeypatch.setattr(introduction, "post", answer)
    renewal = member.renewal()
    renewal.when_due()
    assert isinstance(renewal.problem, FedsiteError)
    assert not renewal.due(member.centre.now)
    assert (member.directory / "tls.pem").read_bytes() == old
    assert member.in_force()


def test_what_stands_around_a_certificate_is_not_kept(member: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    member.centre.now = RENEWED_AT
    answers, key = member._post, member.centre.home.signing_key()

    def answer(federation: Any, path: str, body: bytes, tls: Any = None) -> bytes:
        value = json.loads(answers(federation, path, body, tls))["signed"]
        value["certificate"] += "caf\u00e9"
        return envelope.wrap("fedsite/sig/enrolled/1", value, key)

    monkeypatch.setattr(introduction, "post", answer)
    renewing.renew(member.directory, clock=member.clock)
    assert member.in_force()
    assert pair.certificate(member.directory).endswith("-----END CERTIFICATE-----\n")


def test_a_kill_at_any_write_of_a_renewal_leaves_a_pair_that_counts(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.join()
    ends = set()

    def renew(home: Path, now: datetime) -> str:
        here = place_at(home, now, monkeypatch)
        return renewing.renew(here.directory, clock=here.clock)

    for die_at in range(1, 50):
        home = tmp_path / f"case-{die_at}"
        shutil.copytree(place.directory, home / "site")
        shutil.copytree(tmp_path / "server", home / "server")
        died = killed(lambda home=home: renew(home, RENEWED_AT), die_at)
        here = place_at(home, RENEWED_AT + timedelta(minutes=1), monkeypatch)
        assert here.in_force(), f"killed at step {die_at}"
        ends.add(pair.expires(here.directory))
        # And the next agent renews from there.
        renewing.renew(here.directory, clock=here.clock)
        assert here.in_force()
        here.centre.fleet.close()
        if not died:
            break
    assert die_at == 7  # three files, before and after each, and once to the end
    assert len(ends) == 2  # the old one, or the new one


def test_of_two_copies_of_a_host_the_one_that_renewed_first_is_told_that_it_is_out(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.join()
    copy = Place(tmp_path / "copy" / "site", place.centre, monkeypatch)
    shutil.copytree(place.directory, copy.directory)
    for number, here in enumerate((place, copy), start=1):
        monkeypatch.setattr(introduction, "post", here._post)
        here.centre.now = RENEWED_AT + timedelta(minutes=number)
        renewing.renew(here.directory, clock=here.clock)
    assert (copy.in_force(), place.centre.fleet.by_certificate(_der(place))) == (True, None)
    monkeypatch.setattr(introduction, "post", place._post)
    place.centre.now += timedelta(minutes=1)
    with pytest.raises(TrustError, match="not in force"):
        renewing.renew(place.directory, clock=place.clock)


def _der(place: Place) -> bytes:
    return certificates.der(pair.certificate(place.directory))


def test_a_site_that_leaves_says_so_and_is_out(member: Place) -> None:
    renewing.tell_left(member.directory, clock=member.clock)
    assert member.posts == ["/leave"]
    assert not member.in_force()
    with pytest.raises(TrustError):
        renewing.renew(member.directory, clock=member.clock)


def test_a_host_that_never_joined_renews_and_leaves_nothing(place: Place) -> None:
    for act in (renewing.renew, renewing.tell_left):
        with pytest.raises(ConfigError, match="not joined"):
            act(place.directory)
