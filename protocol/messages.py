"""What the centre may ask of a site, and what a site may answer. Plans and weights travel; code never does.

An `Instruction` is signed by the federation's signing key, a `Reply` by the site's Ed25519 identity. Both are a
canonical JSON header plus named binary blobs; the header holds the blobs' SHA-256, so that the one signature covers
everything.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from fedsite.protocol import documents, ids, instants, shape, versions
from fedsite.protocol.errors import DocumentError, IntegrityError, RefusalCode

INSTRUCTION_SCHEMA: Final = f"fedsite.instruction/{versions.CURRENT.writes}"
REPLY_SCHEMA: Final = f"fedsite.reply/{versions.CURRENT.writes}"

Purpose = Literal["statistics", "train", "evaluate", "calibrate"]  # what a sum over the sites is of
DELTA: Final = "delta/"  # begins the name of a trained parameter's update
WEIGHT: Final = "weight"  # windows that an update counts for, 1 where their number is private
LOSS: Final = "loss"  # of training
CONTROL: Final = "control"  # blob and body of `train` where sites correct their steps (SCAFFOLD)
NEXT: Final = "next"  # blob and body that ask for the keys of a sum to come
Kind = Literal[
    "prepare",
    "statistics", "train", "evaluate", "calibrate",
    "advertise", "share", "confirm", "unmask",
    "install", "finish",
]  # fmt: skip
STAGES: Final = ("advertise", "share", "confirm", "unmask")  # kinds that are stages of a sum and name its purpose
Outcome = Literal["ok", "refused", "failed"]

_ADDRESS: Final = ("kind", "federation", "site_id", "run_id", "round", "attempt", "plan_hash")

MAX_HEADER = 4 << 20  # bytes
MAX_BLOB = 1 << 30  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Clear part of an instruction.

    Blobs by kind — prepare: `plan`; statistics: none; train, evaluate: `model`; calibrate: `graph` (ONNX); install:
    none (the site downloads the release it names in `body`); finish: none. In a run with control variates train brings
    `control` too, and in `body` under the same name the last round whose update of this site is in both (0: none).

    Under secure aggregation the four kinds that are a `Purpose` are the mask stage of a sum and bring `secagg`
    (protocol.secagg.wire) too; advertise, share, confirm and unmask are its other stages and name it in `purpose`. With
    control variates the `model_hash` of share is that of model and `control` (protocol.secagg.context.corrected). Any
    instruction may bring `next`, the manifest of a sum to come: the reply then brings the site's `advert` for it.
    """

    schema: str = INSTRUCTION_SCHEMA
    kind: Kind
    purpose: Literal["", "statistics", "train", "evaluate", "calibrate"] = ""  # of the sum that a stage belongs to
    federation: str  # id, hex
    site_id: str  # id, hex
    run_id: str  # ULID
    round: int  # from 1; 0 for prepare and statistics
    attempt: int  # from 1
    plan_hash: str  # hex
    model_hash: str = ""  # hex, of the weights in `model`, or of the graph to calibrate; empty where there are none
    run_key: str = ""  # base64 of the run's sealing key (sealing.PublicKey); empty unless protection is sealed
    expires: str = ""  # RFC 3339; answers after this are not counted
    body: dict[str, Any] = field(default_factory=dict)
    blobs: dict[str, str] = field(default_factory=dict)  # name -> SHA-256 hex


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyHeader:
    """Clear part of a reply: who, to what, with which outcome.

    Everything data-dependent is in one blob: `masked` (uint32 words, little-endian) under secure aggregation, `sealed`,
    or `values` when the plan's protection is none. Stages bring `advert`, `shares`, `confirmation`, `opened`.
    """

    schema: str = REPLY_SCHEMA
    kind: Kind
    federation: str
    site_id: str
    run_id: str
    round: int
    attempt: int
    instruction: str  # SHA-256 hex of the instruction's header bytes
    outcome: Outcome
    code: RefusalCode | None = None
    body: dict[str, Any] = field(default_factory=dict)
    blobs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One message on the wire: canonical header, its signature, blobs."""

    header: bytes
    signature: bytes  # 64 bytes, Ed25519
    blobs: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of content."""
        return len(self.header) + len(self.signature) + sum(len(blob) for blob in self.blobs.values())


def blob_hashes(blobs: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 of each blob, hex."""
    return {name: hashlib.sha256(blob).hexdigest() for name, blob in blobs.items()}


def check_blobs(expected: Mapping[str, str], blobs: Mapping[str, bytes]) -> None:
    """Check that the blobs are those the header names.

    Raises:
        IntegrityError: a blob is missing, unexpected, too large, or has another hash.
    """
    if set(expected) != set(blobs):
        raise IntegrityError(f"blobs {sorted(blobs)}", allowed=f"{sorted(expected)}", refusal=RefusalCode.MALFORMED)
    for name, blob in blobs.items():
        if len(blob) > MAX_BLOB:
            raise IntegrityError(
                f"blob {name} of {len(blob)} bytes", allowed=f"at most {MAX_BLOB}", refusal=RefusalCode.TOO_LARGE
            )
        if hashlib.sha256(blob).hexdigest() != expected[name]:
            raise IntegrityError(f"blob {name} has another hash than its header says", refusal=RefusalCode.MALFORMED)


def read_header(data: bytes) -> Header:
    """Parse an instruction's header; its signature is checked before (signing.open_instruction).

    Raises:
        DocumentError: not of this schema, or of a version that this release does not read (`protocol-version`).
    """
    header = shape.read(Header, _document(data, INSTRUCTION_SCHEMA))
    check_fields(header)
    return header


def addressed(data: bytes) -> Header | None:
    """What a header of whichever version is about, as far as a refusal has to repeat it; None where it does not say."""
    try:
        value = documents.parse(data, limit=MAX_HEADER)
        header = shape.read(Header, {name: value[name] for name in _ADDRESS})
        check_fields(header)
        return header
    except (DocumentError, KeyError, TypeError):
        return None


def read_reply(data: bytes) -> ReplyHeader:
    """Parse a reply's header.

    Raises:
        DocumentError: not of this schema, ids that are none, an unknown code, or one that does not fit its outcome.
    """
    value = _document(data, REPLY_SCHEMA)
    code = value.get("code")
    if code is not None and not (isinstance(code, str) and code in set(RefusalCode)):
        raise DocumentError(
            f"refusal code {code!r:.64}",
            allowed="a known code",
            next_step="upgrade the server: pip install --upgrade fedsite",
        )
    reply = shape.read(ReplyHeader, {**value, "code": None})
    check_fields(reply)
    if (reply.outcome == "ok") != (code is None):
        raise DocumentError(
            f"outcome {reply.outcome} with code {code}", allowed="a code exactly when the outcome is not ok"
        )
    return dataclasses.replace(reply, code=None if code is None else RefusalCode(code))


def check_fields(header: Header | ReplyHeader) -> None:
    """Check what types do not say: ids that can be names of files and fields of a hash.

    Raises:
        DocumentError: one is something else, of whatever length.
    """
    ids.id_bytes(header.federation)
    ids.id_bytes(header.site_id)
    ids.run_bytes(header.run_id)
    if not 0 <= header.round <= 1_000_000:
        raise DocumentError(f"round {header.round}", allowed="0 to 1000000")
    if not 1 <= header.attempt <= 1_000_000:
        raise DocumentError(f"attempt {header.attempt}", allowed="1 to 1000000")
    if isinstance(header, Header):
        ids.hash_bytes(header.plan_hash)
        if header.model_hash:
            ids.hash_bytes(header.model_hash)
        if header.expires:
            instants.read(header.expires)
    else:
        ids.hash_bytes(header.instruction)


def _document(data: bytes, schema: str) -> dict[str, Any]:
    """The JSON object of a header, of a version that this release reads."""
    value = documents.parse(data, limit=MAX_HEADER)
    if not isinstance(value, dict):
        raise DocumentError("a header that is no object", allowed=f"an object with schema {schema}")
    versions.check(value, schema)
    return value
