"""Signed messages against everything a hostile end or network can do with them."""

import contextlib
import dataclasses
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedsite.protocol import documents, shape, signing
from fedsite.protocol.encoding import enc
from fedsite.protocol.errors import DocumentError, FedsiteError, IntegrityError, RefusalCode, TrustError
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.messages import Frame, Header, ReplyHeader

RUN = "01ARYZ6S410000000000000000"
BLOBS = {"model": b"weights", "plan": b"{}"}

fixtures = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)


@pytest.fixture
def header(pumps: Any, site_key: SigningKey) -> Header:
    return Header(
        kind="train",
        federation=pumps[0].id,
        site_id=site_key.public.id,
        run_id=RUN,
        round=1,
        attempt=1,
        plan_hash="ab" * 32,
        model_hash="cd" * 32,
        expires="2026-01-02T03:05:00Z",
        body={"evaluate": True, "normalisation": {"mean": [0.0], "scale": [1.5]}},
    )


@pytest.fixture
def frame(header: Header, pumps: Any) -> Frame:
    return signing.sign_instruction(header, BLOBS, pumps[1])


@pytest.fixture
def opened(pumps: Any, site_key: SigningKey, now: datetime) -> Callable[[Frame], Header]:
    return lambda frame: signing.open_instruction(frame, pumps[0], site_key.public.id, now)


def answer(header: Header, frame: Frame, **changes: Any) -> ReplyHeader:
    fields: dict[str, Any] = {
        "kind": header.kind,
        "federation": header.federation,
        "site_id": header.site_id,
        "run_id": header.run_id,
        "round": header.round,
        "attempt": header.attempt,
        "instruction": signing.instruction_hash(frame),
        "outcome": "ok",
    }
    return ReplyHeader(**(fields | changes))


def test_instruction_round_trip(header: Header, frame: Frame, opened: Callable[[Frame], Header]) -> None:
    found = opened(frame)
    assert dataclasses.replace(found, blobs={}) == header
    assert set(found.blobs) == {"model", "plan"}


def test_reply_round_trip(header: Header, frame: Frame, site_key: SigningKey) -> None:
    reply = signing.sign_reply(answer(header, frame), {"sealed": b"x"}, site_key)
    assert signing.open_reply(reply, site_key.public, instruction=frame.header).outcome == "ok"
    refused = signing.sign_reply(answer(header, frame, outcome="refused", code=RefusalCode.BUDGET), {}, site_key)
    assert signing.open_reply(refused, site_key.public, instruction=frame.header).code is RefusalCode.BUDGET


def test_another_federation_or_nobody_is_refused(
    header: Header, wards: Any, opened: Callable[[Frame], Header], site_key: SigningKey
) -> None:
    for key in (wards[1], site_key, SigningKey.generate()):
        with pytest.raises(TrustError) as raised:
            opened(signing.sign_instruction(header, BLOBS, key))
        assert raised.value.refusal is RefusalCode.SIGNATURE


def test_an_instruction_that_names_another_federation_is_refused(
    header: Header, pumps: Any, wards: Any, opened: Callable[[Frame], Header]
) -> None:
    named = dataclasses.replace(header, federation=wards[0].id)
    with pytest.raises(TrustError, match="of federation"):
        opened(signing.sign_instruction(named, BLOBS, pumps[1]))


def test_an_instruction_for_another_site_is_refused(frame: Frame, pumps: Any, now: datetime) -> None:
    with pytest.raises(TrustError) as raised:
        signing.open_instruction(frame, pumps[0], "00" * 16, now)
    assert raised.value.refusal is RefusalCode.WRONG_SITE


def test_an_expired_instruction_is_refused(frame: Frame, pumps: Any, site_key: SigningKey, now: datetime) -> None:
    last = now + timedelta(seconds=54)
    signing.open_instruction(frame, pumps[0], site_key.public.id, last)
    with pytest.raises(TrustError) as raised:
        signing.open_instruction(frame, pumps[0], site_key.public.id, last + timedelta(seconds=1))
    assert raised.value.refusal is RefusalCode.EXPIRED
    assert "date -u" in raised.value.next_step


def test_exchanged_blobs_are_refused(frame: Frame, opened: Callable[[Frame], Header]) -> None:
    for blobs in ({}, BLOBS | {"more": b""}, {"model": b"{}", "plan": b"weights"}, BLOBS | {"model": b"weightz"}):
        with pytest.raises(IntegrityError):
            opened(dataclasses.replace(frame, blobs=blobs))


def test_a_signature_for_one_kind_of_message_is_none_for_another(
    header: Header, frame: Frame, site_key: SigningKey, opened: Callable[[Frame], Header], pumps: Any
) -> None:
    reply = signing.sign_reply(answer(header, frame), {}, pumps[1])
    with pytest.raises(TrustError):
        opened(reply)
    bare = dataclasses.replace(frame, signature=pumps[1].sign(frame.header))
    with pytest.raises(TrustError):
        opened(bare)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"round": 2}, RefusalCode.WRONG_RUN),
        ({"attempt": 2}, RefusalCode.WRONG_RUN),
        ({"run_id": "01ARYZ6S410000000000000001"}, RefusalCode.WRONG_RUN),
        ({"kind": "evaluate"}, RefusalCode.WRONG_RUN),
        ({"instruction": "00" * 32}, RefusalCode.WRONG_RUN),
        ({"federation": "00" * 16}, RefusalCode.WRONG_RUN),
        ({"site_id": "00" * 16}, RefusalCode.WRONG_SITE),
    ],
)
def test_a_reply_to_something_else_is_refused(
    changes: dict[str, Any], code: RefusalCode, header: Header, frame: Frame, site_key: SigningKey
) -> None:
    reply = signing.sign_reply(answer(header, frame, **changes), {}, site_key)
    with pytest.raises(TrustError) as raised:
        signing.open_reply(reply, site_key.public, instruction=frame.header)
    assert raised.value.refusal is code


def test_a_reply_of_another_site_is_refused(header: Header, frame: Frame, site_key: SigningKey) -> None:
    reply = signing.sign_reply(answer(header, frame), {}, SigningKey.generate())
    with pytest.raises(TrustError):
        signing.open_reply(reply, site_key.public, instruction=frame.header)


@pytest.mark.parametrize(
    "changes",
    [
        {"run_id": "../../escape"},
        {"round": -1},
        {"attempt": 0},
        {"plan_hash": ""},
        {"model_hash": "zz"},
        {"site_id": "me"},
        {"federation": ""},
        {"expires": "tomorrow"},
        {"body": {"x": float("nan")}},
    ],
)
def test_what_would_be_refused_is_not_signed_and_not_opened(
    changes: dict[str, Any], header: Header, pumps: Any, opened: Callable[[Frame], Header]
) -> None:
    bad = dataclasses.replace(header, **changes)
    with pytest.raises(DocumentError):
        signing.sign_instruction(bad, {}, pumps[1])
    with contextlib.suppress(DocumentError):
        data = documents.canonical(shape.plain(bad))
        with pytest.raises(FedsiteError):
            opened(Frame(header=data, signature=pumps[1].sign(enc("fedsite/sig/instruction/1", data))))


def test_a_signed_header_of_no_known_schema_is_refused(pumps: Any, opened: Callable[[Frame], Header]) -> None:
    for data in (b"", b"[]", b"{}", b'{"schema":"fedsite.instruction/2"}', b"\xff", b'{"schema":1,"schema":2}'):
        with pytest.raises(DocumentError):
            opened(Frame(header=data, signature=pumps[1].sign(enc("fedsite/sig/instruction/1", data))))


def test_a_large_header_is_refused_before_its_signature(opened: Callable[[Frame], Header]) -> None:
    with pytest.raises(DocumentError) as raised:
        opened(Frame(header=b" " * ((4 << 20) + 1), signature=b""))
    assert raised.value.refusal is RefusalCode.TOO_LARGE


@fixtures
@given(data=st.data())
def test_any_damage_is_a_refusal(data: st.DataObject, frame: Frame, opened: Callable[[Frame], Header]) -> None:
    part = data.draw(st.sampled_from(["header", "signature", "model"]))
    good = frame.blobs["model"] if part == "model" else getattr(frame, part)
    bad = damaged(data, good)
    if bad == good:
        return
    changed = {"blobs": {**frame.blobs, "model": bad}} if part == "model" else {part: bad}
    with pytest.raises(FedsiteError):
        opened(dataclasses.replace(frame, **changed))


def damaged(data: st.DataObject, good: bytes) -> bytes:
    """Cut, extended, or with one bit turned."""
    how = data.draw(st.sampled_from(["cut", "extend", "flip"]))
    if how == "cut":
        return good[: data.draw(st.integers(0, len(good) - 1))]
    if how == "extend":
        return good + data.draw(st.binary(min_size=1, max_size=4))
    index, bit = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(0, 7))
    return good[:index] + bytes([good[index] ^ 1 << bit]) + good[index + 1 :]
