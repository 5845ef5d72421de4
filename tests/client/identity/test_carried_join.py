"""Joining by file: what the network would have checked is checked, and every step may be repeated."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedsite.client.carried import standing
from fedsite.client.identity import carried_join, enrolment, pair
from fedsite.client.identity.enrolment import Joined
from fedsite.protocol import documents
from fedsite.protocol.errors import ConfigError, DocumentError, TrustError
from fedsite.server import home as homes
from tests.centre import Centre
from tests.site_place import Place, killed


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[Centre]:
    made = Centre(homes.ServerHome(tmp_path / "server"))
    yield made
    made.fleet.close()


def _ask(centre: Centre, directory: Path, token: str = "") -> bytes:
    body = carried_join.request(token or centre.token(), directory, name="alpha", clock=lambda: centre.now)
    assert isinstance(body, bytes)
    return body


def _join(centre: Centre, directory: Path, answer: bytes) -> Joined:
    return carried_join.answered(directory, answer, clock=lambda: centre.now)


def test_a_site_joins_by_file_and_is_carried(centre: Centre, tmp_path: Path) -> None:
    directory = tmp_path / "site"
    answer = centre.service.admit(_ask(centre, directory))
    joined = _join(centre, directory, answer)
    assert (joined.name, joined.already, joined.federation) == ("alpha", False, centre.federation)
    assert enrolment.load_joined(directory) is not None
    (site,) = centre.fleet.sites()
    assert (site.site_id, site.carried) == (joined.site_id, True)
    assert not (directory / carried_join.PENDING).exists()
    assert standing.is_carried(directory)
    assert not (directory / enrolment.STAGED_KEY).exists()


def test_every_step_may_be_repeated(centre: Centre, tmp_path: Path) -> None:
    directory, token = tmp_path / "site", centre.token()
    bodies = [_ask(centre, directory, token) for _ in range(2)]
    answers = [centre.service.admit(body) for body in bodies]
    assert answers[0] == answers[1]
    assert [_join(centre, directory, answer).already for answer in answers] == [False, True]
    known = carried_join.request(centre.token(), directory, clock=lambda: centre.now)
    assert isinstance(known, Joined)


def test_a_kill_at_any_write_lets_the_same_answer_finish_the_join(centre: Centre, tmp_path: Path) -> None:
    first = tmp_path / "site"
    answer = centre.service.admit(_ask(centre, first))
    for die_at in range(1, 50):
        directory = tmp_path / f"case-{die_at}"
        shutil.copytree(first, directory)
        died = killed(lambda directory=directory: _join(centre, directory, answer), die_at)
        joined = _join(centre, directory, answer)
        assert joined.name == "alpha", f"killed at step {die_at}"
        assert pair.check(directory, centre.federation, centre.now)
        assert standing.is_carried(directory)
        assert not any((directory / name).exists() for name in (carried_join.PENDING, enrolment.STAGED_KEY))
        if not died:
            break
    assert die_at == 17  # five files, a mark and two that go, before and after each, and once to the end


def test_an_answer_of_another_federation_or_about_other_keys_is_refused(centre: Centre, tmp_path: Path) -> None:
    other = Centre(homes.ServerHome(tmp_path / "other"))
    ours, theirs = tmp_path / "site", tmp_path / "elsewhere"
    _ask(centre, ours)
    foreign = other.service.admit(_ask(other, theirs))
    with pytest.raises(TrustError, match="not of the one the token is for"):
        _join(centre, ours, foreign)
    swapped = centre.service.admit(_ask(centre, tmp_path / "third"))
    with pytest.raises(TrustError, match="other keys"):
        _join(centre, ours, swapped)
    mixed = documents.canonical({**documents.parse(swapped), "answer": documents.parse(foreign)["answer"]})
    with pytest.raises(TrustError):
        _join(centre, ours, mixed)
    for data in (b"", b"{}", swapped[:-1]):
        with pytest.raises(DocumentError):
            _join(centre, ours, data)
    assert enrolment.load_joined(ours) is None
    other.fleet.close()


def test_an_answer_at_a_host_that_did_not_ask_is_refused(centre: Centre, tmp_path: Path) -> None:
    answer = centre.service.admit(_ask(centre, tmp_path / "site"))
    with pytest.raises(ConfigError, match="no request was made"):
        _join(centre, tmp_path / "elsewhere", answer)


def test_the_token_of_a_request_is_used_up(centre: Centre, tmp_path: Path) -> None:
    token = centre.token()
    centre.service.admit(_ask(centre, tmp_path / "site", token))
    with pytest.raises(TrustError, match="used already"):
        centre.service.enrol(_ask(centre, tmp_path / "thief", token))


def test_joining_anew_over_the_network_ends_the_carrying(centre: Centre, tmp_path: Path) -> None:
    body = _ask(centre, tmp_path / "site")
    centre.service.admit(body)
    again = _ask(centre, tmp_path / "site")
    centre.service.enrol(again)
    assert [site.carried for site in centre.fleet.sites()] == [False]
    centre.fleet.carry(centre.fleet.sites()[0].site_id, True)
    assert [site.carried for site in centre.fleet.sites()] == [True]


def test_a_join_over_the_network_ends_a_request_that_waits(place: Place) -> None:
    standing.mark(place.directory)
    _ask(place.centre, place.directory)
    place.join()
    assert not standing.is_carried(place.directory)
    assert not (place.directory / carried_join.PENDING).exists()
