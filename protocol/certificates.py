"""The federation's certificate authority: server certificates, and client certificates that name a site.

A site's certificate says CN = site id, O = federation id and URI `fedsite:site:<id>`. The request's own names are not
looked at: only the key is taken from it, and its signature proves that the site holds it. EC P-256 throughout.

Source: RFC 5280.
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedsite.protocol import ids, instants
from fedsite.protocol.errors import TrustError
from fedsite.protocol.federation import Federation, host_port
from fedsite.protocol.keys import TlsKey

AUTHORITY_DAYS = 3650
SERVER_DAYS = 397
SITE_DAYS = 90
_BACKDATE = timedelta(minutes=10)  # a site whose clock is a little slow can use its new certificate at once
_URI = "fedsite:site:"
_MAX_PEM = 64 << 10

_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)

Role = Literal["site", "server"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """The authority's key and its certificate."""

    key: TlsKey
    certificate: str  # PEM


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a good certificate says."""

    site_id: str  # hex; empty for the server's
    fingerprint: str  # SHA-256 of the DER, hex
    not_after: datetime  # UTC


def make_authority(
    federation: str, name: str, now: datetime, *, days: int = AUTHORITY_DAYS, key: TlsKey | None = None
) -> Authority:
    """A new self-signed authority.

    Args:
        federation: federation id, hex.
        name: of the federation, for people.
        now: start of its validity.
        days: length of its validity.
        key: an existing key.
    """
    key = key or TlsKey.generate()
    subject = _name(f"{name[:40]} authority", federation)
    builder = _builder(subject, subject, key.private.public_key(), now, days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    return Authority(key=key, certificate=_pem(builder.sign(key.private, hashes.SHA256())))


def issue_server(authority: Authority, key: TlsKey, address: str, now: datetime, *, days: int = SERVER_DAYS) -> str:
    """The server's certificate (PEM) for the host in `address` (host:port), and for localhost."""
    host = host_port(address)[0]
    issuer = load(authority.certificate)
    hosts = dict.fromkeys([host, "localhost", "127.0.0.1", "::1"])
    names = x509.SubjectAlternativeName([_host_name(item) for item in hosts])
    builder = _builder(_name(host[:64], _organisation(issuer)), issuer.subject, key.private.public_key(), now, days)
    builder = _leaf(builder, issuer, ExtendedKeyUsageOID.SERVER_AUTH).add_extension(names, critical=False)
    return _pem(builder.sign(authority.key.private, hashes.SHA256()))


def make_request(key: TlsKey, site_id: str) -> str:
    """A certificate signing request (PEM): the site's proof that it holds the key."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, site_id)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key.private, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode("ascii")


def issue_site(authority: Authority, request: str, site_id: str, now: datetime, *, days: int = SITE_DAYS) -> str:
    """The client certificate (PEM) of one site.

    Args:
        authority: the federation's.
        request: PEM of the site's request.
        site_id: hex, from the site's verified identity; what the request says of itself does not count.
        now: start of its validity.
        days: length of its validity.

    Raises:
        TrustError: not a request for a P-256 key, or its signature is wrong.
        DocumentError: the site id is malformed.
    """
    ids.id_bytes(site_id)
    public = requested_key(request)
    issuer = load(authority.certificate)
    builder = _builder(_name(site_id, _organisation(issuer)), issuer.subject, public, now, days)
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(_URI + site_id)])
    builder = _leaf(builder, issuer, ExtendedKeyUsageOID.CLIENT_AUTH).add_extension(names, critical=False)
    return _pem(builder.sign(authority.key.private, hashes.SHA256()))


def load(data: str | bytes) -> x509.Certificate:
    """A certificate from PEM or DER.

    Raises:
        TrustError: not one certificate.
    """
    raw = data.encode("utf-8", "replace") if isinstance(data, str) else data
    try:
        if len(raw) > _MAX_PEM:
            raise ValueError
        if raw.startswith(b"-----BEGIN"):
            return x509.load_pem_x509_certificate(raw)
        return x509.load_der_x509_certificate(raw)
    except _UNREADABLE:
        raise TrustError("not a certificate", allowed="one X.509 certificate, PEM or DER") from None


def der(data: str | bytes) -> bytes:
    """The DER bytes of a certificate.

    Raises:
        TrustError: not one certificate.
    """
    return load(data).public_bytes(serialization.Encoding.DER)


def fingerprint(data: str | bytes) -> str:
    """SHA-256 of the DER, hex.

    Raises:
        TrustError: not one certificate.
    """
    return hashlib.sha256(der(data)).hexdigest()


def dates(data: str | bytes) -> tuple[datetime, datetime]:
    """From when to when a certificate holds, UTC; raises as `load`."""
    found = load(data)
    return found.not_valid_before_utc, found.not_valid_after_utc


def same_key(data: str | bytes, other: str | bytes | TlsKey) -> bool:
    """Whether a certificate is for this key, or for that of another certificate.

    Raises:
        TrustError: no certificate.
    """
    theirs = other.private.public_key() if isinstance(other, TlsKey) else load(other).public_key()
    return bool(load(data).public_key() == theirs)


def site_id_of(data: str | bytes) -> str:
    """The site a certificate names, hex. Who issued it is for TLS or `check` to say.

    Raises:
        TrustError: it names no site, or two different ones.
    """
    try:
        certificate = load(data)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        common = [item.value for item in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except (*_UNREADABLE, x509.ExtensionNotFound):
        raise TrustError("the certificate names no site", allowed="a certificate from fedsite join") from None
    if len(uris) != 1 or not uris[0].startswith(_URI) or common != [uris[0].removeprefix(_URI)]:
        raise TrustError("the certificate names no site", allowed="a certificate from fedsite join")
    return ids.id_bytes(uris[0].removeprefix(_URI)).hex()


def check(data: str | bytes, federation: Federation, now: datetime, *, role: Role = "site") -> Checked:
    """Check that the federation's authority issued a certificate for this role, and that it is in time.

    Raises:
        TrustError: another federation's, expired, not yet valid, or for another role.
    """
    certificate = load(data)
    issuer = load(federation.ca_certificate)
    remedy = "ask the central team for a new token (fedsite token create), then fedsite join file:TOKENFILE"
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *_UNREADABLE):
        raise TrustError(
            "the certificate is not of this federation",
            allowed=f"one issued by {federation.name} ({federation.id})",
            next_step=remedy,
        ) from None
    for which, found in (("certificate", certificate), ("authority's certificate", issuer)):
        start, end = found.not_valid_before_utc, found.not_valid_after_utc
        if not start <= now < end:
            raise TrustError(
                f"the {which} is valid from {instants.text(start)} to {instants.text(end)}",
                allowed=f"one valid at {instants.text(now)}",
                next_step=remedy if now >= end else "compare the clocks of both ends (date -u)",
            )
    wanted = ExtendedKeyUsageOID.CLIENT_AUTH if role == "site" else ExtendedKeyUsageOID.SERVER_AUTH
    try:
        usage = list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except (*_UNREADABLE, x509.ExtensionNotFound):
        usage = []
    if usage != [wanted]:
        raise TrustError("the certificate is for another role", allowed=f"a {role}'s certificate", next_step=remedy)
    return Checked(
        site_id=site_id_of(data) if role == "site" else "",
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        not_after=certificate.not_valid_after_utc,
    )


def requested_key(request: str) -> ec.EllipticCurvePublicKey:
    """The key that a certificate is asked for.

    Raises:
        TrustError: not a PEM request for a P-256 key, or not signed by that key.
    """
    try:
        found = x509.load_pem_x509_csr(request.encode("utf-8", "replace"))
        signed = found.is_signature_valid
        public = found.public_key()
    except _UNREADABLE:
        raise TrustError("not a certificate request", allowed="a PEM certificate request") from None
    if not signed:
        raise TrustError("the certificate request is not signed by its own key", allowed="a self-signed request")
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, ec.SECP256R1):
        raise TrustError(f"certificate request for a {type(public).__name__}", allowed="an EC P-256 key")
    return public


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=public)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - _BACKDATE).not_valid_after(now + timedelta(days=days))
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)


def _leaf(
    builder: x509.CertificateBuilder, issuer: x509.Certificate, usage: x509.ObjectIdentifier
) -> x509.CertificateBuilder:
    authority = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(authority)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return builder.add_extension(identifier, critical=False)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str, federation: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, federation),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _organisation(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value)


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")
