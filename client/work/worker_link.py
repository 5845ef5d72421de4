"""The agent's end of the worker: starts it when there is work, gives every request a deadline, ends it when idle.

The worker holds torch and the site's data, the agent holds neither: its memory comes back when the worker ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsite.client.work import pipe
from fedsite.protocol.errors import FedsiteError, RefusalCode

_log = logging.getLogger(__name__)

GRACE_S = 2.0  # seconds between asking the worker to end and killing it
_CHUNK = 1 << 20
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")  # each has its memory


class WorkerError(FedsiteError):
    """The worker failed, refused, died, or did not answer in time; `refusal` is what may be told to the centre."""

    broken: tuple[str, ...] = ()  # kinds of what breaks the task's contract; never told to the centre


@dataclass(frozen=True, slots=True, kw_only=True)
class _Child:
    """A running worker and the two pipe ends we hold."""

    process: subprocess.Popen[bytes]
    stdin: int
    stdout: int


class WorkerLink:
    """One worker process at most; requests go one at a time."""

    def __init__(
        self,
        log_path: Path,
        *,
        idle_s: float,
        memory_bytes: int = 0,
        threads: int = 1,
        niceness: int = 0,
        command: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare, without starting anything.

        Args:
            log_path: where the worker's stderr goes (0600).
            idle_s: seconds without work after which `close_if_idle` ends the worker.
            memory_bytes: most the worker may take; 0: no bound.
            threads: it computes with.
            niceness: it runs at, above ours.
            command: the worker's command line; ours when empty.
            clock: monotonic seconds.
        """
        self.log_path = log_path
        self.idle_s = idle_s
        self.memory_bytes = memory_bytes
        self.threads = threads
        self.niceness = niceness
        self._command = tuple(command) or (sys.executable, "-m", "fedsite.client.work.worker")
        self._clock = clock
        self._child: _Child | None = None
        self._used = clock()

    @property
    def pid(self) -> int | None:
        """The worker's process id while it runs."""
        child = self._child
        return child.process.pid if child is not None and child.process.poll() is None else None

    def call(
        self, operation: str, arguments: Mapping[str, Any], blobs: Mapping[str, bytes], *, timeout_s: float
    ) -> pipe.Message:
        """Ask the worker for one operation.

        Raises:
            WorkerError: the operation failed (its refusal code), or the worker died or was late (`internal`).
        """
        deadline = self._clock() + timeout_s
        child = self._start()
        try:
            request = pipe.Message(header={"operation": operation, "arguments": dict(arguments)}, blobs=blobs)
            for part in pipe.encode(request):
                self._write(child.stdin, part, deadline)
            answer = pipe.decode(lambda count: self._read(child.stdout, count, deadline))
        except (pipe.PipeError, OSError) as error:
            # Whatever is left in the pipe belongs to this request: the process cannot be used again.
            ended = self._ended(child)
            self.close(grace_s=0.0)
            raise WorkerError(
                f"the worker did not finish {operation} ({error}{ended})", next_step=f"see {self.log_path}"
            ) from None
        except BaseException:
            self.close(grace_s=0.0)
            raise
        self._used = self._clock()
        if answer.header.get("ended") is True:
            self.close()
        if answer.header.get("ok") is not True:
            raise _failure(operation, answer.header)
        return answer

    def close_if_idle(self) -> bool:
        """End the worker when it has had no work for `idle_s` seconds; True when it ended."""
        if self._child is None or self._clock() - self._used < self.idle_s:
            return False
        self.close()
        return True

    def close(self, grace_s: float = GRACE_S) -> None:
        """End the worker and everything in its process group; nothing happens when there is none."""
        child, self._child = self._child, None
        if child is None:
            return
        with contextlib.suppress(OSError):
            os.close(child.stdin)
        if grace_s > 0:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(grace_s)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.process.pid, signal.SIGKILL)
        child.process.wait()
        os.close(child.stdout)

    def interrupt(self) -> None:
        """Kill the worker from a signal handler: the call that waits for it then returns at once."""
        child = self._child
        if child is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.process.pid, signal.SIGKILL)

    def _ended(self, child: _Child) -> str:
        """How a worker that closed its pipe ended: some libraries know no other way to say that memory ran out."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = child.process.wait(0.2)
            return f"; it ended with signal {-code}" if code < 0 else f"; it ended with code {code}"
        return ""

    def _start(self) -> _Child:
        if self._child is not None:
            code = self._child.process.poll()
            if code is None:
                return self._child
            _log.warning("the worker ended by itself (exit %s); starting another", code)
            self.close(grace_s=0.0)
        environment = {name: value for name, value in os.environ.items() if name != "FEDSITE_TOKEN"}
        environment |= dict.fromkeys(_THREADS, str(self.threads))
        theirs_in, stdin = os.pipe()
        stdout, theirs_out = os.pipe()
        try:
            with os.fdopen(os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as log:
                process = subprocess.Popen(
                    [*self._command, *map(str, (os.getpid(), self.memory_bytes, self.niceness))],
                    stdin=theirs_in,
                    stdout=theirs_out,
                    stderr=log,
                    env=environment,
                    # A group of its own: Ctrl-C in the terminal reaches the agent, which ends the worker in order.
                    start_new_session=True,
                )
        except BaseException:
            os.close(stdin)
            os.close(stdout)
            raise
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        os.set_blocking(stdin, False)
        os.set_blocking(stdout, False)
        self._child = _Child(process=process, stdin=stdin, stdout=stdout)
        return self._child

    def _read(self, handle: int, count: int, deadline: float) -> bytes:
        parts: list[bytes] = []
        while count:
            self._wait(handle, selectors.EVENT_READ, deadline)
            part = os.read(handle, min(count, _CHUNK))
            if not part:
                break
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _write(self, handle: int, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            self._wait(handle, selectors.EVENT_WRITE, deadline)
            view = view[os.write(handle, view[:_CHUNK]) :]

    def _wait(self, handle: int, event: int, deadline: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(handle, event)
            if not selector.select(max(0.0, deadline - self._clock())):
                raise pipe.PipeError("no answer in time")


def _failure(operation: str, header: Mapping[str, Any]) -> WorkerError:
    code = header.get("code")
    refusal = RefusalCode(code) if code in set(RefusalCode) else RefusalCode.INTERNAL
    error = WorkerError(
        str(header.get("found") or f"{operation} failed"),
        allowed=str(header.get("allowed") or ""),
        next_step=str(header.get("next") or ""),
        refusal=refusal,
    )
    error.broken = tuple(map(str, header.get("broken") or ()))
    return error
