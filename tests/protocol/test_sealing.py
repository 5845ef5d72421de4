"""Sealed values open for one key, context and site, and only whole."""

import base64
import dataclasses
import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedsite.protocol import sealing
from fedsite.protocol.errors import DocumentError, IntegrityError, RefusalCode, StorageError, TrustError
from fedsite.protocol.messages import Header
from fedsite.protocol.sealing import CHUNK, TAG, WRAPPED, RunKey, make_run_key, seal

SITE = "11" * 16
HEADER = Header(
    kind="train",
    federation="00" * 16,
    site_id=SITE,
    run_id="01ARYZ6S410000000000000000",
    round=3,
    attempt=1,
    plan_hash="ab" * 32,
    model_hash="cd" * 32,
)
CONTEXT = sealing.context(HEADER)
SMALL = 64  # bytes of a chunk where a test patches it: the same code, four chunks in 256 bytes

patched = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


@pytest.fixture(scope="module")
def key() -> RunKey:
    return make_run_key()


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "CHUNK", SMALL)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK])
def test_round_trip(size: int, key: RunKey) -> None:
    payload = os.urandom(size)
    sealed = seal(payload, key.public, CONTEXT, SITE)
    assert len(sealed) == WRAPPED + size + TAG * max(1, -(-size // CHUNK))
    assert key.open(sealed, CONTEXT, SITE) == payload


@patched
@given(payload=st.binary(max_size=4 * SMALL))
def test_any_values_round_trip(payload: bytes, key: RunKey, small_chunks: None) -> None:
    assert key.open(seal(payload, key.public, CONTEXT, SITE), CONTEXT, SITE) == payload


def test_sealing_twice_gives_nothing_in_common(key: RunKey) -> None:
    first, second = (seal(bytes(100), key.public, CONTEXT, SITE) for _ in range(2))
    assert first[WRAPPED:] != second[WRAPPED:]
    assert first[:WRAPPED] != second[:WRAPPED]


@pytest.mark.parametrize(
    "changes",
    [
        {"run_id": "01ARYZ6S410000000000000001"},
        {"round": 4},
        {"attempt": 2},
        {"plan_hash": "ac" * 32},
        {"model_hash": "ce" * 32},
        {"model_hash": ""},
    ],
)
def test_another_context_does_not_open(changes: dict, key: RunKey) -> None:
    sealed = seal(b"values", key.public, CONTEXT, SITE)
    other = sealing.context(dataclasses.replace(HEADER, **changes))
    assert other != CONTEXT
    with pytest.raises(IntegrityError, match="do not open"):
        key.open(sealed, other, SITE)


def test_another_site_or_key_does_not_open(key: RunKey) -> None:
    sealed = seal(b"values", key.public, CONTEXT, SITE)
    with pytest.raises(IntegrityError):
        key.open(sealed, CONTEXT, "22" * 16)
    with pytest.raises(IntegrityError):
        make_run_key().open(sealed, CONTEXT, SITE)


@patched
@given(data=st.data())
def test_cut_extended_or_flipped_does_not_open(data: st.DataObject, key: RunKey, small_chunks: None) -> None:
    sealed = seal(bytes(range(4 * SMALL)), key.public, CONTEXT, SITE)
    how = data.draw(st.sampled_from(["cut", "extend", "flip"]))
    if how == "cut":
        bad = sealed[: data.draw(st.integers(0, len(sealed) - 1))]
    elif how == "extend":
        bad = sealed + data.draw(st.binary(min_size=1, max_size=2 * SMALL))
    else:
        index = data.draw(st.integers(0, len(sealed) - 1))
        bad = sealed[:index] + bytes([sealed[index] ^ 1 << data.draw(st.integers(0, 7))]) + sealed[index + 1 :]
    with pytest.raises(IntegrityError):
        key.open(bad, CONTEXT, SITE)


def chunks(sealed: bytes) -> list[bytes]:
    return [sealed[start : start + SMALL + TAG] for start in range(WRAPPED, len(sealed), SMALL + TAG)]


@pytest.mark.parametrize("order", [[0, 1, 2], [0, 2, 1, 3], [3, 2, 1, 0], [0, 1, 1, 3], [1, 2, 3], [0, 1, 2, 3, 3], []])
def test_whole_chunks_moved_left_out_or_repeated_do_not_open(order: list[int], key: RunKey, small_chunks: None) -> None:
    sealed = seal(bytes(4 * SMALL), key.public, CONTEXT, SITE)
    parts = chunks(sealed)
    assert len(parts) == 4
    assert key.open(sealed[:WRAPPED] + b"".join(parts), CONTEXT, SITE) == bytes(4 * SMALL)
    with pytest.raises(IntegrityError):
        key.open(sealed[:WRAPPED] + b"".join(parts[index] for index in order), CONTEXT, SITE)


def test_chunks_of_two_replies_do_not_mix(key: RunKey, small_chunks: None) -> None:
    first, second = (seal(bytes(2 * SMALL), key.public, CONTEXT, SITE) for _ in range(2))
    with pytest.raises(IntegrityError):
        key.open(first[:WRAPPED] + chunks(first)[0] + chunks(second)[1], CONTEXT, SITE)
    with pytest.raises(IntegrityError):
        key.open(second[:WRAPPED] + first[WRAPPED:], CONTEXT, SITE)


def test_the_limit_comes_before_decryption(key: RunKey, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = seal(bytes(101), key.public, CONTEXT, SITE)
    assert key.open(sealed, CONTEXT, SITE, limit=101)
    monkeypatch.setattr(sealing, "AESGCM", None)
    monkeypatch.setattr(sealing, "_SUITE", None)
    with pytest.raises(IntegrityError) as raised:
        key.open(sealed, CONTEXT, SITE, limit=100)
    assert raised.value.refusal is RefusalCode.TOO_LARGE


def test_values_too_large_to_travel_are_refused(key: RunKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "MAX_BLOB", 10)
    with pytest.raises(IntegrityError):
        seal(bytes(11), key.public, CONTEXT, SITE)


def test_a_bad_run_key_is_refused(key: RunKey) -> None:
    raw = base64.b64decode(key.public)
    assert len(raw) == 1216
    low_order = raw[:1184] + bytes(32)
    for bad in (b"", raw[:-1], raw + b"0", raw[:1184], b"\xff" * 1216, low_order):
        with pytest.raises(TrustError):
            seal(b"values", base64.b64encode(bad).decode(), CONTEXT, SITE)
    with pytest.raises(TrustError):
        seal(b"values", "not base64", CONTEXT, SITE)


def test_a_malformed_id_is_refused(key: RunKey) -> None:
    with pytest.raises(DocumentError):
        seal(b"values", key.public, CONTEXT, "site")
    with pytest.raises(DocumentError):
        sealing.context(dataclasses.replace(HEADER, run_id="run"))
    with pytest.raises(DocumentError):
        sealing.context(dataclasses.replace(HEADER, plan_hash=""))


def test_the_run_key_at_rest(key: RunKey, tmp_path: Path) -> None:
    wrapping = os.urandom(32)
    path = tmp_path / "run.key"
    key.save_encrypted(path, wrapping)
    stored = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = RunKey.load_encrypted(path, wrapping)
    assert again.public == key.public
    assert again.open(seal(b"values", key.public, CONTEXT, SITE), CONTEXT, SITE) == b"values"
    for bad, wrap in ((stored, os.urandom(32)), (stored[:-1], wrapping), (b"", wrapping), (stored + b"0", wrapping)):
        with pytest.raises(IntegrityError):
            RunKey.from_encrypted(bad, wrap)
    path.unlink()
    with pytest.raises(StorageError):
        RunKey.load_encrypted(path, wrapping)


def test_nothing_secret_in_a_repr(key: RunKey) -> None:
    assert repr(key) == "RunKey()"
