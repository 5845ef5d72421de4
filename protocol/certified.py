"""A site's certified identity in 104 bytes: what sites show each other, by way of the server, before they share masks.

Layout: Ed25519 public key (32) ‖ end of validity, be64 seconds since 1970 (8) ‖ ECDSA P-256 signature r ‖ s (64) over
enc("fedsite/sig/identity/1", federation, body). It is the authority's, the key that issues sites' certificates at
enrolment, and not the one that signs instructions: who drives rounds without it can show or withhold certified sites,
and make none up.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from fedsite.protocol import certificates, ids, instants
from fedsite.protocol.encoding import enc
from fedsite.protocol.errors import IntegrityError, RefusalCode, TrustError
from fedsite.protocol.federation import Federation
from fedsite.protocol.keys import TlsKey, VerifyKey

SIZE: Final = 104
_BODY: Final = 40
_LABEL: Final = "fedsite/sig/identity/1"
_ECDSA: Final = ec.ECDSA(hashes.SHA256())


def issue(identity: VerifyKey, expires: datetime, federation: str, authority: TlsKey) -> bytes:
    """Certify an identity.

    Args:
        identity: the site's Ed25519 key.
        expires: UTC, whole seconds are kept.
        federation: its id, hex.
        authority: the key of the federation's CA certificate.
    """
    body = identity.raw + struct.pack(">Q", int(expires.timestamp()))
    signature = authority.private.sign(enc(_LABEL, ids.id_bytes(federation), body), _ECDSA)
    return body + b"".join(number.to_bytes(32, "big") for number in decode_dss_signature(signature))


def expires(data: bytes) -> datetime:
    """Until when a certified identity of ours holds; nothing is verified."""
    return datetime.fromtimestamp(struct.unpack(">Q", data[32:_BODY])[0], UTC)


def verify(data: bytes, federation: Federation, now: datetime) -> VerifyKey:
    """The identity that is certified.

    Raises:
        IntegrityError: of another size.
        TrustError: not of this federation, altered, or expired.
    """
    if len(data) != SIZE:
        raise IntegrityError(
            f"a certified identity of {len(data)} bytes", allowed=f"{SIZE} bytes", refusal=RefusalCode.MALFORMED
        )
    _check(data, federation.id, federation.ca_certificate)
    if now >= expires(data):
        raise TrustError(
            f"a site's certified identity expired at {instants.text(expires(data))}",
            next_step="that site joins again: fedsite join file:TOKENFILE",
        )
    return VerifyKey(data[:32])


@lru_cache(maxsize=1 << 12)  # the same sites come round after round; a good signature stays good, an error is not kept
def _check(data: bytes, federation: str, authority: str) -> None:
    key = certificates.load(authority).public_key()
    r, s = (int.from_bytes(part, "big") for part in (data[_BODY : _BODY + 32], data[_BODY + 32 :]))
    try:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise InvalidSignature
        key.verify(encode_dss_signature(r, s), enc(_LABEL, ids.id_bytes(federation), data[:_BODY]), _ECDSA)
    except InvalidSignature:
        raise TrustError(
            "a certified identity that the federation's authority did not sign", allowed="one issued at enrolment"
        ) from None
