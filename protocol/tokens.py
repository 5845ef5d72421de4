"""Enrolment tokens: signed, expiring, and nothing stored when one is made.

A token is "fedsite-" + base64url(canonical JSON) + "." + base64url(signature). The site can only parse it: it pins the
digest of federation.json, which it then fetches and compares. The server verifies it and remembers the nonce, so that
it is used once. Whoever holds a token can enrol: it never stands in a log (`redact`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from fedsite.protocol import documents, ids, instants, shape
from fedsite.protocol.encoding import enc
from fedsite.protocol.errors import ConfigError, DocumentError, RefusalCode, TrustError
from fedsite.protocol.federation import Federation, host_port
from fedsite.protocol.keys import SigningKey

SCHEMA: Final = "fedsite.token/1"
PREFIX = "fedsite-"
MAX_LENGTH = 4096  # characters
MAX_LABEL = 64  # characters
LONGEST_S = 30 * 86_400  # seconds a token may live
_LABEL = "fedsite/sig/token/1"
_NEXT = "ask the central team for a new token: fedsite token create --expires 1h"
_ALLOWED = "a token as printed by fedsite token create"
# A payload starts with {", which is eyJ in base64.
_TOKEN = re.compile(r"fedsite-eyJ[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What a token says. Only `verify` makes it true."""

    schema: Literal["fedsite.token/1"] = SCHEMA
    address: str  # host:port to join
    federation: str  # SHA-256 of canonical federation.json, hex
    nonce: str  # 16 random bytes, hex
    expires: str  # RFC 3339
    label: str = ""  # the central team's note, such as the site it is meant for
    replaces: str = ""  # hex id of the site whose name the new one takes over, and which is revoked with it

    def __post_init__(self) -> None:
        host_port(self.address)
        ids.hash_bytes(self.federation)
        ids.id_bytes(self.nonce)
        instants.read(self.expires)
        if len(self.label) > MAX_LABEL or (self.label and not self.label.isprintable()):
            raise DocumentError(f"label {self.label!r:.80}", allowed=f"up to {MAX_LABEL} printable characters")
        if self.replaces:
            ids.id_bytes(self.replaces)


def create(
    federation: Federation,
    signing_key: SigningKey,
    *,
    expires_s: float,
    label: str = "",
    replaces: str = "",
    now: datetime,
    random: Callable[[int], bytes] = os.urandom,
) -> str:
    """A new token.

    Args:
        federation: where to join.
        signing_key: the federation's.
        expires_s: seconds until it is refused.
        label: a note that travels in the clear.
        replaces: id of the site whose place the new one takes, hex; empty for a site of its own.
        now: UTC.
        random: n random bytes.

    Raises:
        ConfigError: a time or label out of bounds, or a malformed id.
    """
    if not 0 < expires_s <= LONGEST_S:
        raise ConfigError(
            f"a token that expires in {expires_s:g} s",
            allowed=f"above 0 s and at most {LONGEST_S // 86_400} days",
            next_step="fedsite token create --expires 1h",
        )
    token = Token(
        address=federation.address,
        federation=federation.digest,
        nonce=random(16).hex(),
        expires=instants.text(now + timedelta(seconds=expires_s)),
        label=label,
        replaces=replaces,
    )
    value = shape.plain(token)
    if not replaces:
        del value["replaces"]  # a token of version 1 as it was before sites could be replaced
    payload = documents.canonical(value)
    return f"{PREFIX}{_encode(payload)}.{_encode(signing_key.sign(enc(_LABEL, payload)))}"


def read(token: str) -> Token:
    """What a token says, unverified: enough for a site to know whom to ask and what to compare the answer with.

    Raises:
        TrustError: it is no token, or was cut when copied.
    """
    return _parse(token)[0]


def verify(token: str, federation: Federation, now: datetime) -> Token:
    """Check a token at the server. That its nonce is new is for the server's table to say.

    Raises:
        TrustError: forged, expired, malformed or of another federation.
    """
    parsed, payload, signature = _parse(token)
    federation.verify_key.verify(signature, enc(_LABEL, payload), "token")
    if parsed.federation != federation.digest:
        raise TrustError(
            f"token made for federation document {parsed.federation[:16]}…",
            allowed=f"{federation.digest[:16]}… (its address, name or authority has changed since)",
            next_step=_NEXT,
        )
    if now >= instants.read(parsed.expires):
        raise TrustError(
            f"token expired at {parsed.expires}",
            allowed=f"a token that expires after {instants.text(now)}",
            next_step=_NEXT,
            refusal=RefusalCode.EXPIRED,
        )
    return parsed


def redact(text: str) -> str:
    """`text` with every token, whole or cut, replaced by the start of its hash: enough to tell two apart."""
    return _TOKEN.sub(lambda match: f"{PREFIX}<{hashlib.sha256(match[0].encode()).hexdigest()[:8]}>", text)


def _parse(token: str) -> tuple[Token, bytes, bytes]:
    stripped = token.strip()
    body, dot, tail = stripped.removeprefix(PREFIX).partition(".")
    if not stripped.startswith(PREFIX) or not dot or len(stripped) > MAX_LENGTH:
        raise TrustError(
            f"a text of {len(token)} characters is no token",
            allowed=_ALLOWED,
            next_step=_NEXT,
            refusal=RefusalCode.MALFORMED,
        )
    try:
        payload, signature = _decode(body), _decode(tail)
        parsed = shape.read(Token, documents.document(payload, SCHEMA))
    except (binascii.Error, ValueError, DocumentError):
        raise TrustError(
            "the token is damaged", allowed=_ALLOWED, next_step=_NEXT, refusal=RefusalCode.MALFORMED
        ) from None
    return parsed, payload, signature


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    """Strict base64url without padding: one text for one value, or a used token could be spelled anew."""
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if _encode(data) != text:
        raise ValueError("not canonical base64url")
    return data
