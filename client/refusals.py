"""From any exception to the one code that may leave the site: the text stays here."""

from __future__ import annotations

from fedsite.protocol.errors import FedsiteError, RefusalCode

# telemetry's own codes (telemetry/errors.py), by value: a checked data set has no other way to fail.
_TELEMETRY = {
    "task": RefusalCode.TASK_UNSUPPORTED,
    "data-missing": RefusalCode.DATA_MISSING,
    "data-unreadable": RefusalCode.DATA_MISSING,
    "too-few-windows": RefusalCode.TOO_FEW_WINDOWS,
}


def refusal_of(error: BaseException) -> RefusalCode:
    """The code for an exception; `internal` when it is none of ours."""
    if isinstance(error, FedsiteError):
        return error.refusal
    package = type(error).__module__
    if package.startswith("fedsite.telemetry"):
        return _TELEMETRY.get(str(getattr(error, "code", "")), RefusalCode.DATA_CONTRACT)
    if package.startswith("fedsite.privacy"):
        return RefusalCode.PLAN_INVALID
    if isinstance(error, OSError):
        return RefusalCode.STORAGE
    return RefusalCode.INTERNAL


def is_refusal(error: BaseException) -> bool:
    """True when the site declined by a rule it can name; False when something broke."""
    return refusal_of(error) not in (RefusalCode.INTERNAL, RefusalCode.STORAGE)


def plain(error: BaseException) -> dict[str, str]:
    """A refusal for the operator's own screens: the code, and the text that never leaves."""
    return {
        "code": str(refusal_of(error)),
        "found": str(getattr(error, "found", "") or error),
        "allowed": str(getattr(error, "allowed", "")),
        "next": str(getattr(error, "next_step", "")),
    }
