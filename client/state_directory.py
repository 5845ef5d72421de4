"""The site's state directory: files that several parts know by name, and who holds it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from fedsite.protocol.errors import ConfigError
from fedsite.protocol.storage import storage_errors

BUDGET = "budget.db"
STATE = "agent.json"
LOCK = "agent.lock"


def running(directory: Path) -> bool:
    """True while an agent holds the state directory; a file left by kill -9 does not count."""
    try:
        handle = os.open(directory / LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


@contextlib.contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Hold the state directory: two agents would answer, and spend, twice.

    Raises:
        ConfigError: another agent holds it.
    """
    path = directory / LOCK
    with storage_errors(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(handle, 32, 0).decode("ascii", errors="replace").strip()
            raise ConfigError(
                f"an agent runs already on {directory} (process {pid or 'unknown'})",
                allowed="one agent for each state directory",
                next_step=f"end it first: Ctrl-C, systemctl stop fedsite-agent, or kill {pid or 'PID'}",
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode("ascii"), 0)
        yield
    finally:
        os.close(handle)
