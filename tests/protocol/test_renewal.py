"""What a site says of its certificate: read from the right site, under the right certificate, once, in time."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedsite.protocol import envelope, instants, renewal, shape
from fedsite.protocol.errors import DocumentError, FedsiteError, RefusalCode, TrustError
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.renewal import Departure, Renewal, Speaker

fixtures = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
CERTIFICATE = "ab" * 32


@pytest.fixture
def speaker(pumps: Any, site_key: SigningKey) -> Speaker:
    return Speaker(federation=pumps[0].id, identity=site_key.public, certificate=CERTIFICATE)


@pytest.fixture
def asked(pumps: Any, site_key: SigningKey, now: datetime) -> Renewal:
    return Renewal(
        federation=pumps[0].id,
        site_id=site_key.public.id,
        certificate=CERTIFICATE,
        request="-----BEGIN CERTIFICATE REQUEST-----\n",
        time=instants.text(now),
    )


def _left(asked: Renewal) -> Departure:
    return Departure(federation=asked.federation, site_id=asked.site_id, certificate=asked.certificate, time=asked.time)


def _refused(body: bytes, speaker: Speaker, now: datetime) -> RefusalCode:
    with pytest.raises((TrustError, DocumentError)) as caught:
        renewal.open_renewal(body, speaker, now)
    return caught.value.refusal


def test_what_is_signed_is_read(asked: Renewal, speaker: Speaker, site_key: SigningKey, now: datetime) -> None:
    assert renewal.open_renewal(renewal.sign(asked, site_key), speaker, now) == asked
    left = _left(asked)
    assert renewal.open_departure(renewal.sign(left, site_key), speaker, now) == left


def test_a_departure_is_no_request_and_the_other_way_round(
    asked: Renewal, speaker: Speaker, site_key: SigningKey, now: datetime
) -> None:
    assert _refused(renewal.sign(_left(asked), site_key), speaker, now) is RefusalCode.SIGNATURE
    with pytest.raises(TrustError):
        renewal.open_departure(renewal.sign(asked, site_key), speaker, now)
    # Signed under the label of the one, with the words of the other.
    mixed = envelope.wrap("fedsite/sig/renew/1", shape.plain(_left(asked)), site_key)
    assert _refused(mixed, speaker, now) is RefusalCode.MALFORMED


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"federation": "cd" * 16}, RefusalCode.WRONG_SITE),
        ({"site_id": "cd" * 16}, RefusalCode.WRONG_SITE),
        ({"certificate": "cd" * 32}, RefusalCode.REPLAYED),
    ],
)
def test_a_statement_about_something_else_is_refused(
    changes: dict[str, str], code: RefusalCode, asked: Renewal, speaker: Speaker, site_key: SigningKey, now: datetime
) -> None:
    assert _refused(renewal.sign(dataclasses.replace(asked, **changes), site_key), speaker, now) is code


def test_another_sites_signature_is_refused(asked: Renewal, speaker: Speaker, now: datetime) -> None:
    assert _refused(renewal.sign(asked, SigningKey.generate()), speaker, now) is RefusalCode.SIGNATURE


@fixtures
@given(seconds=st.integers(-100_000, 100_000))
def test_only_a_fresh_statement_counts(
    seconds: int, asked: Renewal, speaker: Speaker, site_key: SigningKey, now: datetime
) -> None:
    body = renewal.sign(asked, site_key)
    there = now + timedelta(seconds=seconds)  # the statement is so many seconds old
    if -6 <= seconds <= 300:
        assert renewal.open_renewal(body, speaker, there) == asked
    else:
        assert _refused(body, speaker, there) is RefusalCode.EXPIRED


@fixtures
@given(seconds=st.integers(-200, 200))
def test_nothing_said_before_counts_again(
    seconds: int, asked: Renewal, speaker: Speaker, site_key: SigningKey, now: datetime
) -> None:
    body = renewal.sign(asked, site_key)
    heard = dataclasses.replace(speaker, last=instants.text(now + timedelta(seconds=seconds)))
    if seconds < 0:
        assert renewal.open_renewal(body, heard, now) == asked
    else:
        assert _refused(body, heard, now) is RefusalCode.REPLAYED


@fixtures
@given(data=st.data())
def test_a_changed_or_cut_statement_is_refused_by_name(
    data: st.DataObject, asked: Renewal, speaker: Speaker, site_key: SigningKey, now: datetime
) -> None:
    body = renewal.sign(asked, site_key)
    index = data.draw(st.integers(0, len(body) - 1))
    cut = data.draw(st.booleans())
    changed = body[:index] if cut else body[:index] + bytes([data.draw(st.integers(0, 255))]) + body[index + 1 :]
    if changed != body:
        assert _refused(changed, speaker, now) in (RefusalCode.MALFORMED, RefusalCode.SIGNATURE)


@fixtures
@given(body=st.binary(max_size=200))
def test_any_bytes_are_refused_and_nothing_else_is_raised(body: bytes, speaker: Speaker, now: datetime) -> None:
    for read in (renewal.open_renewal, renewal.open_departure):
        with pytest.raises(FedsiteError):
            read(body, speaker, now)


@fixtures
@given(
    changes=st.dictionaries(
        st.sampled_from(["schema", "federation", "site_id", "certificate", "request", "time", "extra"]),
        st.one_of(st.none(), st.integers(0, 9), st.text(max_size=20), st.lists(st.integers(0, 9), max_size=2)),
        min_size=1,
    )
)
def test_signed_nonsense_is_refused(
    changes: dict[str, Any], asked: Renewal, speaker: Speaker, site_key: SigningKey, now: datetime
) -> None:
    """A site that is known and lies: its signature is good, what it says is not of the schema."""
    if set(changes) == {"request"} and isinstance(changes["request"], str):
        return  # what stands in the request is for the authority to read
    body = envelope.wrap("fedsite/sig/renew/1", {**shape.plain(asked), **changes}, site_key)
    with pytest.raises((DocumentError, TrustError)):
        renewal.open_renewal(body, speaker, now)
