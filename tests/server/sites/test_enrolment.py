"""Enrolment with real keys and certificates and a real fedsite.db; Flower's node table is a dictionary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from fedsite.protocol import certificates, certified, envelope, instants, site_document, tokens
from fedsite.protocol.enrolment import open_answer, parse_offer, read_refusal, refusal, sign_request
from fedsite.protocol.errors import ConfigError, DocumentError, FedsiteError, TrustError
from fedsite.protocol.keys import SigningKey
from fedsite.server import home as homes
from fedsite.server.sites.fleet_file import read_sites
from tests.centre import START, Centre, EnrollingSite


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[Centre]:
    made = Centre(homes.ServerHome(tmp_path / "server"))
    yield made
    made.fleet.close()


def test_a_site_gets_a_certificate_a_document_and_a_node_that_bind_its_keys(centre: Centre) -> None:
    site = EnrollingSite()
    answer = centre.enrol(site.ask(centre.token()))
    checked = certificates.check(answer.certificate, centre.federation, START)
    document = site_document.verify(answer.site.encode(), centre.federation, START)
    assert checked.site_id == answer.site_id == document.site_id == site.identity.public.id
    assert document.certificate == checked.fingerprint
    assert document.node_key == site.node.public_pem.decode()
    assert answer.node_id == str(2**63)
    known = centre.fleet.by_certificate(certificates.der(answer.certificate))
    assert known is not None
    assert known == centre.fleet.by_node_key(site.node.public_pem)
    assert [item.name for item in read_sites(centre.home.database)] == ["alpha"]


def test_other_sites_can_check_who_a_site_is_as_long_as_its_certificate_holds(centre: Centre) -> None:
    site = EnrollingSite()
    answers = []
    for later in (timedelta(0), timedelta(days=1)):
        centre.now = START + later
        answers.append(centre.enrol(site.ask(centre.token())))
        (known,) = read_sites(centre.home.database)
        assert certified.verify(known.certified, centre.federation, centre.now) == site.identity.public
        until = certificates.check(answers[-1].certificate, centre.federation, centre.now).not_after
        assert certified.expires(known.certified) == until == known.expires
        with pytest.raises(TrustError, match="expired"):
            certified.verify(known.certified, centre.federation, until)


def test_a_token_works_once_and_the_same_request_again_gets_the_same_answer(centre: Centre) -> None:
    token, site = centre.token(), EnrollingSite()
    first = centre.service.enrol(site.ask(token))
    # The signatures in a second request are fresh; what it asks for is the same.
    assert centre.service.enrol(site.ask(token)) == first
    assert len(centre.nodes) == 1
    with pytest.raises(TrustError, match="used already"):
        centre.service.enrol(EnrollingSite().ask(token, "beta"))
    with pytest.raises(TrustError, match="used already"):
        centre.service.enrol(site.ask(token, "other-name"))


def test_an_expired_forged_or_foreign_token_is_refused(centre: Centre, tmp_path: Path) -> None:
    late = centre.token(60)
    centre.now = START + timedelta(seconds=61)
    with pytest.raises(TrustError, match="expired"):
        centre.service.enrol(EnrollingSite().ask(late))
    forged = tokens.create(centre.federation, SigningKey.generate(), expires_s=60, now=centre.now)
    with pytest.raises(TrustError, match="signature"):
        centre.service.enrol(EnrollingSite().ask(forged))
    other = Centre(homes.ServerHome(tmp_path / "other"))
    with pytest.raises(TrustError):
        centre.service.enrol(EnrollingSite().ask(other.token()))
    other.fleet.close()
    assert centre.fleet.sites() == []
    assert centre.nodes == {}


def test_a_name_or_key_of_another_site_is_refused_until_it_is_revoked(centre: Centre) -> None:
    first = EnrollingSite()
    centre.enrol(first.ask(centre.token()))
    with pytest.raises(TrustError, match="name alpha belongs"):
        centre.enrol(EnrollingSite().ask(centre.token()))
    with pytest.raises(TrustError, match="enrolled as alpha"):
        centre.enrol(EnrollingSite(identity=first.identity).ask(centre.token(), "beta"))
    with pytest.raises(TrustError, match="enrolled as alpha"):
        centre.enrol(EnrollingSite(node=first.node).ask(centre.token(), "beta"))
    centre.fleet.revoke(first.identity.public.id, instants.text(START))
    with pytest.raises(TrustError, match="revoked"):
        centre.enrol(first.ask(centre.token()))
    assert centre.enrol(EnrollingSite().ask(centre.token())).node_id == str(2**63 + 1)


def test_a_site_renews_with_a_new_token_and_its_old_certificate_stops_working(centre: Centre) -> None:
    site = EnrollingSite()
    old = centre.enrol(site.ask(centre.token()))
    centre.now = START + timedelta(days=80)
    new = centre.enrol(site.ask(centre.token()))
    assert new.node_id == old.node_id
    assert centre.fleet.by_certificate(certificates.der(old.certificate)) is None
    known = centre.fleet.by_certificate(certificates.der(new.certificate))
    assert known is not None
    assert (known.enrolled, known.expires) == ("2026-01-01T00:00:00Z", centre.now + timedelta(days=90))
    assert len(centre.fleet.sites()) == 1


def test_a_request_not_signed_by_its_own_identity_is_refused(centre: Centre) -> None:
    victim, thief = EnrollingSite(), EnrollingSite()
    stolen = sign_request(victim.request(centre.token()), thief.identity)
    with pytest.raises(TrustError, match="signature"):
        centre.service.enrol(stolen)


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"\xff", b'{"signature":"","signed":{}}', b'{"signature":"AA==","signed":{"identity":"AA=="}}'],
)
def test_nonsense_is_refused_and_never_a_defect(centre: Centre, body: bytes) -> None:
    with pytest.raises((DocumentError, TrustError)):
        centre.service.enrol(body)


@pytest.mark.parametrize("name", ["", ".hidden", "-x", "a b", "a/b", "é", "x" * 65])
def test_a_malformed_name_is_refused(centre: Centre, name: str) -> None:
    site = EnrollingSite()
    good = site.request(centre.token())
    value = {field: getattr(good, field) for field in ("schema", "token", "identity", "node_key", "request", "time")}
    body = envelope.wrap("fedsite/sig/enrol/1", {**value, "name": name}, site.identity)
    with pytest.raises(DocumentError, match="name"):
        centre.service.enrol(body)


def test_the_offer_names_the_federation_and_the_time(centre: Centre) -> None:
    offer = parse_offer(centre.service.offer())
    assert offer.read_federation() == centre.federation
    assert offer.time == "2026-01-01T00:00:00Z"


def test_an_error_survives_its_way_to_the_site() -> None:
    for error in (TrustError("a", allowed="b", next_step="c"), DocumentError("d"), ConfigError("e")):
        back = read_refusal(refusal(error))
        assert back is not None
        assert (type(back), str(back)) == (type(error), str(error))
    assert type(read_refusal(refusal(FedsiteError("x")))) is FedsiteError
    assert read_refusal(b"<html>") is None


def test_an_answer_of_another_federation_is_refused(centre: Centre) -> None:
    answer = centre.service.enrol(EnrollingSite().ask(centre.token()))
    key = SigningKey.generate().public
    with pytest.raises(TrustError, match="signature"):
        open_answer(answer, replace(centre.federation, id=key.id, signing_key=key.text))
