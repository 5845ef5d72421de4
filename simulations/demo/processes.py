"""Running fedsite's public commands as a user would, and leaving none of them behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fedsite.protocol.errors import ExitCode, FedsiteError, UnreachableError

STOP_SECONDS = 20.0  # from SIGTERM to SIGKILL


class CommandError(FedsiteError):
    """A command of ours ended with an error; its exit code becomes ours."""

    def __init__(self, found: str, *, code: int, allowed: str = "", next_step: str = "") -> None:
        super().__init__(found, allowed=allowed, next_step=next_step)
        known = set(ExitCode)
        self.exit_code = ExitCode(code) if code in known and code != ExitCode.OK else ExitCode.INTERNAL


class Commands:
    """Starts `fedsite …` with a state directory of its own for each host that is played.

    Args:
        logs: folder that receives what long-running commands say.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def read(self, home: Path, *arguments: str, timeout: float = 300.0, secret: str | None = None) -> Any:
        """Run a command with `--json` and return the value it prints.

        Args:
            home: the host's state directory.
            arguments: the command line after `fedsite`.
            timeout: seconds.
            secret: an enrolment token, handed over in the environment and never on the command line.

        Raises:
            CommandError: it failed; found, allowed and next are its own.
            UnreachableError: it did not end in time.
        """
        try:
            done = subprocess.run(
                [*executable(), *arguments, "--json"],
                env=environment(home, secret),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired:
            raise UnreachableError(
                f"fedsite {arguments[0]} did not end within {timeout:.0f} s", next_step=f"look into {self._logs}"
            ) from None
        if done.returncode != 0:
            raise _failure(arguments, done.returncode, done.stderr)
        return json.loads(done.stdout)

    def lines(self, home: Path, *arguments: str) -> Iterator[Any]:
        """Run a command with `--json` that prints one value a line, and yield each as it comes.

        Raises:
            CommandError: it ended with an error.
        """
        errors = (self._logs / f"{'-'.join(arguments[:2])}.log").open("w+b")
        process = subprocess.Popen(
            [*executable(), *arguments, "--json"],
            env=environment(home),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        self._running.append((arguments[0], process))
        assert process.stdout is not None
        with errors:
            for line in process.stdout:
                yield json.loads(line)
            if process.wait() != 0:
                errors.seek(0)
                raise _failure(arguments, process.returncode, errors.read())

    def start(self, name: str, home: Path, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a command that goes on until it is stopped; what it says goes to `<logs>/<name>.log`."""
        with (self._logs / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*executable(), *arguments],
                env=environment(home),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A group of its own: Ctrl-C reaches the demo alone, which then stops them in order.
                start_new_session=True,
            )
        self._running.append((name, process))
        return process

    def check(self) -> None:
        """See whether everything that should run still does.

        Raises:
            CommandError: one has ended; the end of its log is told.
        """
        for name, process in self._running:
            if process.poll() not in (None, 0):
                tail = (self._logs / f"{name}.log").read_bytes()[-2000:]
                raise _failure((name,), process.returncode, tail)

    def stop(self) -> None:
        """End everything that was started, last first: asked politely, then after a while killed."""
        for _, process in reversed(self._running):
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    # Not SIGINT: commands of a demo that a shell runs in the background ignore it.
                    process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for _, process in reversed(self._running):
            try:
                process.wait(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._running.clear()


def executable() -> list[str]:
    """The `fedsite` beside the running interpreter, as a command line."""
    script = Path(sys.executable).parent / "fedsite"
    return [str(script)] if script.exists() else [sys.executable, "-m", "fedsite.client.cli"]


def environment(home: Path, secret: str | None = None) -> dict[str, str]:
    """What a command of one host sees: its own state, one thread, and nothing of ours that could reach it otherwise."""
    found = {key: value for key, value in os.environ.items() if not key.startswith("FEDSITE_") or key == "FEDSITE_DATA"}
    found |= {"FEDSITE_HOME": str(home), "OMP_NUM_THREADS": "1"}
    if secret is not None:
        found["FEDSITE_TOKEN"] = secret
    return found


def _failure(arguments: Sequence[str], code: int, said: bytes) -> CommandError:
    """The error a command printed as its last JSON or text lines."""
    lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
    for line in reversed(lines):
        with contextlib.suppress(ValueError):
            value = json.loads(line)
            if isinstance(value, dict) and "found" in value:
                return CommandError(
                    str(value["found"]),
                    code=code,
                    allowed=str(value.get("allowed", "")),
                    next_step=str(value.get("next", "")),
                )
    last = lines[-1] if lines else "it said nothing"
    return CommandError(f"fedsite {' '.join(arguments[:2])} ended with {code}: {last}", code=code)
