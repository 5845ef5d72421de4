"""Certificates that are renewed, sites that leave, hosts that are replaced: what changes, and what never does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedsite.protocol import certificates, certified, instants, renewal, site_document, tokens
from fedsite.protocol.enrolment import Answer, read_refusal, refusal, sign_request
from fedsite.protocol.errors import DocumentError, FedsiteError, RefusalCode, TrustError
from fedsite.protocol.keys import SigningKey, TlsKey
from fedsite.server import home as homes
from fedsite.server.sites.fleet import Fleet
from tests.centre import START, Centre, EnrollingSite

fixtures = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
LATER = START + timedelta(days=70)
OTHER = EnrollingSite()


@pytest.fixture
def centre(tmp_path: Path) -> Iterator[Centre]:
    made = Centre(homes.ServerHome(tmp_path / "server"))
    yield made
    made.fleet.close()


@dataclasses.dataclass
class Enrolled:
    """A site of the centre with its certificate, seventy days later."""

    centre: Centre
    site: EnrollingSite
    answer: Answer

    @property
    def der(self) -> bytes:
        return certificates.der(self.answer.certificate)

    def asked(self, **changes: Any) -> bytes:
        good = self.site.renewal(self.centre.federation.id, self.answer.certificate, self.centre.now)
        return renewal.sign(dataclasses.replace(good, **changes), self.site.identity)

    def leaving(self) -> bytes:
        good = self.site.departure(self.centre.federation.id, self.answer.certificate, self.centre.now)
        return renewal.sign(good, self.site.identity)


@pytest.fixture
def alpha(centre: Centre) -> Enrolled:
    site = EnrollingSite()
    made = Enrolled(centre, site, centre.enrol(site.ask(centre.token())))
    centre.now = LATER
    return made


def _state(centre: Centre) -> list[tuple[Any, ...]]:
    """Every row of every table, read anew."""
    reader = Fleet(centre.home.database)
    tables = ("sites", "tokens", "renewals")
    rows = [row for table in tables for row in reader._db.execute(f"SELECT * FROM {table}")]  # noqa: S608
    reader.close()
    return [*rows, *sorted(centre.nodes.items()), *centre.retired]


def _refused(centre: Centre, act: Callable[[], object]) -> FedsiteError:
    """The error; the state is what it was."""
    before = _state(centre)
    with pytest.raises((TrustError, DocumentError)) as caught:
        act()
    assert _state(centre) == before
    told = read_refusal(refusal(caught.value))
    assert told is not None
    assert told.refusal is caught.value.refusal
    return caught.value


def test_a_renewed_certificate_names_the_same_site_for_another_ninety_days(centre: Centre, alpha: Enrolled) -> None:
    new = centre.renew(alpha.site, alpha.answer.certificate)
    checked = certificates.check(new.certificate, centre.federation, LATER)
    assert (checked.site_id, checked.not_after) == (alpha.answer.site_id, LATER + timedelta(days=90))
    document = site_document.verify(new.site.encode(), centre.federation, LATER)
    assert (document.name, document.certificate, new.node_id) == ("alpha", checked.fingerprint, alpha.answer.node_id)
    (known,) = centre.fleet.sites()
    assert known.expires == checked.not_after
    assert certified.expires(known.certified) == checked.not_after
    assert centre.retired == []


def test_both_certificates_count_until_the_site_was_seen_to_have_the_new_one(centre: Centre, alpha: Enrolled) -> None:
    """The answer may be lost, or the site killed before it was written: it is never without a certificate in force."""
    lost = centre.renew(alpha.site, alpha.answer.certificate)
    old = centre.fleet.by_certificate(alpha.der)
    assert old is not None
    assert old.expires == START + timedelta(days=90)  # its own end, not that of the new one
    centre.now = LATER + timedelta(hours=1)
    second = centre.renew(alpha.site, alpha.answer.certificate)
    assert centre.fleet.by_certificate(certificates.der(lost.certificate)) is None  # nobody ever had it
    assert centre.fleet.by_certificate(alpha.der) is not None
    centre.now = LATER + timedelta(days=60)
    third = centre.renew(alpha.site, second.certificate)
    assert centre.fleet.by_certificate(alpha.der) is None
    for held in (second, third):
        assert centre.fleet.by_certificate(certificates.der(held.certificate)) is not None
    assert len(centre.fleet.sites()) == 1
    again = Fleet(centre.home.database)  # as after a restart
    assert again.by_certificate(certificates.der(second.certificate)) is not None
    again.close()


def test_a_new_token_ends_every_earlier_certificate(centre: Centre, alpha: Enrolled) -> None:
    """Whoever joins again may have had a key stolen."""
    second = centre.renew(alpha.site, alpha.answer.certificate)
    third = centre.enrol(dataclasses.replace(alpha.site, tls=TlsKey.generate()).ask(centre.token()))
    for ended in (alpha.answer, second):
        assert centre.fleet.by_certificate(certificates.der(ended.certificate)) is None
    assert centre.fleet.by_certificate(certificates.der(third.certificate)) is not None


def test_a_revoked_site_renews_nothing(centre: Centre, alpha: Enrolled) -> None:
    second = centre.renew(alpha.site, alpha.answer.certificate)
    centre.fleet.revoke(alpha.answer.site_id, instants.text(LATER))
    centre.now += timedelta(seconds=5)
    for held in (alpha.answer, second):
        _refused(centre, lambda held=held: centre.renew(alpha.site, held.certificate))
        known = centre.fleet.by_certificate(certificates.der(held.certificate))
        assert known is not None
        assert known.revoked is not None


def test_a_replayed_request_is_refused(centre: Centre, alpha: Enrolled) -> None:
    body = alpha.asked()
    centre.service.renew(alpha.der, body)
    error = _refused(centre, lambda: centre.service.renew(alpha.der, body))
    assert error.refusal is RefusalCode.REPLAYED
    centre.now += timedelta(minutes=6)
    error = _refused(centre, lambda: centre.service.renew(alpha.der, body))
    assert error.refusal is RefusalCode.EXPIRED


def test_a_request_of_another_site_or_key_is_refused(centre: Centre, alpha: Enrolled) -> None:
    beta = EnrollingSite()
    centre.enrol(beta.ask(centre.token(), "beta"))
    stolen = beta.renewal(centre.federation.id, alpha.answer.certificate, centre.now)
    signed = renewal.sign(stolen, beta.identity)
    assert _refused(centre, lambda: centre.service.renew(alpha.der, signed)).refusal is RefusalCode.SIGNATURE
    # alpha's identity, over a statement about beta.
    about = renewal.sign(stolen, alpha.site.identity)
    assert _refused(centre, lambda: centre.service.renew(alpha.der, about)).refusal is RefusalCode.WRONG_SITE
    foreign = alpha.asked(federation="cd" * 16)
    assert _refused(centre, lambda: centre.service.renew(alpha.der, foreign)).refusal is RefusalCode.WRONG_SITE
    _refused(centre, lambda: centre.service.renew(b"", alpha.asked()))


def test_the_key_in_use_is_no_new_key(centre: Centre, alpha: Enrolled) -> None:
    _refused(centre, lambda: centre.renew(alpha.site, alpha.answer.certificate, alpha.site.tls))
    _refused(centre, lambda: centre.service.renew(alpha.der, alpha.asked(request="no request")))


@fixtures
@given(data=st.data())
def test_a_changed_cut_or_stale_request_changes_nothing(data: st.DataObject, centre: Centre, alpha: Enrolled) -> None:
    body = alpha.asked()
    kind = data.draw(st.sampled_from(["cut", "byte", "late", "early", "junk"]))
    sent, kept = body, centre.now
    if kind == "cut":
        sent = body[: _place(data, body)]
    elif kind == "byte":
        sent = _flipped(data, body)
    elif kind == "junk":
        sent = data.draw(st.binary(max_size=300))
    else:
        seconds = data.draw(st.integers(301, 10**7) if kind == "late" else st.integers(-(10**6), -7))
        centre.now = kept + timedelta(seconds=seconds)
    try:
        code = _refused(centre, lambda: centre.service.renew(alpha.der, sent)).refusal
        _refused(centre, lambda: centre.service.leave(alpha.der, sent))
    finally:
        centre.now = kept
    expected = {"late": [RefusalCode.EXPIRED], "early": [RefusalCode.EXPIRED]}
    assert code in expected.get(kind, [RefusalCode.MALFORMED, RefusalCode.SIGNATURE])


@fixtures
@given(data=st.data())
def test_a_changed_cut_or_stale_enrolment_changes_nothing(data: st.DataObject, centre: Centre, alpha: Enrolled) -> None:
    token, other = centre.token(60), OTHER
    body, kept = other.ask(token, "beta"), centre.now
    kind = data.draw(st.sampled_from(["cut", "byte", "token", "late", "foreign"]))
    if kind == "cut":
        body = body[: _place(data, body)]
    elif kind == "byte":
        body = _flipped(data, body)
    elif kind == "token":
        at, letter = _place(data, token), data.draw(st.sampled_from("Aa0-_.!"))
        body = other.ask(token[:at] + ("?" if letter == token[at] else letter) + token[at + 1 :], "beta")
    elif kind == "late":
        centre.now = kept + timedelta(seconds=data.draw(st.integers(60, 10**6)))
    else:
        body = other.ask(_foreign(centre, centre.now), "beta")
    try:
        _refused(centre, lambda: centre.service.enrol(body))
    finally:
        centre.now = kept


def test_a_malformed_certificate_request_makes_no_node(centre: Centre, alpha: Enrolled) -> None:
    other = EnrollingSite()
    asked = dataclasses.replace(other.request(centre.token(), "beta"), request="-----BEGIN CERTIFICATE REQUEST-----")
    _refused(centre, lambda: centre.service.enrol(sign_request(asked, other.identity)))


def _place(data: st.DataObject, text: bytes | str) -> int:
    """Somewhere in it; drawn from what does not depend on the keys, which are new each time."""
    return data.draw(st.integers(0, 2**16)) % len(text)


def _flipped(data: st.DataObject, body: bytes) -> bytes:
    at = _place(data, body)
    return body[:at] + bytes([body[at] ^ data.draw(st.integers(1, 255))]) + body[at + 1 :]


def _foreign(centre: Centre, now: datetime) -> str:
    return tokens.create(centre.federation, SigningKey.generate(), expires_s=60, now=now)


def test_a_site_leaves_by_its_own_word(centre: Centre, alpha: Enrolled) -> None:
    body = alpha.leaving()
    centre.service.leave(alpha.der, body)
    (known,) = centre.fleet.sites()
    assert known.revoked == instants.text(LATER)
    assert centre.retired == [alpha.answer.node_id]
    _refused(centre, lambda: centre.service.leave(alpha.der, body))
    # Its name is free, its keys are not.
    assert centre.enrol(EnrollingSite().ask(centre.token())).node_id != alpha.answer.node_id
    _refused(centre, lambda: centre.enrol(alpha.site.ask(centre.token(), "again")))


def test_a_request_to_renew_is_no_departure(centre: Centre, alpha: Enrolled) -> None:
    _refused(centre, lambda: centre.service.leave(alpha.der, alpha.asked()))
    _refused(centre, lambda: centre.service.renew(alpha.der, alpha.leaving()))


def test_a_lost_host_is_replaced_under_its_name_and_never_comes_back(centre: Centre, alpha: Enrolled) -> None:
    centre.fleet.label(alpha.answer.site_id, {"line": "3", "supernode": "true"})
    token, host = centre.token(label="alpha", replaces=alpha.answer.site_id), EnrollingSite()
    new = centre.enrol(host.ask(token))
    assert centre.service.enrol(host.ask(token))  # the same again: the answer was lost
    old, fresh = sorted(centre.fleet.sites(), key=lambda site: site.revoked is None)
    assert (old.site_id, old.revoked) == (alpha.answer.site_id, instants.text(LATER))
    assert (fresh.name, fresh.site_id, fresh.revoked) == ("alpha", host.identity.public.id, None)
    # What the centre noted of the place goes over; the right to come without a certificate does not.
    assert (dict(fresh.labels), fresh.supernode) == ({"line": "3"}, False)
    assert centre.retired == [alpha.answer.node_id]
    assert new.node_id != alpha.answer.node_id
    # A backup of the lost disk that turns up is out.
    _refused(centre, lambda: centre.renew(alpha.site, alpha.answer.certificate))
    _refused(centre, lambda: centre.enrol(alpha.site.ask(centre.token(), "other")))


def test_a_replacing_token_gives_no_other_name_and_takes_no_other_site(centre: Centre, alpha: Enrolled) -> None:
    beta = EnrollingSite()
    centre.enrol(beta.ask(centre.token(), "beta"))
    token = centre.token(label="alpha", replaces=alpha.answer.site_id)
    for name in ("beta", "gamma"):
        error = _refused(centre, lambda name=name: centre.enrol(EnrollingSite().ask(token, name)))
        assert error.refusal is RefusalCode.WRONG_SITE
    # A site that is enrolled already does not take a second place.
    _refused(centre, lambda: centre.enrol(beta.ask(token)))
    unknown = centre.token(label="alpha", replaces="ab" * 16)
    _refused(centre, lambda: centre.enrol(EnrollingSite().ask(unknown)))


def test_a_disk_that_was_found_again_does_not_replace_itself(centre: Centre, alpha: Enrolled) -> None:
    """It would be revoked in the moment in which it is told that it is in."""
    token = centre.token(label="alpha", replaces=alpha.answer.site_id)
    error = _refused(centre, lambda: centre.enrol(alpha.site.ask(token)))
    assert error.refusal is RefusalCode.WRONG_SITE
    assert [site.revoked for site in centre.fleet.sites()] == [None]
    centre.enrol(EnrollingSite().ask(token))  # the token was not used up


def test_a_site_that_was_revoked_meanwhile_is_replaced_where_its_name_is_free(centre: Centre, alpha: Enrolled) -> None:
    given = [centre.token(label="alpha", replaces=alpha.answer.site_id) for _ in range(2)]
    centre.fleet.revoke(alpha.answer.site_id, instants.text(START))
    centre.enrol(EnrollingSite().ask(given[0]))
    # The second token was for the site that is gone, not for the one that has its name now.
    _refused(centre, lambda: centre.enrol(EnrollingSite().ask(given[1])))
    assert [site.revoked for site in centre.fleet.sites()] == [instants.text(START), None]
