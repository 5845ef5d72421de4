"""Signed messages: made, checked and opened. Nothing in a message is believed before its signature is checked.

The signature covers a label and the header's bytes as they travelled; the header covers the blobs by their hashes. A
message of one kind is never taken for another: each label is its own.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from datetime import datetime

from fedsite.protocol import documents, instants, shape
from fedsite.protocol.encoding import enc
from fedsite.protocol.errors import DocumentError, RefusalCode, TrustError
from fedsite.protocol.federation import Federation
from fedsite.protocol.keys import SigningKey, VerifyKey
from fedsite.protocol.messages import (
    MAX_HEADER,
    Frame,
    Header,
    ReplyHeader,
    blob_hashes,
    check_blobs,
    check_fields,
    read_header,
    read_reply,
)

_INSTRUCTION = "fedsite/sig/instruction/1"
_REPLY = "fedsite/sig/reply/1"


def sign_instruction(header: Header, blobs: Mapping[str, bytes], key: SigningKey) -> Frame:
    """Name the blobs in the header and sign it with the federation's key.

    Raises:
        DocumentError: the header would be refused at the other end.
    """
    return _sign(_INSTRUCTION, header, blobs, key)


def open_instruction(frame: Frame, federation: Federation, site_id: str, now: datetime) -> Header:
    """Check an instruction at the site it is meant for.

    Raises:
        TrustError: another federation's or nobody's signature, another site, expired.
        DocumentError: the federation signed something that is no instruction.
        IntegrityError: a blob is not the one that was signed.
    """
    _check_signature(_INSTRUCTION, frame, federation.verify_key, "instruction")
    header = read_header(frame.header)
    if header.federation != federation.id:
        raise TrustError(f"instruction of federation {header.federation:.80}", allowed=federation.id)
    if header.site_id != site_id:
        raise TrustError(
            f"instruction for site {header.site_id}", allowed=f"site {site_id}", refusal=RefusalCode.WRONG_SITE
        )
    if header.expires and now >= instants.read(header.expires):
        raise TrustError(
            f"instruction expired at {header.expires}",
            allowed=f"a later time than {instants.text(now)}",
            next_step="compare the clocks of both ends (date -u)",
            refusal=RefusalCode.EXPIRED,
        )
    check_blobs(header.blobs, frame.blobs)
    return header


def instruction_hash(frame: Frame) -> str:
    """What a reply names its instruction by: SHA-256 of the header's bytes, hex."""
    return hashlib.sha256(frame.header).hexdigest()


def sign_reply(header: ReplyHeader, blobs: Mapping[str, bytes], key: SigningKey) -> Frame:
    """Name the blobs in the header and sign it with the site's identity.

    Raises:
        DocumentError: the header would be refused at the other end.
    """
    return _sign(_REPLY, header, blobs, key)


def open_reply(frame: Frame, site_key: VerifyKey, *, instruction: bytes) -> ReplyHeader:
    """Check at the server that a reply is the named site's answer to one instruction.

    Args:
        frame: the reply.
        site_key: the identity the federation enrolled for the site asked.
        instruction: header bytes of the instruction that was sent.

    Raises:
        TrustError: another signature, or the answer to something else.
        DocumentError: the site signed something that is no reply.
        IntegrityError: a blob is not the one that was signed.
    """
    _check_signature(_REPLY, frame, site_key, "reply")
    reply = read_reply(frame.header)
    asked = read_header(instruction)
    expected = {
        "federation": asked.federation,
        "site_id": asked.site_id,
        "run_id": asked.run_id,
        "kind": asked.kind,
        "round": asked.round,
        "attempt": asked.attempt,
        "instruction": hashlib.sha256(instruction).hexdigest(),
    }
    for name, wanted in expected.items():
        found = getattr(reply, name)
        if found != wanted:
            code = RefusalCode.WRONG_SITE if name == "site_id" else RefusalCode.WRONG_RUN
            raise TrustError(f"reply with {name} {found}", allowed=str(wanted), refusal=code)
    check_blobs(reply.blobs, frame.blobs)
    return reply


def _sign(label: str, header: Header | ReplyHeader, blobs: Mapping[str, bytes], key: SigningKey) -> Frame:
    named = dataclasses.replace(header, blobs=blob_hashes(blobs))
    check_fields(named)
    data = documents.canonical(shape.plain(named))
    if len(data) > MAX_HEADER:
        raise DocumentError(
            f"header of {len(data)} bytes", allowed=f"at most {MAX_HEADER}", refusal=RefusalCode.TOO_LARGE
        )
    return Frame(header=data, signature=key.sign(enc(label, data)), blobs=dict(blobs))


def _check_signature(label: str, frame: Frame, key: VerifyKey, what: str) -> None:
    if len(frame.header) > MAX_HEADER:
        raise DocumentError(
            f"header of {len(frame.header)} bytes", allowed=f"at most {MAX_HEADER}", refusal=RefusalCode.TOO_LARGE
        )
    key.verify(frame.signature, enc(label, frame.header), what)
