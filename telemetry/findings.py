"""What a check of a site's data says: problems as values, each with its code, place, count and remedy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from fedsite.telemetry.errors import CHECK, Code, TelemetryError

Severity = Literal["error", "warning"]  # error: the site cannot take part; warning: it can, but look

MOST = 20  # findings of one code; more are told as one


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One problem: `text` says what was found, `allowed` what was expected, `remedy` what to do next."""

    code: Code
    channel: str  # the channel, or the column of time, entity or label; "" where it is no column's
    count: int  # rows, windows or places concerned
    severity: Severity
    text: str
    allowed: str
    remedy: str


def codes(findings: Iterable[Finding]) -> tuple[str, ...]:
    """All that may leave the site: the kinds of error, sorted, each once; empty: the contract holds."""
    return tuple(sorted({str(finding.code) for finding in findings if finding.severity == "error"}))


def error(
    code: Code, text: str, allowed: str, remedy: str, *, channel: str = "", count: int = 1, severity: Severity = "error"
) -> Finding:
    """A finding, by default one that keeps the site out."""
    # A problem that was met while reading tells to run the check: that is what is running.
    remedy = remedy.removesuffix(f", or {CHECK}").removeprefix(f"{CHECK}; ")
    remedy = "correct the file, then check again" if remedy in ("", CHECK) else remedy
    return Finding(
        code=code, channel=channel, count=count, severity=severity, text=text, allowed=allowed, remedy=remedy
    )


def warning(code: Code, text: str, allowed: str, remedy: str, *, channel: str = "", count: int = 1) -> Finding:
    """A finding that the site may take part with."""
    return error(code, text, allowed, remedy, channel=channel, count=count, severity="warning")


def of_error(problem: TelemetryError) -> Finding:
    """What was raised, as a finding."""
    text, remedy = problem.found, problem.next_step
    return error(problem.code, text, problem.allowed, remedy, channel=problem.channel, count=problem.count)


def ordered(findings: Sequence[Finding]) -> list[Finding]:
    """Errors first, and of each code no more than `MOST`: of an image's thousand channels a few tell enough."""
    kept: list[Finding] = []
    for kind in dict.fromkeys((finding.severity, finding.code) for finding in findings):
        alike = [finding for finding in findings if (finding.severity, finding.code) == kind]
        kept += alike[:MOST]
        if len(alike) > MOST:
            rest, last = alike[MOST:], alike[MOST]
            text = f"and {len(rest)} more of this kind"
            count = sum(finding.count for finding in rest)
            kept.append(error(last.code, text, last.allowed, last.remedy, count=count, severity=last.severity))
    return sorted(kept, key=lambda finding: finding.severity != "error")
