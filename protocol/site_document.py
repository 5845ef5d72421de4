"""fedsite.site/1: the federation's statement of which keys are one site's.

X.509 binds only the TLS key; this binds the name, the Ed25519 identity, Flower's node key and the TLS certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from fedsite.protocol import envelope, ids, instants, shape
from fedsite.protocol.documents import check_schema
from fedsite.protocol.errors import DocumentError, TrustError
from fedsite.protocol.federation import Federation
from fedsite.protocol.keys import SigningKey, VerifyKey

SCHEMA: Final = "fedsite.site/1"
MAX_BYTES = 16 << 10
MAX_NAME = 64  # characters
_LABEL = "fedsite/sig/site/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteDocument:
    """One enrolled site."""

    schema: Literal["fedsite.site/1"] = SCHEMA
    federation: str  # id, hex
    site_id: str  # hex, names `identity`
    name: str  # a label for people
    identity: str  # base64 of the raw Ed25519 public key
    node_key: str  # PEM of the EC P-384 public key
    certificate: str  # SHA-256 of the TLS certificate's DER, hex
    issued: str  # RFC 3339
    expires: str  # RFC 3339, the certificate's own end

    def __post_init__(self) -> None:
        ids.id_bytes(self.federation)
        ids.hash_bytes(self.certificate)
        instants.read(self.issued)
        instants.read(self.expires)
        check_name(self.name)
        if self.verify_key.id != self.site_id:
            raise TrustError(f"site id {self.site_id!r:.80} does not name its identity", allowed=self.verify_key.id)

    @property
    def verify_key(self) -> VerifyKey:
        """The key under the site's replies."""
        return VerifyKey.parse(self.identity)


def check_name(name: str) -> str:
    """A site's name, as it may stand in tables and file names.

    Raises:
        DocumentError: empty, too long, or with other characters.
    """
    allowed = "1 to 64 letters, digits, '.', '_', '-', not starting with '.' or '-'"
    plain = name.isascii() and all(letter.isalnum() or letter in "._-" for letter in name)
    if not name or len(name) > MAX_NAME or not plain or name[0] in ".-":
        raise DocumentError(f"site name {name!r:.80}", allowed=allowed)
    return name


def sign(document: SiteDocument, key: SigningKey) -> bytes:
    """The signed file."""
    return envelope.wrap(_LABEL, shape.plain(document), key)


def verify(data: bytes, federation: Federation, now: datetime) -> SiteDocument:
    """Check and read the signed file.

    Raises:
        DocumentError: not of this schema.
        TrustError: another federation's, expired, or ids that do not belong to the keys.
    """
    value = envelope.unwrap(_LABEL, data, federation.verify_key, "site document", limit=MAX_BYTES)
    check_schema(value, SCHEMA)
    document = shape.read(SiteDocument, value)
    if document.federation != federation.id:
        raise TrustError(f"site document of federation {document.federation}", allowed=federation.id)
    if now >= instants.read(document.expires):
        raise TrustError(
            f"site document expired at {document.expires}",
            allowed=f"a later time than {instants.text(now)}",
            next_step="fedsite join file:TOKENFILE, with a new token of the central team (fedsite token create)",
        )
    return document
