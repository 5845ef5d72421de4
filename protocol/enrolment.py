"""What is said at enrolment: the offer everybody may read, a site's signed request, and the federation's signed answer.

The request is signed by the site's identity, so that nobody enrols a key they do not hold; the answer is signed by the
federation, so that a site knows its certificate is what the token promised.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from fedsite.protocol import documents, envelope, instants, shape
from fedsite.protocol.encoding import enc
from fedsite.protocol.errors import ConfigError, DocumentError, FedsiteError, RefusalCode, StorageError, TrustError
from fedsite.protocol.federation import Federation
from fedsite.protocol.keys import SigningKey, VerifyKey, check_node_key
from fedsite.protocol.site_document import check_name

OFFER_SCHEMA: Final = "fedsite.offer/1"
REQUEST_SCHEMA: Final = "fedsite.enrol/1"
ANSWER_SCHEMA: Final = "fedsite.enrolled/1"
ADMISSION_SCHEMA: Final = "fedsite.admission/1"
REFUSAL_SCHEMA: Final = "fedsite.refusal/1"
MAX_BYTES = 64 << 10
_REQUEST_LABEL = "fedsite/sig/enrol/1"
_ANSWER_LABEL = "fedsite/sig/enrolled/1"
_KINDS: Mapping[str, type[FedsiteError]] = {
    "config": ConfigError,
    "document": DocumentError,
    "trust": TrustError,
    "storage": StorageError,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What the server tells anybody who asks: which federation it is, and what time it has."""

    schema: Literal["fedsite.offer/1"] = OFFER_SCHEMA
    federation: dict[str, Any]  # fedsite.federation/1
    time: str  # RFC 3339

    def read_federation(self) -> Federation:
        """The federation's document.

        Raises:
            DocumentError, TrustError: it is none.
        """
        return Federation.parse(documents.canonical(self.federation))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a site asks."""

    schema: Literal["fedsite.enrol/1"] = REQUEST_SCHEMA
    token: str
    name: str
    identity: str  # base64 of the raw Ed25519 public key
    node_key: str  # PEM of the EC P-384 public key
    request: str  # PEM of the certificate request for the TLS key
    time: str  # RFC 3339

    def __post_init__(self) -> None:
        check_name(self.name)
        instants.read(self.time)
        check_node_key(self.node_key.encode("utf-8", "replace"))

    @property
    def verify_key(self) -> VerifyKey:
        """The site's identity."""
        return VerifyKey.parse(self.identity)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what makes two requests the same: name and keys, not time or a fresh signature."""
        node_key = check_node_key(self.node_key.encode("ascii"))
        return hashlib.sha256(enc(_REQUEST_LABEL, self.name.encode(), self.verify_key.raw, node_key)).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an enrolled site gets."""

    schema: Literal["fedsite.enrolled/1"] = ANSWER_SCHEMA
    site_id: str  # hex
    node_id: str  # decimal text
    certificate: str  # PEM
    site: str  # the signed fedsite.site/1, as text

    def __post_init__(self) -> None:
        if not (self.node_id.isascii() and self.node_id.isdigit() and int(self.node_id) < 2**64):
            raise DocumentError(f"node_id is {self.node_id!r:.80}", allowed="a decimal number below 2^64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The answer to a request that came as a file: it brings what a server would have shown before."""

    schema: Literal["fedsite.admission/1"] = ADMISSION_SCHEMA
    federation: dict[str, Any]  # fedsite.federation/1
    answer: dict[str, Any]  # the signed fedsite.enrolled/1

    @classmethod
    def of(cls, federation: Federation, answer: bytes) -> Admission:
        """Both in one."""
        return cls(federation=shape.plain(federation), answer=documents.parse(answer, limit=2 * MAX_BYTES))

    @classmethod
    def parse(cls, data: bytes) -> Admission:
        """Read one; nothing in it is checked.

        Raises:
            DocumentError: not an admission.
        """
        return shape.read(cls, documents.document(data, ADMISSION_SCHEMA, limit=4 * MAX_BYTES))

    def read_federation(self) -> Federation:
        """The federation's document; it is believed only once its digest is the token's.

        Raises:
            DocumentError, TrustError: it is none.
        """
        return Federation.parse(documents.canonical(self.federation))


def parse_offer(data: bytes) -> Offer:
    """Read an offer; the federation in it is believed only once its digest is the token's.

    Raises:
        DocumentError: not an offer.
    """
    return shape.read(Offer, documents.document(data, OFFER_SCHEMA, limit=2 * MAX_BYTES))


def sign_request(request: Request, key: SigningKey) -> bytes:
    """The body to send."""
    return envelope.wrap(_REQUEST_LABEL, shape.plain(request), key)


def open_request(data: bytes) -> Request:
    """Read a request and check that its sender holds the identity in it.

    Raises:
        DocumentError: not a request.
        TrustError: the signature is not that identity's.
    """
    value = documents.parse(data, limit=MAX_BYTES)
    signed = value.get("signed") if isinstance(value, dict) else None
    identity = signed.get("identity") if isinstance(signed, dict) else None
    if not isinstance(identity, str):
        raise DocumentError("not an enrolment request", allowed=REQUEST_SCHEMA)
    checked = envelope.unwrap(_REQUEST_LABEL, data, VerifyKey.parse(identity), "enrolment request", limit=MAX_BYTES)
    documents.check_schema(checked, REQUEST_SCHEMA)
    return shape.read(Request, checked)


def sign_answer(answer: Answer, key: SigningKey) -> bytes:
    """The body to send."""
    return envelope.wrap(_ANSWER_LABEL, shape.plain(answer), key)


def open_answer(data: bytes, federation: Federation) -> Answer:
    """Read an answer of this federation.

    Raises:
        DocumentError: not an answer.
        TrustError: not signed by the federation.
    """
    value = envelope.unwrap(_ANSWER_LABEL, data, federation.verify_key, "enrolment answer", limit=2 * MAX_BYTES)
    documents.check_schema(value, ANSWER_SCHEMA)
    return shape.read(Answer, value)


def refusal(error: FedsiteError) -> bytes:
    """An error as it travels to whoever holds a token or the administration secret."""
    # The most special class that matches: DocumentError is a ConfigError.
    fitting = [name for name, known in _KINDS.items() if isinstance(error, known)]
    kind = "document" if "document" in fitting else (fitting or ["internal"])[0]
    fields = {"found": error.found, "allowed": error.allowed, "next_step": error.next_step}
    return documents.canonical({"schema": REFUSAL_SCHEMA, "kind": kind, "code": error.refusal.value, **fields})


def read_refusal(data: bytes) -> FedsiteError | None:
    """The error that the other end had; None when the body is none of ours."""
    try:
        value = documents.document(data, REFUSAL_SCHEMA, limit=MAX_BYTES)
    except FedsiteError:
        return None
    fields = {name: str(value.get(name, ""))[:500] for name in ("found", "allowed", "next_step")}
    code = str(value.get("code"))
    return _KINDS.get(str(value.get("kind")), FedsiteError)(
        fields["found"],
        allowed=fields["allowed"],
        next_step=fields["next_step"],
        refusal=RefusalCode(code) if code in list(RefusalCode) else None,
    )
