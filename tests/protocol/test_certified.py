"""Certified identities: 104 bytes that only the federation's authority can make."""

from datetime import UTC, datetime, timedelta

import pytest

from fedsite.protocol import certified
from fedsite.protocol.errors import FedsiteError, IntegrityError, TrustError
from fedsite.protocol.keys import SigningKey, TlsKey
from tests.authority import AUTHORITY
from tests.simulated_fleet import make_federation

NOW = datetime(2026, 1, 2, tzinfo=UTC)
CENTRE, SITE = SigningKey.generate(), SigningKey.generate()
FEDERATION = make_federation(CENTRE)


def issued(key: TlsKey = AUTHORITY.key, federation: str = FEDERATION.id) -> bytes:
    return certified.issue(SITE.public, NOW + timedelta(days=1), federation, key)


def test_it_names_the_site() -> None:
    data = issued()
    assert len(data) == certified.SIZE
    assert certified.verify(data, FEDERATION, NOW).id == SITE.public.id


def test_it_ends() -> None:
    data = issued()
    certified.verify(data, FEDERATION, NOW)  # what was good before is looked at again
    with pytest.raises(TrustError, match="expired"):
        certified.verify(data, FEDERATION, NOW + timedelta(days=1))


@pytest.mark.parametrize("data", [issued(TlsKey.generate()), issued(federation=SITE.public.id)])
def test_nobody_else_can_make_one(data: bytes) -> None:
    with pytest.raises(TrustError):
        certified.verify(data, FEDERATION, NOW)


def test_every_altered_byte_is_noticed() -> None:
    data = issued()
    for place in range(len(data)):
        altered = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(FedsiteError):
            certified.verify(altered, FEDERATION, NOW)


@pytest.mark.parametrize("data", [b"", issued()[:-1], issued() + b"x"])
def test_another_size_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError, match="bytes"):
        certified.verify(data, FEDERATION, NOW)
