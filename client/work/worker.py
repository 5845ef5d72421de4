"""`python -m fedsite.client.work.worker PARENT MEMORY NICENESS`: the warm process that holds torch and the site's data.

It reads requests from stdin and answers on stdout, one at a time, and ends when stdin closes or the agent dies, also in
the middle of a training step: it can never outlive its agent. It takes at most MEMORY bytes: a request that needs more
is refused, and the process ends, so that another one starts with its memory whole.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from fedsite.client.refusals import refusal_of
from fedsite.client.work import lifeline, memory, pipe
from fedsite.protocol.errors import RefusalCode

Operation = Callable[[Mapping[str, Any], Mapping[str, bytes]], pipe.Message]


def serve(
    requests: BinaryIO,
    answers: BinaryIO,
    operations: Mapping[str, Operation],
    rest: Callable[[], None] = lambda: None,
) -> None:
    """Answer requests until the pipe closes or memory has run out; an exception becomes an answer with a code.

    `rest` is called after each answer, while nobody waits; what it raises is nobody's.
    """
    while True:
        try:
            request = pipe.decode(requests.read)
        except pipe.PipeError:
            return
        answer = answer_to(request, operations)
        for part in pipe.encode(answer):
            answers.write(part)
        answers.flush()
        if answer.header.get("ended"):
            return
        with contextlib.suppress(Exception):
            rest()


def answer_to(request: pipe.Message, operations: Mapping[str, Operation]) -> pipe.Message:
    """The answer to one request; never raises."""
    try:
        operation = operations[str(request.header.get("operation"))]
        result = operation(request.header.get("arguments") or {}, request.blobs)
        return pipe.Message(header={**result.header, "ok": True}, blobs=result.blobs)
    except Exception as error:
        if memory.exhausted(error):
            traceback.print_exc()
            return _exhausted(request)
        if not hasattr(error, "found"):
            traceback.print_exc()
        header = {
            "ok": False,
            "code": str(refusal_of(error)),
            "found": str(getattr(error, "found", "") or f"{type(error).__name__}: {error}"),
            "allowed": str(getattr(error, "allowed", "")),
            "next": str(getattr(error, "next_step", "")),
            "broken": list(getattr(error, "broken", ())),
        }
        return pipe.Message(header=header)


def answers_apart() -> BinaryIO:
    """Stdout for answers alone: what else is printed (by a library, by a model) goes to the log, and at once."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return answers


def _exhausted(request: pipe.Message) -> pipe.Message:
    """The last answer of a process whose memory is full."""
    header = {
        "ok": False,
        "ended": True,
        "code": str(RefusalCode.TOO_LARGE),
        "found": f"{request.header.get('operation')} needs more memory than this site gives it",
        "allowed": "agent.worker_memory bytes (half of this host's memory where it is not set)",
        "next": "raise agent.worker_memory in site.yaml, or take part with less data or a smaller model",
    }
    return pipe.Message(header=header)


def main() -> None:
    """Entry point."""
    lifeline.die_with(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    memory.limit(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    with contextlib.suppress(OSError):
        os.nice(int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    # The agent ends us by closing the pipe; a signal meant for the terminal's foreground is not for us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = answers_apart()
    lifeline.end_with_pipe(0)
    from fedsite.client.work.operations import Operations

    found = Operations()
    serve(os.fdopen(0, "rb", closefd=False), answers, found.table(), found.rest)


if __name__ == "__main__":
    main()
