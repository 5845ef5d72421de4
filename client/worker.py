"""`python -m fedsite.client.worker PARENT`: the warm process that holds torch and the site's data.

It reads requests from stdin and answers on stdout, one at a time, and ends when stdin closes or the agent dies, also in
the middle of a training step: it can never outlive its agent.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from fedsite.client import lifeline, pipe
from fedsite.client.refusals import refusal_of

Operation = Callable[[Mapping[str, Any], Mapping[str, bytes]], pipe.Message]


def serve(requests: BinaryIO, answers: BinaryIO, operations: Mapping[str, Operation]) -> None:
    """Answer requests until the pipe closes; an exception becomes an answer with a code."""
    while True:
        try:
            request = pipe.decode(requests.read)
        except pipe.PipeError:
            return
        answer = answer_to(request, operations)
        for part in pipe.encode(answer):
            answers.write(part)
        answers.flush()


def answer_to(request: pipe.Message, operations: Mapping[str, Operation]) -> pipe.Message:
    """The answer to one request; never raises."""
    try:
        operation = operations[str(request.header.get("operation"))]
        result = operation(request.header.get("arguments") or {}, request.blobs)
        return pipe.Message(header={**result.header, "ok": True}, blobs=result.blobs)
    except Exception as error:
        if not hasattr(error, "found"):
            traceback.print_exc()
        header = {
            "ok": False,
            "code": str(refusal_of(error)),
            "found": str(getattr(error, "found", "") or f"{type(error).__name__}: {error}"),
            "allowed": str(getattr(error, "allowed", "")),
            "next": str(getattr(error, "next_step", "")),
        }
        return pipe.Message(header=header)


def answers_apart() -> BinaryIO:
    """Stdout for answers alone: what else is printed (by a library, by a model) goes to the log, and at once."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return answers


def main() -> None:
    """Entry point."""
    lifeline.die_with(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    # The agent ends us by closing the pipe; a signal meant for the terminal's foreground is not for us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = answers_apart()
    lifeline.end_with_pipe(0)
    from fedsite.client.operations import Operations

    serve(os.fdopen(0, "rb", closefd=False), answers, Operations().table())


if __name__ == "__main__":
    main()
