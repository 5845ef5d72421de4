"""Findings: their order, which of them hide, the exit code, and their form as JSON and as text."""

from __future__ import annotations

from typing import Any

import pytest

from fedsite.client.health import findings as health
from fedsite.client.health.findings import Finding, Severity
from fedsite.protocol.errors import BudgetError, ConfigError, ExitCode


def finding(code: str, severity: Severity = "error", **changes: Any) -> Finding:
    return Finding(code=code, severity=severity, title=f"title of {code}", text="text", remedy="remedy", **changes)


def test_errors_come_first_and_otherwise_the_order_of_the_checks_stays() -> None:
    found = [finding("a", "info"), None, finding("b", "warning"), finding("c"), finding("d", "warning"), finding("e")]
    assert [item.code for item in health.present(found)] == ["c", "e", "b", "d", "a"]


def test_what_follows_from_an_error_is_hidden_also_when_that_one_is_hidden_itself() -> None:
    found = [
        finding("throughput", "warning", depends_on=("tls",)),
        finding("tls", depends_on=("resolve",)),
        finding("resolve"),
        finding("disk"),
    ]
    assert [item.code for item in health.present(found)] == ["resolve", "disk"]


@pytest.mark.parametrize("severity", ["warning", "info"])
def test_a_warning_hides_nothing(severity: Severity) -> None:
    found = [finding("certificate", severity), finding("link", depends_on=("certificate",))]
    assert [item.code for item in health.present(found)] == ["link", "certificate"]


def test_a_finding_does_not_hide_itself() -> None:
    assert len(health.present([finding("a", depends_on=("a",))])) == 1


def test_the_first_error_gives_the_exit_code() -> None:
    found = [finding("a", "warning", exit_code=ExitCode.DATA), finding("b", exit_code=ExitCode.TRUST), finding("c")]
    assert health.exit_code(found) == ExitCode.TRUST
    assert health.exit_code(found[:1]) == ExitCode.OK
    assert health.exit_code([]) == ExitCode.OK


def test_plain_and_back() -> None:
    first = finding("a", "warning", depends_on=("b",))
    assert health.from_plain(health.plain(first)) == first
    for broken in ({}, {**health.plain(first), "severity": "bad"}, {**health.plain(first), "depends_on": 3}):
        with pytest.raises(ConfigError):
            health.from_plain(broken)


def test_an_error_of_the_tree_keeps_its_words_and_its_exit_code() -> None:
    made = health.from_error("budget", "budget", BudgetError("it is damaged", allowed="a whole file", next_step="cp"))
    assert (made.text, made.remedy, made.exit_code) == (
        "it is damaged; allowed: a whole file",
        "cp",
        ExitCode.BUDGET,
    )
    assert health.from_error("x", "x", ValueError("boom")).exit_code == ExitCode.INTERNAL


def test_lines_hold_severity_title_text_and_remedy() -> None:
    assert health.lines([finding("a", "warning")]) == ["warning  title of a: text", "         next: remedy"]
