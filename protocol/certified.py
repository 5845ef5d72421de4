"""A site's certified identity in 104 bytes: what sites show each other, by way of the server, before they share masks.

Layout: Ed25519 public key (32) ‖ end of validity, be64 seconds since 1970 (8) ‖ signature of the federation (64) over
enc("fedsite/sig/identity/1", federation, body). Issued at enrolment, never during a round: a server that drives rounds
can show or withhold certified sites, and make none up.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from fedsite.protocol import ids, instants
from fedsite.protocol.encoding import enc
from fedsite.protocol.errors import IntegrityError, RefusalCode, TrustError
from fedsite.protocol.federation import Federation
from fedsite.protocol.keys import SigningKey, VerifyKey

SIZE: Final = 104
_BODY: Final = 40
_LABEL: Final = "fedsite/sig/identity/1"


def issue(identity: VerifyKey, expires: datetime, federation: str, key: SigningKey) -> bytes:
    """Certify an identity.

    Args:
        identity: the site's Ed25519 key.
        expires: UTC, whole seconds are kept.
        federation: its id, hex.
        key: the federation's.
    """
    body = identity.raw + struct.pack(">Q", int(expires.timestamp()))
    return body + key.sign(enc(_LABEL, ids.id_bytes(federation), body))


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
    _check(data, federation.id, federation.verify_key)
    if now >= expires(data):
        raise TrustError(
            f"a site's certified identity expired at {instants.text(expires(data))}",
            next_step="that site joins again: fedsite join file:TOKENFILE",
        )
    return VerifyKey(data[:32])


@lru_cache(maxsize=1 << 12)  # the same sites come round after round; a good signature stays good, an error is not kept
def _check(data: bytes, federation: str, key: VerifyKey) -> None:
    key.verify(data[_BODY:], enc(_LABEL, ids.id_bytes(federation), data[:_BODY]), "certified identity")
