"""The one error tree: exit codes for people and scripts, refusal codes for the wire.

A message holds the value found, the value allowed, and the next command to type. The text stays at the host that
raised it: only a `RefusalCode` ever crosses the network (docs/privacy.md).
"""

from __future__ import annotations

from enum import IntEnum, StrEnum


class ExitCode(IntEnum):
    """Process exit codes, documented in docs/exit-codes.md and never renumbered."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    DATA = 3
    TRUST = 4
    UNREACHABLE = 5
    POLICY = 6
    BUDGET = 7
    INTEGRITY = 8
    STORAGE = 9
    INTERRUPTED = 130


class RefusalCode(StrEnum):
    """Why a site did not do what it was asked. Never renamed, never explained with data."""

    PROTOCOL_VERSION = "protocol-version"
    MALFORMED = "malformed"
    TOO_LARGE = "too-large"
    SIGNATURE = "signature"
    WRONG_SITE = "wrong-site"
    WRONG_RUN = "wrong-run"
    EXPIRED = "expired"
    REPLAYED = "replayed"
    PLAN_UNKNOWN = "plan-unknown"
    PLAN_INVALID = "plan-invalid"
    TASK_UNSUPPORTED = "task-unsupported"
    MODEL_UNKNOWN = "model-unknown"
    MODEL_INVALID = "model-invalid"
    POLICY = "policy"
    PROTECTION = "protection"
    DATA_MISSING = "data-missing"
    DATA_CONTRACT = "data-contract"
    TOO_FEW_WINDOWS = "too-few-windows"
    BUDGET = "budget"
    COHORT = "cohort"
    APPROVAL = "approval"  # a person at the site has not decided yet
    NOT_NOW = "not-now"  # paused, outside its hours, or a condition of its host does not hold
    BUSY = "busy"
    STORAGE = "storage"
    RELEASE_INVALID = "release-invalid"
    SELF_TEST = "self-test"
    INTERNAL = "internal"


# Said by a site that would answer the same question at another time: it is asked again, never sent away.
ASK_LATER = frozenset({RefusalCode.APPROVAL, RefusalCode.NOT_NOW})


class FedsiteError(Exception):
    """Root of the tree.

    Args:
        found: what is wrong, with the value found, as one sentence without a full stop.
        allowed: the values allowed, or what was expected; empty when there is nothing to choose from.
        next_step: the next command to type or thing to do; empty when there is none.
    """

    exit_code = ExitCode.INTERNAL
    refusal = RefusalCode.INTERNAL

    def __init__(
        self, found: str, *, allowed: str = "", next_step: str = "", refusal: RefusalCode | None = None
    ) -> None:
        super().__init__(found)
        self.found = found
        self.allowed = allowed
        self.next_step = next_step
        if refusal is not None:
            self.refusal = refusal

    def __str__(self) -> str:
        parts = [self.found]
        if self.allowed:
            parts.append(f"allowed: {self.allowed}")
        if self.next_step:
            parts.append(f"next: {self.next_step}")
        return "; ".join(parts)


class ConfigError(FedsiteError):
    """A setting, override, task file or command line is wrong."""

    exit_code = ExitCode.USAGE
    refusal = RefusalCode.PLAN_INVALID


class DocumentError(ConfigError):
    """A document (plan, task, message, manifest) is not of its schema."""

    refusal = RefusalCode.MALFORMED


class DataError(FedsiteError):
    """Telemetry is missing, unreadable or breaks the task's contract."""

    exit_code = ExitCode.DATA
    refusal = RefusalCode.DATA_CONTRACT


class TrustError(FedsiteError):
    """A certificate, token, signature or identity is not what it claims to be."""

    exit_code = ExitCode.TRUST
    refusal = RefusalCode.SIGNATURE


class UnreachableError(FedsiteError):
    """The other end does not answer."""

    exit_code = ExitCode.UNREACHABLE


class PolicyError(FedsiteError):
    """The site's own rules forbid it."""

    exit_code = ExitCode.POLICY
    refusal = RefusalCode.POLICY


class BudgetError(FedsiteError):
    """The privacy budget does not allow it."""

    exit_code = ExitCode.BUDGET
    refusal = RefusalCode.BUDGET


class IntegrityError(FedsiteError):
    """Bytes are not the bytes that were promised."""

    exit_code = ExitCode.INTEGRITY
    refusal = RefusalCode.MODEL_INVALID


class StorageError(FedsiteError):
    """The disk is full, read-only, or the state directory cannot be used."""

    exit_code = ExitCode.STORAGE
    refusal = RefusalCode.STORAGE
