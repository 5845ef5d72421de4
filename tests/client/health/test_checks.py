"""Each check with toy facts: where it says nothing, where it warns, and where it is an error."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.client.consent.pause import Pause
from fedsite.client.health import checks as checks
from fedsite.client.health.checks import Balance, Contract
from fedsite.client.health.findings import Finding
from fedsite.protocol.errors import ExitCode

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
GB = 10**9


def severity(finding: Finding | None) -> str | None:
    """Its severity; None where there is no finding. Whatever is found says what to do."""
    if finding is not None:
        assert finding.remedy
        assert finding.text
        assert finding.severity != "error" or finding.exit_code != ExitCode.INTERNAL
    return None if finding is None else finding.severity


@pytest.mark.parametrize(
    ("state", "expected"), [("stopped", "error"), ("idle", None), ("working", None), ("unreachable", None)]
)
def test_agent(state: str, expected: str | None) -> None:
    assert severity(checks.agent(state)) == expected


def test_link_says_why() -> None:
    found = checks.link("unreachable", "no answer from x:1")
    assert severity(found) == "error"
    assert found is not None
    assert (found.text, found.exit_code) == ("no answer from x:1", ExitCode.UNREACHABLE)
    assert "agent" in found.depends_on
    assert checks.link("idle", "") is None
    wrong = checks.link("clock", "this host's clock is 3600 s ahead of the server's")
    assert wrong is not None
    assert (wrong.code, wrong.severity, wrong.exit_code) == ("clock", "error", 4)


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (timedelta(days=80), None),
        (timedelta(days=7), None),
        (timedelta(days=6.9), "warning"),
        (timedelta(seconds=1), "warning"),
        (timedelta(0), "error"),
        (timedelta(days=-3), "error"),
    ],
)
def test_certificate(left: timedelta, expected: str | None) -> None:
    assert severity(checks.certificate(NOW + left, NOW)) == expected
    assert checks.certificate(None, NOW) is None


@pytest.mark.parametrize(
    ("ahead_s", "uncertainty_s", "expected"),
    [
        (0.0, 0.0, None),
        (1.9, 0.0, None),
        (3.0, 0.0, "warning"),
        (6.0, 0.0, "error"),
        (6.0, 1.5, "warning"),
        (-100.0, 0.0, None),
        (-200.0, 0.0, "warning"),
        (-301.0, 0.0, "error"),
        (3600.0, 0.0, "error"),
        (-3600.0, 0.0, "error"),
    ],
)
def test_clock(ahead_s: float, uncertainty_s: float, expected: str | None) -> None:
    found = checks.clock(ahead_s, uncertainty_s)
    assert severity(found) == expected
    if found is not None:
        assert ("ahead of" in found.text) == (ahead_s > 0)
    assert checks.clock(None) is None


@given(st.floats(-1e9, 1e9), st.floats(0, 1e3))
def test_a_clock_that_flower_would_refuse_is_an_error_and_a_good_one_is_not(
    ahead_s: float, uncertainty_s: float
) -> None:
    expected = ahead_s - uncertainty_s > checks.CLOCK_AHEAD_S or -ahead_s - uncertainty_s > checks.CLOCK_BEHIND_S
    assert (severity(checks.clock(ahead_s, uncertainty_s)) == "error") == expected


@pytest.mark.parametrize(
    ("free", "expected"), [(None, None), (10 * GB, None), (3 * GB, "warning"), (GB - 1, "error"), (0, "error")]
)
def test_disk(free: int | None, expected: str | None) -> None:
    assert severity(checks.disk(free, GB, "/data")) == expected


@pytest.mark.parametrize(
    ("available", "allowed", "expected"),
    [(2 * GB, 0, None), (None, 0, None), (2 * GB, 2 * GB, None), (GB // 2, 0, "warning"), (2 * GB, GB // 2, "warning")],
)
def test_memory(available: int | None, allowed: int, expected: str | None) -> None:
    assert severity(checks.memory(available, allowed, GB)) == expected


@pytest.mark.parametrize(
    ("epsilon", "cap", "expected"),
    [(0.0, 10.0, None), (8.9, 10.0, None), (9.5, 10.0, "warning"), (10.0, 10.0, "warning"), (12.0, 10.0, "warning")],
)
def test_budget(epsilon: float, cap: float, expected: str | None) -> None:
    found = checks.budget(Balance(source="/x.csv", unit="entity", epsilon=epsilon, cap=cap, runs=1))
    assert severity(found) == expected
    if found is not None:
        assert ("refused" in found.text) == (epsilon >= cap)


def test_what_cannot_be_counted_is_said_once() -> None:
    known = Balance(source="a", unit="window", epsilon=1.0, cap=10.0, runs=1)
    unknown = Balance(source="b", unit="window", epsilon=None, cap=10.0, runs=1)
    assert checks.budget(unknown) is None
    assert unknown.left is None
    assert severity(checks.uncounted([known, unknown, unknown])) == "info"
    assert checks.uncounted([known]) is None


def test_contract() -> None:
    assert severity(checks.contract(Contract(task="pump", checked=NOW, codes=("range",)), NOW)) == "error"
    assert checks.contract(Contract(task="pump", checked=NOW), NOW) is None
    assert severity(checks.contract(Contract(task="pump", checked=None), NOW)) == "info"
    assert severity(checks.contract(Contract(task="pump", checked=NOW - timedelta(days=90)), NOW)) == "info"


def test_approvals_name_the_run_to_look_at() -> None:
    assert checks.approvals([]) is None
    found = checks.approvals(["01A", "01B", "01C"])
    assert severity(found) == "warning"
    assert found is not None
    assert (found.text, found.remedy) == ("01A and 2 more", "fedsite rounds show 01A")


def test_a_pause_without_an_end_is_a_warning() -> None:
    assert checks.pause(None) is None
    assert severity(checks.pause(Pause(since=NOW, reason="maintenance"))) == "warning"
    assert severity(checks.pause(Pause(since=NOW, until=NOW + timedelta(hours=2)))) == "info"


def test_conditions_name_every_reason() -> None:
    assert checks.conditions([]) is None
    found = checks.conditions(["outside 22:00-06:00", "on battery"])
    assert severity(found) == "info"
    assert found is not None
    assert found.text == "outside 22:00-06:00; on battery"


@pytest.mark.parametrize(
    ("unsent", "age", "expected"),
    [(0, None, None), (1, None, "info"), (2, timedelta(minutes=5), "info"), (1, timedelta(hours=3), "warning")],
)
def test_outbox(unsent: int, age: timedelta | None, expected: str | None) -> None:
    assert severity(checks.outbox(unsent, None if age is None else NOW - age, NOW)) == expected


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1500, "1.5 kB"),
        (250_000, "250 kB"),
        (1 << 30, "1.1 GB"),
        (10**13, "10000 GB"),
    ],
)
def test_sizes_are_readable(count: int, text: str) -> None:
    assert checks.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "just now"), (30, "just now"), (600, "10 min ago"), (86_400, "24 h ago"), (864_000, "10 days ago")],
)
def test_ages_are_readable(seconds: int, text: str) -> None:
    assert checks.ago(NOW - timedelta(seconds=seconds), NOW) == text
