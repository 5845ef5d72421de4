"""The agent's end of the link, as far as it is arithmetic: pauses, clocks, and failures in our words."""

from __future__ import annotations

import ssl
import subprocess
import sys
from datetime import UTC, datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.client.link.clocks import ClockError, clock_skew
from fedsite.client.link.flower_client import REFUSED_HEADER, status_error, transport_error
from fedsite.client.link.flower_fleet import LONG_POLL_S, poll_delay
from fedsite.protocol.errors import IntegrityError, TrustError, UnreachableError

uniform = st.floats(0, 0.999)


def test_a_server_that_holds_pulls_is_asked_again_at_once() -> None:
    assert poll_delay(failures=0, held_s=LONG_POLL_S, idle_s=3600, uniform=0.9) == 0.0


@given(uniform=uniform)
def test_a_plain_superlink_is_asked_often_after_an_instruction_and_seldom_when_idle(uniform: float) -> None:
    busy = poll_delay(failures=0, held_s=0.01, idle_s=0.0, uniform=uniform)
    idle = poll_delay(failures=0, held_s=0.01, idle_s=3600.0, uniform=uniform)
    assert 0.02 <= busy <= 0.04
    assert 3.0 <= idle <= 5.0


@given(failures=st.integers(1, 1000), uniform=uniform)
def test_pauses_after_failures_grow_and_stay_below_a_minute(failures: int, uniform: float) -> None:
    pause = poll_delay(failures=failures, held_s=0.0, idle_s=0.0, uniform=uniform)
    assert 0.25 <= pause <= 45.0
    assert pause <= poll_delay(failures=failures + 2, held_s=0.0, idle_s=0.0, uniform=uniform)


def test_the_clock_is_compared_with_the_date_header() -> None:
    now = datetime(2026, 1, 1, 12, 1, 40, tzinfo=UTC)
    assert clock_skew("Thu, 01 Jan 2026 12:00:00 GMT", now) == 100.0
    assert clock_skew("Thu, 01 Jan 2026 12:02:00 GMT", now) == -20.0
    assert clock_skew("soon", now) is None
    assert clock_skew(None, now) is None


def test_a_refused_signature_under_a_wrong_clock_says_by_how_much() -> None:
    answer = httpx.Response(401, headers={"date": "Thu, 01 Jan 1970 00:00:00 GMT"})
    error = status_error(answer, "host:1")
    assert isinstance(error, ClockError)
    assert "s ahead of the server's" in error.found


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (401, {}, TrustError),
        (403, {REFUSED_HEADER: "1"}, TrustError),  # the guard: revoked
        (403, {}, IntegrityError),  # Flower: the run is over
        (413, {}, UnreachableError),
        (500, {}, UnreachableError),
    ],
)
def test_statuses_become_our_errors(status: int, headers: dict[str, str], kind: type[Exception]) -> None:
    assert type(status_error(httpx.Response(status, headers=headers), "host:1")) is kind


def test_a_broken_trust_is_told_from_a_broken_network() -> None:
    wrong = httpx.ConnectError("boom")
    wrong.__cause__ = ssl.SSLCertVerificationError("self-signed certificate")
    assert isinstance(transport_error(wrong, "host:1"), TrustError)
    alert = httpx.ReadError("[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca")
    assert isinstance(transport_error(alert, "host:1"), TrustError)
    away = transport_error(httpx.ConnectError("[Errno 111] Connection refused"), "host:1")
    assert isinstance(away, UnreachableError)
    assert "host:1" in away.found


def test_the_idle_agents_link_imports_no_torch_and_no_database() -> None:
    heavy = "('torch', 'opacus', 'sqlalchemy', 'uvicorn', 'ray', 'onnxruntime', 'polars')"
    program = (
        "import sys, fedsite.client.link.flower_fleet, fedsite.client.identity.enrolment;"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
