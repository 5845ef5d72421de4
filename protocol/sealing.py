"""Sealed mode: one reply's values, encrypted so that only the holder of the run's key reads them.

A random 32-byte key is wrapped by hybrid HPKE (recording now and decrypting with a quantum computer later fails) and
encrypts the body in chunks. Layout: HPKE output (1168 bytes) ‖ chunks of 1 MiB + 16-byte tag, the last one shorter.
GCM does not commit to its key: the Ed25519 signature of the reply, which covers SHA-256 of all of this, does.

Source: RFC 9180 (HPKE); STREAM, https://eprint.iacr.org/2015/189, for chunks that cannot be cut, moved or added.
"""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedsite.protocol import ids, storage
from fedsite.protocol.encoding import be32, enc, sha256
from fedsite.protocol.errors import IntegrityError, RefusalCode, TrustError
from fedsite.protocol.keys import unbase64
from fedsite.protocol.messages import MAX_BLOB, Header

CHUNK = 1 << 20  # bytes of plaintext
TAG = 16
WRAPPED = 1168  # bytes: 1120 encapsulation, 32 key, 16 tag
_MLKEM_PUBLIC = 1184
_MLKEM_SEED = 64
_INFO = b"fedsite/sealed/v1"
_AT_REST = b"fedsite/sealed/run-key/1"
_SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


def context(header: Header) -> bytes:
    """What a sealed blob belongs to, 32 bytes: run, round, attempt, model and plan.

    Fixed in length, because it is joined to other bytes below without a separator.

    Raises:
        DocumentError: an id or hash of the header is malformed.
    """
    model = ids.hash_bytes(header.model_hash) if header.model_hash else b""
    plan = ids.hash_bytes(header.plan_hash)
    return sha256(enc("fedsite/sealed/ctx", ids.run_bytes(header.run_id), header.round, header.attempt, model, plan))


@dataclass(frozen=True, slots=True)
class RunKey:
    """The private key of one run, kept until the run ends. Its halves are stored: hybrid keys have no serialiser."""

    _seed: bytes = field(repr=False)  # ML-KEM-768 seed (64 bytes) ‖ X25519 private key (32 bytes)

    @property
    def public(self) -> str:
        """Base64 of the ML-KEM-768 and X25519 public keys (1216 bytes): `Header.run_key`."""
        pq, ec = self._halves()
        raw = pq.public_key().public_bytes_raw() + ec.public_key().public_bytes_raw()
        return base64.b64encode(raw).decode("ascii")

    def open(self, sealed: bytes, context: bytes, site_id: str, *, limit: int = MAX_BLOB) -> bytes:
        """Decrypt what `seal` made for this key, context and site.

        Args:
            sealed: the blob.
            context: `context(header)` of the instruction.
            site_id: hex, of the site that signed the reply.
            limit: the largest plaintext taken, in bytes; checked before anything is decrypted.

        Raises:
            IntegrityError: too large, cut, reordered, extended, altered, or sealed for something else.
        """
        count = _chunks(len(sealed) - WRAPPED)
        size = len(sealed) - WRAPPED - TAG * count
        if size > limit:
            raise IntegrityError(
                f"sealed values of {size} bytes", allowed=f"at most {limit} bytes", refusal=RefusalCode.TOO_LARGE
            )
        view = memoryview(sealed)
        private = hpke.MLKEM768X25519PrivateKey(*self._halves())
        try:
            cipher = AESGCM(_SUITE.decrypt(view[:WRAPPED], private, info=_info(context, site_id)))
            parts = []
            for index in range(count):
                start = WRAPPED + index * (CHUNK + TAG)
                aad = _aad(context, index, last=index == count - 1)
                parts.append(cipher.decrypt(_nonce(index), view[start : start + CHUNK + TAG], aad))
        except (InvalidTag, ValueError):
            raise IntegrityError(
                "sealed values do not open",
                allowed="values sealed for this run, round, attempt, model, plan and site",
                refusal=RefusalCode.MALFORMED,
            ) from None
        return b"".join(parts)

    def encrypted(self, wrapping_key: bytes) -> bytes:
        """The key for storing: AES-256-GCM under a 32-byte key."""
        nonce = os.urandom(12)
        return nonce + AESGCM(wrapping_key).encrypt(nonce, self._seed, _AT_REST)

    @classmethod
    def from_encrypted(cls, data: bytes, wrapping_key: bytes) -> RunKey:
        """The inverse of `encrypted`.

        Raises:
            IntegrityError: altered, or another wrapping key.
        """
        try:
            return cls(AESGCM(wrapping_key).decrypt(data[:12], data[12:], _AT_REST))
        except (InvalidTag, ValueError):
            raise IntegrityError(
                "the stored run key does not open", allowed="the key this server stored for this run"
            ) from None

    def save_encrypted(self, path: Path, wrapping_key: bytes) -> None:
        """Store the key until the run ends, mode 0600; then unlink the file.

        Raises:
            StorageError: the disk is full or read-only.
        """
        storage.write_atomic(path, self.encrypted(wrapping_key))

    @classmethod
    def load_encrypted(cls, path: Path, wrapping_key: bytes) -> RunKey:
        """The inverse of `save_encrypted`.

        Raises:
            StorageError: the file is missing or unreadable.
            IntegrityError: altered, or another wrapping key.
        """
        return cls.from_encrypted(storage.read(path, limit=1024), wrapping_key)

    def _halves(self) -> tuple[mlkem.MLKEM768PrivateKey, x25519.X25519PrivateKey]:
        return (
            mlkem.MLKEM768PrivateKey.from_seed_bytes(self._seed[:_MLKEM_SEED]),
            x25519.X25519PrivateKey.from_private_bytes(self._seed[_MLKEM_SEED:]),
        )


def make_run_key() -> RunKey:
    """A new key for one run."""
    return RunKey(os.urandom(_MLKEM_SEED + 32))


def seal(payload: bytes, public: str, context: bytes, site_id: str) -> bytes:
    """Encrypt a reply's values for the run's key. Every call makes a new key, which is why counters can be nonces.

    Args:
        payload: the values (weights.encode).
        public: `RunKey.public`, from the instruction's header.
        context: `context(header)` of the instruction.
        site_id: hex, of the site that seals.

    Raises:
        TrustError: `public` is not a run key.
        IntegrityError: the payload is too large to travel.
    """
    if len(payload) > MAX_BLOB:
        raise IntegrityError(
            f"values of {len(payload)} bytes", allowed=f"at most {MAX_BLOB}", refusal=RefusalCode.TOO_LARGE
        )
    key = os.urandom(32)
    raw = unbase64(public, "run key")
    try:
        wrapped = _SUITE.encrypt(key, _public(raw), info=_info(context, site_id))
    except ValueError:  # a wrong length, or a low-order point, whose shared secret anybody could compute
        raise TrustError(f"run key of {len(raw)} bytes is not usable", allowed="a key made by fedsite") from None
    cipher = AESGCM(key)
    view = memoryview(payload)
    count = max(1, -(-len(payload) // CHUNK))
    parts = [wrapped]
    for index in range(count):
        aad = _aad(context, index, last=index == count - 1)
        parts.append(cipher.encrypt(_nonce(index), view[index * CHUNK : (index + 1) * CHUNK], aad))
    return b"".join(parts)


def _public(raw: bytes) -> hpke.MLKEM768X25519PublicKey:
    return hpke.MLKEM768X25519PublicKey(
        mlkem.MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM_PUBLIC]),
        x25519.X25519PublicKey.from_public_bytes(raw[_MLKEM_PUBLIC:]),
    )


def _chunks(body: int) -> int:
    """Number of chunks in a body of so many bytes; there is one even for no values at all.

    Raises:
        IntegrityError: no body has this length.
    """
    count = -(-body // (CHUNK + TAG))
    rest = body - (count - 1) * (CHUNK + TAG)
    if count < 1 or rest < TAG or (rest == TAG and count > 1):
        raise IntegrityError(
            f"sealed values of {body + WRAPPED} bytes", allowed="whole chunks", refusal=RefusalCode.MALFORMED
        )
    return count


def _info(context: bytes, site_id: str) -> bytes:
    return _INFO + context + ids.id_bytes(site_id)


def _nonce(index: int) -> bytes:
    return bytes(8) + be32(index)


def _aad(context: bytes, index: int, *, last: bool) -> bytes:
    return context + be32(index) + bytes([last])
