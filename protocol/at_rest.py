"""Secrets that a process keeps on disk for a while: AES-256-GCM under a key of its own, bound to what they are.

Source: NIST SP 800-38D. Nonces are random: far fewer than 2^32 writes happen under one key.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedsite.protocol.encoding import enc
from fedsite.protocol.errors import IntegrityError, RefusalCode

_NONCE = 12
_LABEL = "fedsite/at-rest/1"


def lock(key: bytes, data: bytes, what: str) -> bytes:
    """Encrypt; 28 bytes longer.

    Args:
        key: 32 bytes (keys.SigningKey.derive).
        data: the secret.
        what: names it; only under the same name does it open.
    """
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(key).encrypt(nonce, data, enc(_LABEL, what.encode("utf-8")))


def unlock(key: bytes, data: bytes, what: str) -> bytes:
    """The inverse of `lock`.

    Raises:
        IntegrityError: altered, cut, of another name, or another key (`storage`).
    """
    try:
        return AESGCM(key).decrypt(data[:_NONCE], data[_NONCE:], enc(_LABEL, what.encode("utf-8")))
    except (InvalidTag, ValueError):
        raise IntegrityError(
            f"what is kept of {what} does not open", allowed="what this host wrote", refusal=RefusalCode.STORAGE
        ) from None
