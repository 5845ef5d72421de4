"""Seeds and share keys: X25519 between two sites of a roster, HKDF bound to the session.

A low-order public key raises: it would let whoever chose it know every seed made with it.

Source: RFC 7748 (X25519), RFC 5869 (HKDF), RFC 8439 (ChaCha20-Poly1305).
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedsite.protocol.encoding import enc
from fedsite.protocol.errors import IntegrityError, RefusalCode, TrustError
from fedsite.protocol.keys import hkdf
from fedsite.protocol.secagg.context import share_aad
from fedsite.protocol.secagg.masking import SEED_BYTES

Key = X25519PrivateKey  # reading one costs as much as an agreement, so it is read once a stage

_PRIME: Final = 2**255 - 19
_LOW_ORDER: Final = frozenset(  # u-coordinates of the points whose order divides 8, and of those of its twist
    {
        0,
        1,
        _PRIME - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    }
)
_NONCE = bytes(12)  # every directional key encrypts exactly once


def key_of(private: bytes) -> Key:
    """A private key from its 32 bytes."""
    return X25519PrivateKey.from_private_bytes(private)


def check_public(public: bytes, whose: str) -> None:
    """Refuse a public key that makes every agreement with it known.

    Raises:
        TrustError: of low order.
    """
    if int.from_bytes(public, "little") % (1 << 255) % _PRIME in _LOW_ORDER:
        raise TrustError(f"the key of {whose} is of low order", allowed="an X25519 public key")


def public_of(private: bytes) -> bytes:
    """The X25519 public key, 32 bytes."""
    return key_of(private).public_key().public_bytes_raw()


def pair_seed(private: Key, public: bytes, salt: bytes, site: bytes, other: bytes) -> bytes:
    """The seed that `site` and `other` share; the lower id adds its stream, the higher subtracts it.

    Raises:
        TrustError: the other's key is of low order.
    """
    low, high = sorted((site, other))
    return hkdf(_exchange(private, public, other), salt, enc("fedsite/sa1/mask", low, high), SEED_BYTES)


def self_seed(secret: bytes, salt: bytes, site: bytes) -> bytes:
    """The seed of a site's own mask, from b."""
    return hkdf(secret, salt, enc("fedsite/sa1/self", site), SEED_BYTES)


def encrypt_share(private: Key, public: bytes, session: bytes, source: bytes, target: bytes, share: bytes) -> bytes:
    """A share for one holder; 16 bytes longer.

    Raises:
        TrustError: the holder's key is of low order.
    """
    key = _share_key(private, public, session, source, target, target)
    return ChaCha20Poly1305(key).encrypt(_NONCE, share, share_aad(session, source, target))


def decrypt_share(private: Key, public: bytes, session: bytes, source: bytes, target: bytes, sealed: bytes) -> bytes:
    """The share that `source` made for `target`, who holds `private`.

    Raises:
        IntegrityError: altered, or made for another session or pair.
        TrustError: the source's key is of low order.
    """
    key = _share_key(private, public, session, source, target, source)
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, sealed, share_aad(session, source, target))
    except InvalidTag:
        raise IntegrityError(
            f"the share of site {source.hex()} does not open",
            allowed="a share made for this session and site",
            refusal=RefusalCode.MALFORMED,
        ) from None


def _share_key(private: Key, public: bytes, session: bytes, source: bytes, target: bytes, other: bytes) -> bytes:
    return hkdf(_exchange(private, public, other), session, enc("fedsite/sa1/share", source, target), 32)


def _exchange(private: Key, public: bytes, other: bytes) -> bytes:
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise TrustError(f"the key of site {other.hex()} is of low order", allowed="an X25519 public key") from None
