"""federation.json: the public face of a federation, and the one thing a site is told to trust."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from fedsite.protocol import documents, shape
from fedsite.protocol.errors import ConfigError, DocumentError, TrustError
from fedsite.protocol.keys import VerifyKey

SCHEMA: Final = "fedsite.federation/1"
MAX_BYTES = 64 << 10
MAX_NAME = 64  # characters: it stands in certificates
_FINGERPRINT = re.compile(r"[0-9a-f]{32,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """What everybody may know. Its digest is what a token pins."""

    schema: Literal["fedsite.federation/1"] = SCHEMA
    id: str  # hex, names `signing_key`
    name: str  # for people
    address: str  # host:port of the one public TLS port
    ca_certificate: str  # PEM
    signing_key: str  # base64 of the raw Ed25519 public key

    def __post_init__(self) -> None:
        if not self.name or len(self.name) > MAX_NAME or not self.name.isprintable():
            raise DocumentError(f"name is {self.name!r:.80}", allowed=f"1 to {MAX_NAME} printable characters")
        host_port(self.address)
        if not (self.ca_certificate.startswith("-----BEGIN CERTIFICATE-----") and self.ca_certificate.isascii()):
            raise DocumentError("ca_certificate is not a certificate", allowed="PEM text")
        if VerifyKey.parse(self.signing_key).id != self.id:
            raise TrustError(f"federation id {self.id!r:.80} does not name its signing key", allowed="the key's own id")

    @classmethod
    def parse(cls, data: bytes) -> Federation:
        """Read and check federation.json.

        Raises:
            DocumentError: not a document of this schema.
            TrustError: the id does not belong to the key.
        """
        return shape.read(cls, documents.document(data, SCHEMA, limit=MAX_BYTES))

    def encode(self) -> bytes:
        """The canonical bytes."""
        return documents.canonical(shape.plain(self))

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes, hex."""
        return documents.digest(shape.plain(self))

    @property
    def fingerprint(self) -> str:
        """The digest as people compare it: 16 groups of 4 digits. It stands for address, authority and signing key."""
        return " ".join(self.digest[start : start + 4] for start in range(0, 64, 4))

    @property
    def verify_key(self) -> VerifyKey:
        """The key under instructions, tokens, site documents and releases."""
        return VerifyKey.parse(self.signing_key)

    @property
    def host(self) -> str:
        """Host name or address, without brackets."""
        return host_port(self.address)[0]

    @property
    def port(self) -> int:
        """TCP port."""
        return host_port(self.address)[1]


def check_fingerprint(told: str, digest: str) -> None:
    """Compare what somebody was told of a federation with the digest of its document.

    Args:
        told: the fingerprint, or its first half or more; blanks, colons, dashes and capitals do not matter.
        digest: SHA-256 of the canonical document, hex.

    Raises:
        ConfigError: not a fingerprint, or too little of one to mean anything.
        TrustError: it is another federation's.
    """
    digits = "".join(letter for letter in told.lower() if not letter.isspace() and letter not in ":-")
    if not _FINGERPRINT.fullmatch(digits):
        raise ConfigError(
            f"fingerprint {told!r:.100}",
            allowed="64 hex digits as printed by fedsite token create; 32 of them at least",
            next_step="ask the central team to read it out again",
        )
    if not digest.startswith(digits):
        raise TrustError(
            f"the token is for the federation with fingerprint {digest[:16]}…, not the one you were told",
            allowed=f"{digits[:16]}…",
            next_step="do not go on: call the central team, by a number that does not come from whoever sent the token",
        )


def host_port(address: str) -> tuple[str, int]:
    """Split "host:port" or "[v6]:port".

    Raises:
        DocumentError: no host, or a port outside 1 to 65535.
    """
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    digits = port.isascii() and port.isdigit() and len(port) <= 5
    if not host or not host.isascii() or any(c.isspace() or c in "/@[]" for c in host):
        raise DocumentError(f"address {address!r:.200}", allowed="host:port, such as fl.example.org:9443")
    if not digits or not 1 <= int(port) <= 65535:
        raise DocumentError(f"address {address!r:.200}", allowed="a port from 1 to 65535")
    return host, int(port)
