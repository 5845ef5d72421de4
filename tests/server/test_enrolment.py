"""Enrolment with real keys and certificates and a real fedsite.db; Flower's node table is a dictionary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedsite.protocol import certificates, certified, envelope, instants, site_document, tokens
from fedsite.protocol.enrolment import Answer, Request, open_answer, parse_offer, read_refusal, refusal, sign_request
from fedsite.protocol.errors import ConfigError, DocumentError, FedsiteError, TrustError
from fedsite.protocol.keys import NodeKey, SigningKey, TlsKey
from fedsite.server import home as homes
from fedsite.server.enrolment import Enrolment
from fedsite.server.fleet import Fleet, read_sites

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class _Site:
    identity: SigningKey = field(default_factory=SigningKey.generate)
    node: NodeKey = field(default_factory=NodeKey.generate)
    tls: TlsKey = field(default_factory=TlsKey.generate)

    def request(self, token: str, name: str = "alpha") -> Request:
        return Request(
            token=token,
            name=name,
            identity=self.identity.public.text,
            node_key=self.node.public_pem.decode(),
            request=certificates.make_request(self.tls, self.identity.public.id),
            time=instants.text(START),
        )

    def ask(self, token: str, name: str = "alpha") -> bytes:
        return sign_request(self.request(token, name), self.identity)


@dataclass
class _Centre:
    home: homes.ServerHome
    now: datetime = START
    nodes: dict[bytes, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.federation = homes.create(self.home, name="test", address="127.0.0.1:9443", now=START)
        self.fleet = Fleet(self.home.database)
        self.service = Enrolment(
            self.home.load_keys(), self.fleet, register_node=self._register, clock=lambda: self.now
        )

    def _register(self, key: bytes) -> str:
        return self.nodes.setdefault(key, str(2**63 + len(self.nodes)))

    def token(self, seconds: float = 3600) -> str:
        return tokens.create(self.federation, self.home.signing_key(), expires_s=seconds, now=self.now)

    def enrol(self, body: bytes) -> Answer:
        return open_answer(self.service.enrol(body), self.federation)


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[_Centre]:
    made = _Centre(homes.ServerHome(tmp_path / "server"))
    yield made
    made.fleet.close()


def test_a_site_gets_a_certificate_a_document_and_a_node_that_bind_its_keys(centre: _Centre) -> None:
    site = _Site()
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


def test_other_sites_can_check_who_a_site_is_as_long_as_its_certificate_holds(centre: _Centre) -> None:
    site = _Site()
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


def test_a_token_works_once_and_the_same_request_again_gets_the_same_answer(centre: _Centre) -> None:
    token, site = centre.token(), _Site()
    first = centre.service.enrol(site.ask(token))
    # The signatures in a second request are fresh; what it asks for is the same.
    assert centre.service.enrol(site.ask(token)) == first
    assert len(centre.nodes) == 1
    with pytest.raises(TrustError, match="used already"):
        centre.service.enrol(_Site().ask(token, "beta"))
    with pytest.raises(TrustError, match="used already"):
        centre.service.enrol(site.ask(token, "other-name"))


def test_an_expired_forged_or_foreign_token_is_refused(centre: _Centre, tmp_path: Path) -> None:
    late = centre.token(60)
    centre.now = START + timedelta(seconds=61)
    with pytest.raises(TrustError, match="expired"):
        centre.service.enrol(_Site().ask(late))
    forged = tokens.create(centre.federation, SigningKey.generate(), expires_s=60, now=centre.now)
    with pytest.raises(TrustError, match="signature"):
        centre.service.enrol(_Site().ask(forged))
    other = _Centre(homes.ServerHome(tmp_path / "other"))
    with pytest.raises(TrustError):
        centre.service.enrol(_Site().ask(other.token()))
    other.fleet.close()
    assert centre.fleet.sites() == []
    assert centre.nodes == {}


def test_a_name_or_key_of_another_site_is_refused_until_it_is_revoked(centre: _Centre) -> None:
    first = _Site()
    centre.enrol(first.ask(centre.token()))
    with pytest.raises(TrustError, match="name alpha belongs"):
        centre.enrol(_Site().ask(centre.token()))
    with pytest.raises(TrustError, match="enrolled as alpha"):
        centre.enrol(_Site(identity=first.identity).ask(centre.token(), "beta"))
    with pytest.raises(TrustError, match="enrolled as alpha"):
        centre.enrol(_Site(node=first.node).ask(centre.token(), "beta"))
    centre.fleet.revoke(first.identity.public.id, instants.text(START))
    with pytest.raises(TrustError, match="revoked"):
        centre.enrol(first.ask(centre.token()))
    assert centre.enrol(_Site().ask(centre.token())).node_id == str(2**63 + 1)


def test_a_site_renews_with_a_new_token_and_its_old_certificate_stops_working(centre: _Centre) -> None:
    site = _Site()
    old = centre.enrol(site.ask(centre.token()))
    centre.now = START + timedelta(days=80)
    new = centre.enrol(site.ask(centre.token()))
    assert new.node_id == old.node_id
    assert centre.fleet.by_certificate(certificates.der(old.certificate)) is None
    known = centre.fleet.by_certificate(certificates.der(new.certificate))
    assert known is not None
    assert (known.enrolled, known.expires) == ("2026-01-01T00:00:00Z", centre.now + timedelta(days=90))
    assert len(centre.fleet.sites()) == 1


def test_a_request_not_signed_by_its_own_identity_is_refused(centre: _Centre) -> None:
    victim, thief = _Site(), _Site()
    stolen = sign_request(victim.request(centre.token()), thief.identity)
    with pytest.raises(TrustError, match="signature"):
        centre.service.enrol(stolen)


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"\xff", b'{"signature":"","signed":{}}', b'{"signature":"AA==","signed":{"identity":"AA=="}}'],
)
def test_nonsense_is_refused_and_never_a_defect(centre: _Centre, body: bytes) -> None:
    with pytest.raises((DocumentError, TrustError)):
        centre.service.enrol(body)


@pytest.mark.parametrize("name", ["", ".hidden", "-x", "a b", "a/b", "é", "x" * 65])
def test_a_malformed_name_is_refused(centre: _Centre, name: str) -> None:
    site = _Site()
    good = site.request(centre.token())
    value = {field: getattr(good, field) for field in ("schema", "token", "identity", "node_key", "request", "time")}
    body = envelope.wrap("fedsite/sig/enrol/1", {**value, "name": name}, site.identity)
    with pytest.raises(DocumentError, match="name"):
        centre.service.enrol(body)


def test_the_offer_names_the_federation_and_the_time(centre: _Centre) -> None:
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


def test_an_answer_of_another_federation_is_refused(centre: _Centre) -> None:
    answer = centre.service.enrol(_Site().ask(centre.token()))
    key = SigningKey.generate().public
    with pytest.raises(TrustError, match="signature"):
        open_answer(answer, replace(centre.federation, id=key.id, signing_key=key.text))
