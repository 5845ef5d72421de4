"""The federation's statement of a site's keys."""

import dataclasses
from datetime import datetime, timedelta
from typing import Any

import pytest

from fedsite.protocol import envelope, shape, site_document
from fedsite.protocol.errors import DocumentError, FedsiteError, TrustError
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.site_document import SiteDocument


@pytest.fixture
def document(pumps: Any, site_key: SigningKey) -> SiteDocument:
    return SiteDocument(
        federation=pumps[0].id,
        site_id=site_key.public.id,
        name="plant-7",
        identity=site_key.public.text,
        node_key="-----BEGIN PUBLIC KEY-----\n",
        certificate="ab" * 32,
        issued="2026-01-02T03:04:05Z",
        expires="2026-04-02T03:04:05Z",
    )


def test_round_trip(document: SiteDocument, pumps: Any, now: datetime, site_key: SigningKey) -> None:
    found = site_document.verify(site_document.sign(document, pumps[1]), pumps[0], now)
    assert found == document
    assert found.verify_key == site_key.public


def test_forged_foreign_or_expired_is_refused(document: SiteDocument, pumps: Any, wards: Any, now: datetime) -> None:
    good = site_document.sign(document, pumps[1])
    with pytest.raises(TrustError, match="does not verify"):
        site_document.verify(site_document.sign(document, wards[1]), pumps[0], now)
    with pytest.raises(TrustError, match="of federation"):
        site_document.verify(site_document.sign(document, wards[1]), wards[0], now)
    with pytest.raises(TrustError, match="does not verify"):
        site_document.verify(good.replace(b"plant-7", b"plant-8"), pumps[0], now)
    with pytest.raises(TrustError, match="expired"):
        site_document.verify(good, pumps[0], now + timedelta(days=90))


def test_keys_of_two_sites_do_not_mix(document: SiteDocument) -> None:
    with pytest.raises(TrustError, match="does not name"):
        dataclasses.replace(document, identity=SigningKey.generate().public.text)


@pytest.mark.parametrize("name", ["", ".hidden", "-x", "a/b", "a b", "ä", "x" * 65, "a\n"])
def test_names_that_are_refused(name: str, document: SiteDocument) -> None:
    with pytest.raises(DocumentError):
        dataclasses.replace(document, name=name)


def test_a_signed_document_of_another_kind_is_refused(document: SiteDocument, pumps: Any, now: datetime) -> None:
    other = envelope.wrap("fedsite/sig/release/1", shape.plain(document), pumps[1])
    with pytest.raises(TrustError):
        site_document.verify(other, pumps[0], now)
    newer = envelope.wrap("fedsite/sig/site/1", shape.plain(document) | {"schema": "fedsite.site/2"}, pumps[1])
    with pytest.raises(DocumentError, match=r"fedsite\.site/1"):
        site_document.verify(newer, pumps[0], now)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"signature":1,"signed":{}}', b'{"signature":"","signed":[]}', b"\xff", b" " * 20000]
)
def test_what_is_no_signed_document_is_refused(data: bytes, pumps: Any, now: datetime) -> None:
    with pytest.raises(FedsiteError):
        site_document.verify(data, pumps[0], now)
