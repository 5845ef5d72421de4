"""The authority's certificates: what they say, and whose are refused. One handshake over real TLS."""

import socket
import ssl
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from fedsite.protocol import certificates
from fedsite.protocol.errors import DocumentError, TrustError
from fedsite.protocol.keys import TlsKey

SITE = "ab" * 16


@pytest.fixture(scope="module")
def tls_key() -> TlsKey:
    return TlsKey.generate()


@pytest.fixture
def site(pumps: Any, tls_key: TlsKey, now: datetime) -> str:
    return certificates.issue_site(pumps[2], certificates.make_request(tls_key, SITE), SITE, now)


def test_a_site_certificate_names_its_site(pumps: Any, site: str, now: datetime, tls_key: TlsKey) -> None:
    checked = certificates.check(site, pumps[0], now)
    assert checked.site_id == certificates.site_id_of(certificates.der(site)) == SITE
    assert checked.fingerprint == certificates.fingerprint(site) == certificates.fingerprint(certificates.der(site))
    assert checked.not_after == now + timedelta(days=90)
    found = certificates.load(site)
    assert found.public_key() == tls_key.private.public_key()
    assert found.subject.rfc4514_string() == f"CN={SITE},O={pumps[0].id}"


def test_the_request_does_not_choose_the_site(pumps: Any, tls_key: TlsKey, now: datetime) -> None:
    request = certificates.make_request(tls_key, "cd" * 16)
    assert certificates.site_id_of(certificates.issue_site(pumps[2], request, SITE, now)) == SITE


@pytest.mark.parametrize(("days", "good"), [(-1, False), (0, True), (89.9, True), (90, False), (4000, False)])
def test_a_certificate_has_its_time(days: float, good: bool, pumps: Any, site: str, now: datetime) -> None:
    moment = now + timedelta(days=days)
    if good:
        certificates.check(site, pumps[0], moment)
    else:
        with pytest.raises(TrustError, match="valid from") as raised:
            certificates.check(site, pumps[0], moment)
        assert ("join" if days > 0 else "date -u") in raised.value.next_step


def test_another_federations_certificate_is_refused(pumps: Any, wards: Any, site: str, now: datetime) -> None:
    with pytest.raises(TrustError, match="not of this federation") as raised:
        certificates.check(site, wards[0], now)
    assert wards[0].id in raised.value.allowed
    impostor = certificates.make_authority(pumps[0].id, "pumps", now)  # same names, another key
    forged = certificates.issue_site(impostor, certificates.make_request(TlsKey.generate(), SITE), SITE, now)
    with pytest.raises(TrustError, match="not of this federation"):
        certificates.check(forged, pumps[0], now)


def test_a_site_cannot_issue(pumps: Any, site: str, tls_key: TlsKey, now: datetime) -> None:
    pretender = certificates.Authority(key=tls_key, certificate=site)
    below = certificates.issue_site(pretender, certificates.make_request(TlsKey.generate(), SITE), SITE, now)
    with pytest.raises(TrustError):
        certificates.check(below, pumps[0], now)


def test_roles_do_not_mix(pumps: Any, site: str, tls_key: TlsKey, now: datetime) -> None:
    server = certificates.issue_server(pumps[2], tls_key, pumps[0].address, now)
    assert certificates.check(server, pumps[0], now, role="server").not_after == now + timedelta(days=397)
    for pem, role in ((server, "site"), (site, "server"), (pumps[2].certificate, "site")):
        with pytest.raises(TrustError, match="another role"):
            certificates.check(pem, pumps[0], now, role=role)


@pytest.mark.parametrize(
    ("address", "dns", "addresses"),
    [
        ("fl.example.org:9443", ["fl.example.org", "localhost"], ["127.0.0.1", "::1"]),
        ("192.0.2.7:9443", ["localhost"], ["192.0.2.7", "127.0.0.1", "::1"]),
        ("[2001:db8::1]:9443", ["localhost"], ["2001:db8::1", "127.0.0.1", "::1"]),
        ("localhost:9443", ["localhost"], ["127.0.0.1", "::1"]),
    ],
)
def test_server_names(
    address: str, dns: list[str], addresses: list[str], pumps: Any, tls_key: TlsKey, now: datetime
) -> None:
    found = certificates.load(certificates.issue_server(pumps[2], tls_key, address, now))
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert sorted(names.get_values_for_type(x509.DNSName)) == sorted(dns)
    assert sorted(map(str, names.get_values_for_type(x509.IPAddress))) == sorted(addresses)


def request(key: Any) -> str:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, algorithm)
    return made.public_bytes(serialization.Encoding.PEM).decode()


def test_bad_requests_are_refused(pumps: Any, tls_key: TlsKey, now: datetime) -> None:
    good = certificates.make_request(tls_key, SITE)
    raw = bytearray(x509.load_pem_x509_csr(good.encode()).public_bytes(serialization.Encoding.DER))
    raw[-1] ^= 1
    unsigned = x509.load_der_x509_csr(bytes(raw)).public_bytes(serialization.Encoding.PEM).decode()
    other_kinds = [request(ec.generate_private_key(ec.SECP384R1())), request(ed25519.Ed25519PrivateKey.generate())]
    for bad in ("", "x", "é", pumps[2].certificate, good[:-60], unsigned, *other_kinds):
        with pytest.raises(TrustError):
            certificates.issue_site(pumps[2], bad, SITE, now)
    with pytest.raises(DocumentError):
        certificates.issue_site(pumps[2], good, "site", now)


@pytest.mark.parametrize(
    "data", ["", "x", "é", b"", b"\x30\x03\x02\x01\x01", "-----BEGIN CERTIFICATE-----\n", b"x" * 70000]
)
def test_what_is_no_certificate_is_refused(data: str | bytes, pumps: Any, now: datetime) -> None:
    for call in (certificates.fingerprint, certificates.site_id_of, lambda x: certificates.check(x, pumps[0], now)):
        with pytest.raises(TrustError):
            call(data)


def test_the_servers_certificate_names_no_site(pumps: Any, tls_key: TlsKey, now: datetime) -> None:
    with pytest.raises(TrustError, match="names no site"):
        certificates.site_id_of(certificates.issue_server(pumps[2], tls_key, "a:1", now))


def test_a_handshake_over_tls(tmp_path: Path) -> None:
    from fedsite.protocol import instants

    now = instants.now()  # OpenSSL looks at the real clock
    authority = certificates.make_authority("00" * 16, "x", now)
    server_key, site_key = TlsKey.generate(), TlsKey.generate()
    chain = {
        "server": (server_key, certificates.issue_server(authority, server_key, "fl.example.org:1", now)),
        "site": (site_key, certificates.issue_site(authority, certificates.make_request(site_key, SITE), SITE, now)),
    }
    contexts = {}
    for name, purpose in (("server", ssl.Purpose.CLIENT_AUTH), ("site", ssl.Purpose.SERVER_AUTH)):
        key, certificate = chain[name]
        key.save(tmp_path / f"{name}.key")
        (tmp_path / f"{name}.crt").write_text(certificate)
        context = ssl.create_default_context(purpose, cadata=authority.certificate)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(tmp_path / f"{name}.crt", tmp_path / f"{name}.key")
        contexts[name] = context
    here, there = socket.socketpair()
    seen: list[bytes] = []

    def serve() -> None:
        with contexts["server"].wrap_socket(here, server_side=True) as connection:
            seen.append(connection.getpeercert(binary_form=True) or b"")
            connection.sendall(b"ok")

    thread = threading.Thread(target=serve)
    thread.start()
    with contexts["site"].wrap_socket(there, server_hostname="fl.example.org") as connection:
        assert connection.recv(2) == b"ok"
    thread.join()
    assert certificates.site_id_of(seen[0]) == SITE
