"""federation.json: read back as written, and its id names its key."""

import dataclasses
from typing import Any

import pytest

from fedsite.protocol import documents
from fedsite.protocol.errors import ConfigError, DocumentError, TrustError
from fedsite.protocol.federation import Federation, check_fingerprint, host_port


def test_round_trip_and_digest(pumps: Any, wards: Any) -> None:
    federation = pumps[0]
    assert Federation.parse(federation.encode()) == federation
    assert federation.digest == documents.digest(documents.parse(federation.encode()))
    assert federation.digest != wards[0].digest
    assert (federation.host, federation.port) == ("fl.example.org", 9443)
    assert federation.verify_key == pumps[1].public


def test_another_key_under_the_same_id_is_refused(pumps: Any, wards: Any) -> None:
    with pytest.raises(TrustError, match="does not name"):
        dataclasses.replace(pumps[0], signing_key=wards[0].signing_key)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "x" * 65},
        {"name": "a\nb"},
        {"address": "fl.example.org"},
        {"ca_certificate": "none"},
        {"ca_certificate": "-----BEGIN CERTIFICATE-----\ncafé"},
        {"schema": "fedsite.federation/2"},
        {"extra": 1},
    ],
)
def test_a_bad_document_is_refused(changes: dict[str, Any], pumps: Any) -> None:
    document = documents.parse(pumps[0].encode()) | changes
    with pytest.raises(DocumentError):
        Federation.parse(documents.canonical(document))


@pytest.mark.parametrize(
    ("address", "expected"),
    [("a.b:1", ("a.b", 1)), ("10.0.0.1:65535", ("10.0.0.1", 65535)), ("[::1]:9443", ("::1", 9443))],
)
def test_addresses(address: str, expected: tuple[str, int]) -> None:
    assert host_port(address) == expected


@pytest.mark.parametrize(
    "address", ["", ":1", "a", "a:", "a:0", "a:65536", "a:-1", "::1:9443", "a b:1", "http://a:1", "u@a:1", "a:٣", "ß:1"]
)
def test_bad_addresses(address: str) -> None:
    with pytest.raises(DocumentError):
        host_port(address)


def test_a_fingerprint_is_compared_as_people_spell_it(pumps: Any, wards: Any) -> None:
    federation, digest = pumps[0], pumps[0].digest
    assert federation.fingerprint.replace(" ", "") == digest
    for told in (federation.fingerprint, digest.upper(), digest[:32], federation.fingerprint.replace(" ", ":")):
        check_fingerprint(told, digest)
    for other in (wards[0].digest, digest[1:], digest[:-1] + ("0" if digest[-1] != "0" else "1")):
        with pytest.raises(TrustError, match="not the one you were told"):
            check_fingerprint(other, digest)
    for nothing in ("", digest[:31], digest + "0", "x" * 64):
        with pytest.raises(ConfigError):
            check_fingerprint(nothing, digest)
