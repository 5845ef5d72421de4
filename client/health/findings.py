"""What is not well at a site, as values: `status`, `doctor`, `bugreport` and the agent all show these.

A check is a function from facts to a finding or None; the reading of the facts is apart from it. A finding that follows
from another one's error is not shown beside it: who has no agent need not hear that the agent has no connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from fedsite.protocol import output
from fedsite.protocol.errors import ConfigError, ExitCode

Severity = Literal["error", "warning", "info"]
SEVERITIES: Final[tuple[Severity, ...]] = ("error", "warning", "info")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it should be, and what to do about it."""

    code: str  # lower-case words joined by "-"; never renamed
    severity: Severity
    title: str  # a few words, for a list
    text: str  # one sentence, with the value found and the value allowed
    remedy: str  # the next command to type or thing to do; empty when there is nothing to do
    depends_on: tuple[
        str, ...
    ] = ()  # codes; where one of these is found with an error or a warning, this one is hidden
    exit_code: ExitCode = ExitCode.INTERNAL  # of `fedsite doctor`, where this is the first error

    def __post_init__(self) -> None:
        if self.severity not in SEVERITIES:
            raise ConfigError(f"severity {self.severity!r}", allowed=", ".join(SEVERITIES))


def from_error(
    code: str, title: str, error: BaseException, *, severity: Severity = "error", depends_on: tuple[str, ...] = ()
) -> Finding:
    """An exception as a finding: what was found and allowed, its next step, its exit code."""
    found = str(getattr(error, "found", "") or error or type(error).__name__)
    allowed = str(getattr(error, "allowed", ""))
    return Finding(
        code=code,
        severity=severity,
        title=title,
        text=f"{found}; allowed: {allowed}" if allowed else found,
        remedy=str(getattr(error, "next_step", "")),
        depends_on=depends_on,
        exit_code=ExitCode(output.exit_code(error)),
    )


def present(findings: Iterable[Finding | None]) -> list[Finding]:
    """What to show: without what follows from another finding, errors first, else in the order of the checks."""
    found = list(dict.fromkeys(finding for finding in findings if finding is not None))
    failed = {finding.code for finding in found if finding.severity == "error"}
    # A hidden finding still hides: what depends on the link depends on the agent that has none.
    shown = [finding for finding in found if not failed.intersection(finding.depends_on) - {finding.code}]
    return sorted(shown, key=lambda finding: SEVERITIES.index(finding.severity))


def exit_code(findings: Iterable[Finding]) -> ExitCode:
    """What a command that shows them ends with: the code of the first error, 0 without one."""
    errors = [finding.exit_code for finding in findings if finding.severity == "error"]
    return errors[0] if errors else ExitCode.OK


def plain(finding: Finding) -> dict[str, Any]:
    """A finding as JSON."""
    return {
        "code": finding.code,
        "severity": finding.severity,
        "title": finding.title,
        "text": finding.text,
        "remedy": finding.remedy,
        "depends_on": list(finding.depends_on),
    }


def from_plain(value: dict[str, Any]) -> Finding:
    """The inverse of `plain`, for what came over the agent's socket; the exit code stays behind.

    Raises:
        ConfigError: not a finding.
    """
    try:
        return Finding(
            code=str(value["code"]),
            severity=value["severity"],
            title=str(value["title"]),
            text=str(value["text"]),
            remedy=str(value["remedy"]),
            depends_on=tuple(str(code) for code in value.get("depends_on", ())),
        )
    except (KeyError, TypeError):
        raise ConfigError("not a finding", allowed="code, severity, title, text, remedy") from None


def lines(findings: Iterable[Finding]) -> list[str]:
    """Findings for people: severity, title and text, and below it what to do."""
    shown: list[str] = []
    for finding in findings:
        shown.append(f"{finding.severity:<7}  {finding.title}: {finding.text}")
        if finding.remedy:
            shown.append(f"{'':<7}  next: {finding.remedy}")
    return shown
