"""One federation and one site with fixed keys, and a clock that stands still."""

import hashlib
from datetime import UTC, datetime

import pytest

from fedsite.protocol import certificates
from fedsite.protocol.federation import Federation
from fedsite.protocol.keys import SigningKey

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def key_of(word: str) -> SigningKey:
    return SigningKey(hashlib.sha256(word.encode()).digest())


def federation_of(word: str) -> tuple[Federation, SigningKey, certificates.Authority]:
    key = key_of(word)
    authority = certificates.make_authority(key.public.id, word, NOW)
    federation = Federation(
        id=key.public.id,
        name=word,
        address="fl.example.org:9443",
        ca_certificate=authority.certificate,
        signing_key=key.public.text,
    )
    return federation, key, authority


@pytest.fixture
def now() -> datetime:
    return NOW


@pytest.fixture(scope="session")
def pumps() -> tuple[Federation, SigningKey, certificates.Authority]:
    return federation_of("pumps")


@pytest.fixture(scope="session")
def wards() -> tuple[Federation, SigningKey, certificates.Authority]:
    """Another federation, honest in itself."""
    return federation_of("wards")


@pytest.fixture(scope="session")
def site_key() -> SigningKey:
    return key_of("site")
