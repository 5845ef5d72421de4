"""Errors over the agent's socket: the same found, allowed, next and exit code that a command prints, and back again."""

from __future__ import annotations

import json
from typing import Any, Final

import grpc

from fedsite.protocol import errors, output
from fedsite.protocol.errors import ExitCode, FedsiteError, RefusalCode, UnreachableError

DETAILS: Final = "fedsite-error-bin"  # trailing metadata: the JSON of fedsite.error/1
_MAX: Final = 400  # characters of one text: metadata are bounded

_STATUS: Final = {
    ExitCode.USAGE: grpc.StatusCode.FAILED_PRECONDITION,
    ExitCode.DATA: grpc.StatusCode.INVALID_ARGUMENT,
    ExitCode.TRUST: grpc.StatusCode.UNAUTHENTICATED,
    ExitCode.POLICY: grpc.StatusCode.PERMISSION_DENIED,
    ExitCode.BUDGET: grpc.StatusCode.PERMISSION_DENIED,
    ExitCode.INTEGRITY: grpc.StatusCode.DATA_LOSS,
    ExitCode.STORAGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
_BY_EXIT_CODE: Final = {
    kind.exit_code: kind
    for kind in (
        errors.ConfigError,
        errors.DataError,
        errors.TrustError,
        errors.UnreachableError,
        errors.PolicyError,
        errors.BudgetError,
        errors.IntegrityError,
        errors.StorageError,
    )
}
_BY_REFUSAL: Final = {
    RefusalCode.DATA_CONTRACT: errors.DataError,
    RefusalCode.DATA_MISSING: errors.DataError,
    RefusalCode.SIGNATURE: errors.TrustError,
    RefusalCode.EXPIRED: errors.TrustError,
    RefusalCode.MODEL_INVALID: errors.IntegrityError,
    RefusalCode.RELEASE_INVALID: errors.IntegrityError,
    RefusalCode.STORAGE: errors.StorageError,
    RefusalCode.PLAN_INVALID: errors.ConfigError,
    RefusalCode.MALFORMED: errors.DocumentError,
    RefusalCode.PROTOCOL_VERSION: errors.DocumentError,
}


def status_of(error: BaseException) -> Any:
    """The gRPC status that an error ends a call with."""
    if isinstance(error, errors.DocumentError):
        return grpc.StatusCode.INVALID_ARGUMENT
    return _STATUS.get(ExitCode(output.exit_code(error)), grpc.StatusCode.INTERNAL)


def encode(error: BaseException) -> bytes:
    """An error as trailing metadata."""
    value = {
        "error": type(error).__name__,
        "found": str(getattr(error, "found", ""))[:_MAX],
        "allowed": str(getattr(error, "allowed", ""))[:_MAX],
        "next": str(getattr(error, "next_step", ""))[:_MAX],
        "exit_code": output.exit_code(error),
    }
    return json.dumps(value).encode("ascii")


def decode(error: Any) -> FedsiteError:
    """What a failed call of ours means: the agent's error again, or that there is no agent to answer.

    Args:
        error: the grpc.RpcError.
    """
    for name, value in error.trailing_metadata() or ():
        if name == DETAILS:
            try:
                told = json.loads(value)
                kind = _BY_EXIT_CODE.get(ExitCode(told["exit_code"]), FedsiteError)
                return kind(str(told["found"]), allowed=str(told["allowed"]), next_step=str(told["next"]))
            except (ValueError, KeyError, TypeError):
                break
    found = f"the agent did not answer ({error.code().name.lower().replace('_', ' ')}: {error.details() or ''!s:.200})"
    return UnreachableError(found, allowed="an agent of this release that runs", next_step="fedsite status")


def of_child(error: FedsiteError) -> FedsiteError:
    """A child process's failure as the class that its code stands for, so that it ends a command with its exit code."""
    kind = _BY_REFUSAL.get(error.refusal)
    if kind is None:
        return error
    return kind(error.found, allowed=error.allowed, next_step=error.next_step, refusal=error.refusal)
