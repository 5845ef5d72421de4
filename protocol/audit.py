"""The audit log's entries: each a line of canonical JSON, signed, and chained to the one before it by its hash.

An entry's hash covers everything but its signature, the hash of the entry before it among it; the signature (Ed25519)
covers the hash. So nothing in the middle can be edited, cut, repeated or moved unseen (protocol/audit_check.py finds
it). What a chain cannot show is that its end was cut, or that its owner, who holds the key, wrote all of it anew: for
that, each side keeps the other's `Head` in its own chain.

Every entry holds 16 random bytes. Heads leave the host, and without them somebody who can guess what an entry says
could check the guess against its hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from fedsite.protocol import documents, ids, shape
from fedsite.protocol.encoding import enc, sha256
from fedsite.protocol.errors import DocumentError, IntegrityError
from fedsite.protocol.keys import SIGNATURE_BYTES, SigningKey, VerifyKey

SCHEMA: Final = "fedsite.audit/1"
HEADS_SCHEMA: Final = "fedsite.audit-heads/1"
FIELD: Final = "audit"  # of the body of an instruction or a reply: the sender's head
HELD: Final = "held"  # of the body of an instruction: the newest head of this site's log that the centre has heard of
SALT_BYTES: Final = 16
MAX_LINE: Final = 16 << 20  # bytes
BEGUN: Final = "begun"  # kind of the first entry: whose log it is
CONTINUED: Final = "continued"  # kind of the first entry of every other file of it
DROPPED: Final = "dropped"  # kind of the entry that says which old entries are no longer kept
TORN: Final = "torn"  # kind of the entry that says that the writer died in the middle of a line


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The last entry of a chain: whoever holds it knows everything up to there to be fixed."""

    sequence: int  # from 1; 0 before the first entry
    hash: str  # SHA-256, hex

    def __post_init__(self) -> None:
        if not 0 <= self.sequence <= documents.MAX_INTEGER:
            raise DocumentError(f"sequence {self.sequence}", allowed="0 or more")
        ids.hash_bytes(self.hash)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line, as it stands."""

    schema: Literal["fedsite.audit/1"] = SCHEMA
    sequence: int
    at: str  # RFC 3339, of the writer's clock
    kind: str
    facts: dict[str, Any] = field(default_factory=dict)
    heads: dict[str, Head] = field(default_factory=dict)  # other logs' heads as they were received, by signer's id
    previous: str  # hash of the entry before it
    salt: str  # hex
    signature: str = ""  # hex

    @property
    def head(self) -> Head:
        """Of the chain that ends here."""
        value = {name: item for name, item in shape.plain(self).items() if name != "signature"}
        return Head(sequence=self.sequence, hash=_hash(documents.canonical(value)))


def beginning(key: VerifyKey) -> Head:
    """What the first entry of a signer's chain follows."""
    return Head(sequence=0, hash=sha256(enc("fedsite/audit/begin/1", key.raw)).hex())


def make(
    head: Head,
    key: SigningKey,
    *,
    kind: str,
    facts: Mapping[str, Any],
    at: str,
    salt: bytes,
    heads: Mapping[str, Head] | None = None,
) -> tuple[bytes, Head]:
    """The line that follows `head`, without its end, and the head that it makes.

    Args:
        head: of the chain so far.
        key: of the log's owner.
        kind: what happened, one word.
        facts: JSON values; never keys, shares, seeds or values.
        at: RFC 3339.
        salt: `SALT_BYTES` random bytes.
        heads: of other logs, by signer's id.

    Raises:
        DocumentError: a fact that JSON cannot hold, or too many of them.
    """
    value: dict[str, Any] = {
        "schema": SCHEMA,
        "sequence": head.sequence + 1,
        "at": at,
        "kind": kind,
        "facts": dict(facts),
        "heads": {name: shape.plain(found) for name, found in (heads or {}).items()},
        "previous": head.hash,
        "salt": salt.hex(),
    }
    unsigned = documents.canonical(value)
    digest = _hash(unsigned)
    line = _joined(unsigned, key.sign(_message(digest)).hex())
    if len(line) > MAX_LINE:
        raise DocumentError(f"an audit entry of {len(line)} bytes", allowed=f"at most {MAX_LINE}")
    return line, Head(sequence=head.sequence + 1, hash=digest)


def read(line: bytes) -> Entry:
    """An entry from its line, which has to be the one spelling that `make` writes; its signature is not checked.

    Raises:
        DocumentError: not an entry.
        IntegrityError: an entry in another spelling.
    """
    value = documents.document(line, SCHEMA, limit=MAX_LINE)
    entry = shape.read(Entry, value)
    if documents.canonical(shape.plain(entry)) != line:
        raise IntegrityError("an audit entry that is not canonical JSON")
    for name in entry.heads:
        ids.id_bytes(name)
    return entry


def read_signed(line: bytes, key: VerifyKey) -> tuple[Entry, Head]:
    """An entry that `key` signed, and the head it makes.

    Raises:
        DocumentError, IntegrityError: as `read`.
        TrustError: that key did not sign it.
    """
    entry = read(line)
    # The line is canonical, and the signature the last of its names.
    digest = _hash(line[: -len(_joined(b"}", entry.signature))] + b"}")
    try:
        signature = bytes.fromhex(entry.signature)
    except ValueError:
        signature = b""
    if signature.hex() != entry.signature or len(signature) != SIGNATURE_BYTES:
        signature = bytes(SIGNATURE_BYTES)
    key.verify(signature, _message(digest), f"audit entry {entry.sequence}")
    return entry, Head(sequence=entry.sequence, hash=digest)


def key_of(entry: Entry) -> VerifyKey | None:
    """The key that a first entry (of a log, or of one of its files) names; None for every other entry.

    Raises:
        TrustError: what it names is no key.
    """
    if entry.kind not in (BEGUN, CONTINUED):
        return None
    return VerifyKey.parse(str(entry.facts.get("key", "")))


def read_head(value: Any) -> Head:
    """A head from plain JSON, as a message or a file brings it.

    Raises:
        DocumentError: not a head.
    """
    return shape.read(Head, value, FIELD)


def _joined(unsigned: bytes, signature: str) -> bytes:
    """A line from its canonical value and what signs it: no other name sorts behind `signature`."""
    return unsigned[:-1] + b',"signature":' + documents.canonical(signature) + b"}"


def _hash(unsigned: bytes) -> str:
    return hashlib.sha256(enc("fedsite/audit/entry/1", unsigned)).hexdigest()


def _message(digest: str) -> bytes:
    return enc("fedsite/sig/audit/1", bytes.fromhex(digest))
