"""What goes wrong between a file at a site and a model's input: value found, value allowed, next command.

Telemetry imports nothing above it, so it has its own root; client and server translate it at their boundary into the
exit codes of `protocol.errors` (task document: 2, data: 3).
"""

from __future__ import annotations

from enum import StrEnum

CHECK = "fedsite data check"


class Code(StrEnum):
    """What kind of problem it is: the one thing about a site's data that may be counted or reported. Never renamed."""

    TASK = "task"
    MISSING = "data-missing"
    UNREADABLE = "data-unreadable"
    COLUMN = "column-missing"
    UNIT = "unit"
    TYPE = "not-a-number"
    RANGE = "range"
    ALL_MISSING = "all-missing"
    TIME = "time"
    CLASS = "class"
    SITE = "site-unknown"
    TOO_FEW = "too-few-windows"
    SPARSE = "missing-values"
    CONSTANT = "constant"
    RATE = "sampling-rate"
    GAPS = "gaps"
    BALANCE = "label-balance"
    STALE = "stale"
    DRIFT = "drift"


class TelemetryError(Exception):
    """Telemetry is missing, unreadable or breaks the task's contract.

    Args:
        found: what is wrong, with the file, the channel and the value found, as one sentence without a full stop.
        allowed: the values allowed; empty when there is nothing to choose from.
        next_step: the next command to type or thing to do.
        code: the kind of problem.
        channel: the channel, or the column of time, entity or label; empty where it is no column's.
        count: rows, windows or places concerned.
    """

    exit_code = 3
    broken: tuple[str, ...] = ()  # the kinds of everything that breaks the contract, once the data was looked at

    def __init__(
        self,
        found: str,
        *,
        allowed: str = "",
        next_step: str = "",
        code: Code = Code.UNREADABLE,
        channel: str = "",
        count: int = 1,
    ) -> None:
        super().__init__(found)
        self.found = found
        self.allowed = allowed
        self.next_step = next_step
        self.code = code
        self.channel = channel
        self.count = count

    def __str__(self) -> str:
        parts = [self.found]
        if self.allowed:
            parts.append(f"allowed: {self.allowed}")
        if self.next_step:
            parts.append(f"next: {self.next_step}")
        return "; ".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        fields = (self.found, self.allowed, self.next_step, self.code, self.channel, self.count)
        return _rebuild, (type(self), *fields)


class TaskError(TelemetryError):
    """A task document is malformed, unknown, or asks for something that does not fit together."""

    exit_code = 2

    def __init__(
        self,
        found: str,
        *,
        allowed: str = "",
        next_step: str = "",
        code: Code = Code.TASK,
        channel: str = "",
        count: int = 1,
    ) -> None:
        super().__init__(found, allowed=allowed, next_step=next_step, code=code, channel=channel, count=count)


def _rebuild(
    kind: type[TelemetryError], found: str, allowed: str, next_step: str, code: Code, channel: str, count: int
) -> TelemetryError:
    """Unpickle: keyword-only arguments do not survive the default protocol."""
    return kind(found, allowed=allowed, next_step=next_step, code=code, channel=channel, count=count)
