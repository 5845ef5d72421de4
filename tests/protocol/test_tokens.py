"""Tokens: what the site may believe, what the server refuses, and that none shows in a log."""

import base64
import contextlib
import dataclasses
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedsite.protocol import documents, tokens
from fedsite.protocol.encoding import enc
from fedsite.protocol.errors import ConfigError, RefusalCode, TrustError
from fedsite.protocol.keys import SigningKey

fixtures = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)


@pytest.fixture
def token(pumps: Any, now: datetime) -> str:
    return tokens.create(pumps[0], pumps[1], expires_s=3600, label="plant 7", now=now)


def test_round_trip(token: str, pumps: Any, now: datetime) -> None:
    found = tokens.verify(token, pumps[0], now)
    assert found == tokens.read(token) == tokens.read(f"  {token}\n")
    assert (found.address, found.federation, found.label) == (pumps[0].address, pumps[0].digest, "plant 7")
    assert found.expires == "2026-01-02T04:04:05Z"
    assert len(bytes.fromhex(found.nonce)) == 16


def test_every_token_has_its_own_nonce(pumps: Any, now: datetime) -> None:
    made = {tokens.read(tokens.create(pumps[0], pumps[1], expires_s=60, now=now)).nonce for _ in range(5)}
    assert len(made) == 5


def test_an_expired_token_says_how_to_get_another(token: str, pumps: Any, now: datetime) -> None:
    tokens.verify(token, pumps[0], now + timedelta(seconds=3599))
    with pytest.raises(TrustError, match=r"expired at 2026-01-02T04:04:05Z") as raised:
        tokens.verify(token, pumps[0], now + timedelta(seconds=3600))
    assert "fedsite token create --expires 1h" in raised.value.next_step


def test_forged_tokens_are_refused(pumps: Any, wards: Any, now: datetime) -> None:
    for key in (wards[1], SigningKey.generate()):
        with pytest.raises(TrustError, match="does not verify"):
            tokens.verify(tokens.create(pumps[0], key, expires_s=60, now=now), pumps[0], now)


def test_a_token_for_another_document_of_the_same_key_is_refused(token: str, pumps: Any, now: datetime) -> None:
    moved = dataclasses.replace(pumps[0], address="elsewhere.example.org:1")
    with pytest.raises(TrustError, match="made for federation document"):
        tokens.verify(token, moved, now)


@pytest.mark.parametrize("text", ["", "fedsite-", "fedsite-.", "x", "fedsite-e30.e30", "fedsite-" + "A" * 5000, "é.é"])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(TrustError) as raised:
        tokens.read(text)
    assert "fedsite token create" in raised.value.allowed
    assert not text or text not in str(raised.value) or len(text) < 10


def test_a_cut_token_is_refused(token: str) -> None:
    payload, _, signature = token.partition(".")
    for cut in (token[8:], payload, payload[:-1] + "." + signature, payload + "." + signature + "="):
        with pytest.raises(TrustError):
            tokens.read(cut)


def test_one_token_has_one_spelling(token: str, pumps: Any, now: datetime) -> None:
    """Base64's unused bits must be zero, or a used token could be spelled anew."""
    signature = token.partition(".")[2]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = alphabet[alphabet.index(signature[-1]) ^ 1]  # 64 bytes leave 4 unused bits in the last letter
    with pytest.raises(TrustError, match="damaged"):
        tokens.verify(token[:-1] + twin, pumps[0], now)


@pytest.mark.parametrize(
    "changes",
    [{"nonce": "00"}, {"extra": 1}, {"address": "x"}, {"expires": "never"}, {"federation": 1}, {"label": "a\nb"}],
)
def test_signed_nonsense_is_refused(changes: dict[str, Any], token: str, pumps: Any, now: datetime) -> None:
    body = token.removeprefix("fedsite-").partition(".")[0]
    payload = documents.parse(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    data = documents.canonical(payload | changes)
    parts = (data, pumps[1].sign(enc("fedsite/sig/token/1", data)))
    text = "fedsite-" + ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    with pytest.raises(TrustError, match="damaged"):
        tokens.verify(text, pumps[0], now)


@fixtures
@given(data=st.data())
def test_any_other_letter_is_refused(data: st.DataObject, token: str, pumps: Any, now: datetime) -> None:
    index = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.characters(codec="utf-8"))
    changed = token[:index] + letter + token[index + 1 :]
    if changed.strip() != token:
        with pytest.raises(TrustError):
            tokens.verify(changed, pumps[0], now)


@given(st.text(max_size=100))
def test_read_raises_nothing_else(text: str) -> None:
    for candidate in (text, "fedsite-" + text, "fedsite-e30." + text):
        with contextlib.suppress(TrustError):
            tokens.read(candidate)


@pytest.mark.parametrize(
    ("expires_s", "label"), [(0, ""), (-1, ""), (float("nan"), ""), (31 * 86_400, ""), (60, "x" * 65), (60, "a\tb")]
)
def test_bounds(expires_s: float, label: str, pumps: Any, now: datetime) -> None:
    with pytest.raises(ConfigError):
        tokens.create(pumps[0], pumps[1], expires_s=expires_s, label=label, now=now)


def test_redact_leaves_no_token(token: str, pumps: Any, now: datetime) -> None:
    shown = tokens.redact(f"joining with {token}, then fedsite-agent; cut: {token[:60]}")
    assert token[12:] not in shown
    assert token[12:60] not in shown
    assert shown.startswith("joining with fedsite-<")
    assert "fedsite-agent" in shown
    assert tokens.redact(token) == tokens.redact(token)
    assert tokens.redact(token) != tokens.redact(tokens.create(pumps[0], pumps[1], expires_s=60, now=now))


def test_a_token_that_replaces_a_site_names_it(token: str, pumps: Any, now: datetime) -> None:
    taken = tokens.create(pumps[0], pumps[1], expires_s=60, label="alpha", replaces="ab" * 16, now=now)
    assert tokens.verify(taken, pumps[0], now).replaces == "ab" * 16
    assert tokens.read(token).replaces == ""
    for malformed in ("alpha", "AB" * 16, "ab" * 15):
        with pytest.raises(ConfigError):
            tokens.create(pumps[0], pumps[1], expires_s=60, replaces=malformed, now=now)


def test_a_refusal_has_a_code(token: str, pumps: Any, wards: Any, now: datetime) -> None:
    foreign = tokens.create(pumps[0], wards[1], expires_s=60, now=now)
    for text, when, code in (
        (token + "!", now, RefusalCode.MALFORMED),
        ("hello", now, RefusalCode.MALFORMED),
        (token, now + timedelta(days=1), RefusalCode.EXPIRED),
        (foreign, now, RefusalCode.SIGNATURE),
    ):
        with pytest.raises(TrustError) as raised:
            tokens.verify(text, pumps[0], when)
        assert raised.value.refusal is code
