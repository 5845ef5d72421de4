"""Headers of instructions and replies: what each may say."""

import dataclasses
from typing import Any

import pytest

from fedsite.protocol import documents, messages, shape
from fedsite.protocol.errors import DocumentError, IntegrityError, RefusalCode

REPLY: dict[str, Any] = {
    "schema": "fedsite.reply/1",
    "kind": "train",
    "federation": "0" * 32,
    "site_id": "1" * 32,
    "run_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV",
    "round": 1,
    "attempt": 1,
    "instruction": "2" * 64,
    "outcome": "ok",
}


ADDRESS: dict[str, Any] = {
    "kind": "finish",
    "federation": "0" * 32,
    "site_id": "1" * 32,
    "run_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV",
    "round": 0,
    "attempt": 1,
    "plan_hash": "2" * 64,
}


def encoded(**changes: Any) -> bytes:
    return documents.canonical(REPLY | changes)


def test_reply_round_trip() -> None:
    reply = messages.read_reply(encoded(outcome="refused", code="busy", body={"a": 1}))
    assert reply.code is RefusalCode.BUSY
    assert messages.read_reply(documents.canonical(shape.plain(reply))) == reply


@pytest.mark.parametrize(
    "changes",
    [
        {"code": "busy"},
        {"outcome": "refused"},
        {"outcome": "failed", "code": None},
        {"outcome": "refused", "code": "no-such-code"},
        {"outcome": "refused", "code": ["busy"]},
        {"outcome": "refused", "code": {"a": 1}},
        {"outcome": "refused", "code": True},
        {"outcome": "maybe"},
        {"kind": "execute"},
        {"extra": 1},
        {"blobs": {"a": 1}},
        {"round": "1"},
        {"round": -1},
        {"run_id": "../../x"},
        {"instruction": "2" * 63},
        {"schema": "fedsite.reply/2"},
    ],
)
def test_reply_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DocumentError):
        messages.read_reply(encoded(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"federation": "f"},
        {"site_id": "../.."},
        {"run_id": "x" * 100_000},
        {"round": -1},
        {"attempt": 0},
        {"plan_hash": ""},
    ],
)
def test_what_nobody_has_signed_has_no_other_form_either(changes: dict[str, Any]) -> None:
    """It is repeated in refusals, logs and names of files before, or without, a signature that counts."""
    data = documents.canonical({"schema": "fedsite.instruction/1", **ADDRESS, **changes})
    with pytest.raises(DocumentError):
        messages.read_header(data)
    assert messages.addressed(data) is None


def test_header_defaults_round_trip() -> None:
    header = messages.Header(**ADDRESS, body={"outcome": "x"})
    assert messages.read_header(documents.canonical(shape.plain(header))) == header


def test_a_header_above_its_limit_is_refused() -> None:
    with pytest.raises(DocumentError, match="at most"):
        messages.read_header(b" " * (messages.MAX_HEADER + 1))


def test_blobs_must_be_those_of_the_header() -> None:
    blobs = {"model": b"abc", "plan": b""}
    expected = messages.blob_hashes(blobs)
    messages.check_blobs(expected, blobs)
    for changed in (
        {"model": b"abc"},
        blobs | {"more": b""},
        blobs | {"model": b"abd"},
        {"plan": b"abc", "model": b""},
    ):
        with pytest.raises(IntegrityError):
            messages.check_blobs(expected, changed)


def test_a_blob_above_its_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_BLOB", 2)
    with pytest.raises(IntegrityError) as raised:
        messages.check_blobs(messages.blob_hashes({"m": b"abc"}), {"m": b"abc"})
    assert raised.value.refusal is RefusalCode.TOO_LARGE


def test_frame_size_counts_everything() -> None:
    frame = messages.Frame(header=b"12", signature=b"345", blobs={"a": b"6", "b": b"78"})
    assert frame.size == 8
    assert dataclasses.replace(frame, blobs={}).size == 5
