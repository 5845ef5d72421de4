"""Private keys: Ed25519 for identities, EC P-256 for TLS, EC P-384 for Flower's node authentication.

A private key is made where it is used, stored with mode 0600 from its creation, and never printed.
Source: RFC 8032 (Ed25519).
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedsite.protocol import ids, storage
from fedsite.protocol.encoding import enc
from fedsite.protocol.errors import TrustError

SIGNATURE_BYTES: Final = 64  # of Ed25519
_MAX_FILE = 16 << 10  # bytes
_PLAIN = serialization.NoEncryption()


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """An Ed25519 public key."""

    raw: bytes  # 32 bytes

    def __post_init__(self) -> None:
        if len(self.raw) != 32:
            raise TrustError(f"public key of {len(self.raw)} bytes", allowed="32 bytes (Ed25519)")

    @classmethod
    def parse(cls, text: str) -> VerifyKey:
        """Read the base64 text.

        Raises:
            TrustError: not base64 of 32 bytes.
        """
        return cls(unbase64(text, "public key"))

    @property
    def text(self) -> str:
        """Base64, as it stands in documents."""
        return base64.b64encode(self.raw).decode("ascii")

    @property
    def id(self) -> str:
        """The id of the site or federation that this key names, hex."""
        return ids.site_id(self.raw)

    def verify(self, signature: bytes, message: bytes, what: str = "message") -> None:
        """Check a signature.

        Raises:
            TrustError: it is not this key's signature of this message.
        """
        try:
            ed25519.Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError, UnsupportedAlgorithm):
            raise TrustError(
                f"the signature of the {what} does not verify", allowed=f"a signature by key {self.id}"
            ) from None


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 private key."""

    seed: bytes = field(repr=False)  # 32 bytes
    _key: ed25519.Ed25519PrivateKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.seed) != 32:
            raise TrustError(f"private key of {len(self.seed)} bytes", allowed="32 bytes (Ed25519)")
        object.__setattr__(self, "_key", ed25519.Ed25519PrivateKey.from_private_bytes(self.seed))

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key."""
        return cls(os.urandom(32))

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """Read a PEM file that only its owner can read.

        Raises:
            StorageError: the file cannot be read.
            TrustError: others can read it, or it is not an Ed25519 key.
        """
        key = load_private(read_secret(path), str(path))
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise TrustError(f"{path} holds a {type(key).__name__}", allowed="an Ed25519 private key")
        return cls(key.private_bytes_raw())

    def save(self, path: Path) -> None:
        """Write a PEM file, mode 0600.

        Raises:
            StorageError: the disk is full or read-only.
        """
        pem = self._key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, _PLAIN)
        storage.write_atomic(path, pem)

    @property
    def public(self) -> VerifyKey:
        """The public half."""
        return VerifyKey(self._key.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> bytes:
        """64 bytes; the same message always gets the same signature (RFC 8032)."""
        return self._key.sign(message)

    def derive(self, purpose: str) -> bytes:
        """A 32-byte symmetric key for one purpose (such as run keys at rest), by HKDF-SHA256 (RFC 5869)."""
        return hkdf(self.seed, b"", enc("fedsite/derive/1", purpose.encode()), 32)


@dataclass(frozen=True, slots=True)
class NodeKey:
    """The EC P-384 key that Flower's node authentication asks for; nothing of ours is signed with it."""

    private: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> NodeKey:
        """A new key."""
        return cls(ec.generate_private_key(ec.SECP384R1()))

    @classmethod
    def load(cls, path: Path) -> NodeKey:
        """Read an OpenSSH or PEM file that only its owner can read.

        Raises:
            StorageError: the file cannot be read.
            TrustError: others can read it, or it is not a P-384 key.
        """
        return cls(_load_ec(read_secret(path), str(path), ec.SECP384R1))

    def save(self, path: Path) -> None:
        """Write an OpenSSH file, mode 0600: `flower-supernode` reads the same.

        Raises:
            StorageError: the disk is full or read-only.
        """
        text = self.private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, _PLAIN)
        storage.write_atomic(path, text)

    @property
    def public(self) -> ec.EllipticCurvePublicKey:
        """The public half, as Flower's interceptors take it."""
        return self.private.public_key()

    @property
    def public_pem(self) -> bytes:
        """PEM SubjectPublicKeyInfo: what Flower's node table and request header hold."""
        return self.public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True, slots=True)
class TlsKey:
    """An EC P-256 private key for TLS: the authority's, the server's or a site's."""

    private: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> TlsKey:
        """A new key."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def load(cls, path: Path) -> TlsKey:
        """Read a PEM file that only its owner can read.

        Raises:
            StorageError: the file cannot be read.
            TrustError: others can read it, or it is not a P-256 key.
        """
        return cls(_load_ec(read_secret(path), str(path), ec.SECP256R1))

    @classmethod
    def parse(cls, data: bytes, where: str) -> TlsKey:
        """Read PEM text; `where` names it in messages.

        Raises:
            TrustError: it is not a P-256 key.
        """
        return cls(_load_ec(data, where, ec.SECP256R1))

    @property
    def pem(self) -> bytes:
        """PEM text, as `ssl.SSLContext.load_cert_chain` reads it: the secret itself."""
        return self.private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, _PLAIN)

    def save(self, path: Path) -> None:
        """Write a PEM file, mode 0600.

        Raises:
            StorageError: the disk is full or read-only.
        """
        storage.write_atomic(path, self.pem)


def check_node_key(pem: bytes) -> bytes:
    """The canonical PEM of a node's public key received from outside.

    Raises:
        TrustError: not a P-384 public key.
    """
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise TrustError("node key is not a PEM public key", allowed="an EC P-384 public key") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise TrustError(f"node key is a {type(key).__name__}", allowed="an EC P-384 public key")
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def read_secret(path: Path) -> bytes:
    """The bytes of a file that nobody but its owner may read.

    Raises:
        StorageError: the file cannot be read.
        TrustError: its mode lets others read it.
    """
    data = storage.read(path, limit=_MAX_FILE)
    with storage.storage_errors(path):
        mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise TrustError(f"{path} has mode {mode:04o}", allowed="0600", next_step=f"chmod 600 {path}")
    return data


def load_private(data: bytes, where: str) -> object:
    """A private key from PEM or OpenSSH text.

    Raises:
        TrustError: it is not one, or it is encrypted.
    """
    try:
        if data.startswith(b"-----BEGIN OPENSSH"):
            return serialization.load_ssh_private_key(data, password=None)
        return serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise TrustError(
            f"{where} is not a private key", allowed="an unencrypted PEM file", next_step="restore it from a backup"
        ) from None


def _load_ec(data: bytes, where: str, curve: type[ec.EllipticCurve]) -> ec.EllipticCurvePrivateKey:
    key = load_private(data, where)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, curve):
        raise TrustError(f"{where} holds a {type(key).__name__}", allowed=f"an EC private key on {curve.name}")
    return key


def hkdf(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA256. Source: RFC 5869."""
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=salt, info=info).derive(secret)


def unbase64(text: str, what: str) -> bytes:
    """Strict base64.

    Raises:
        TrustError: not base64.
    """
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error, AttributeError):
        raise TrustError(f"{what} is not base64", allowed="base64 text") from None
