"""Where the agent's socket is: in the site's state directory, or, where that path is too long for a socket, elsewhere.

Only the site's own user can reach it: the directory is 0700, the socket 0600 from the moment it exists. Whoever holds
the agent's lock (state_directory.only_one) may replace a socket that a killed agent left.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from fedsite.protocol import documents, storage
from fedsite.protocol.errors import FedsiteError, TrustError

NAME: Final = "agent.sock"
STATE: Final = "agent.json"
LONGEST: Final = 107  # bytes of a socket's path; sun_path holds 108 with its end
_PREFIX: Final = "fedsite-"


def prepare(directory: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Where a new agent is to listen; what a killed one left there is gone.

    Args:
        directory: the site's state directory; the caller holds its lock.
        environment: says the runtime directory (`XDG_RUNTIME_DIR`).

    Raises:
        StorageError: the place cannot be made or cleared.
    """
    remove(_elsewhere(directory))
    path = storage.private_directory(directory) / NAME
    if _fits(path):
        remove(path)
        return path
    with storage.storage_errors(path):
        runtime = environment.get("XDG_RUNTIME_DIR", "")
        # A new directory each time, 0700 from creation and of a name nobody can have taken before.
        return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=runtime if os.path.isdir(runtime) else None)) / NAME


def find(directory: Path) -> Path | None:
    """The socket of the agent that holds the state directory; None where there is none.

    Raises:
        TrustError: it is somebody else's.
    """
    path: Path | None = directory / NAME
    if not _fits(directory / NAME):
        path = _elsewhere(directory)
    if path is None:
        return None
    try:
        found = path.lstat()
    except OSError:
        return None
    if not stat.S_ISSOCK(found.st_mode):
        return None
    if found.st_uid not in (os.geteuid(), directory.stat().st_uid):
        raise TrustError(
            f"{path} belongs to user {found.st_uid}",
            allowed=f"the user of {directory}",
            next_step="end that process, then: fedsite up",
        )
    return path


def remove(path: Path | None) -> None:
    """Take a socket of ours away, and the directory that was made for it; never raises."""
    if path is None:
        return
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    if path.parent.name.startswith(_PREFIX):
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def target(path: Path) -> str:
    """A socket's path as gRPC takes it."""
    return "unix:" + urllib.parse.quote(os.fsencode(path))


@contextlib.contextmanager
def private_creation() -> Iterator[None]:
    """Whatever is created inside is its owner's alone; for a moment when no other thread of this process writes."""
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= LONGEST


def _elsewhere(directory: Path) -> Path | None:
    """The socket that an agent whose directory's path is too long wrote into its state file."""
    try:
        value = documents.parse(storage.read(directory / STATE))
    except FedsiteError:
        return None
    text = value.get("socket") if isinstance(value, dict) else None
    if not isinstance(text, str) or not text.startswith("/"):
        return None
    path = Path(text)
    # Written by ourselves into a directory of ours; still, nothing but what `prepare` makes is ever touched.
    return path if path.name == NAME and path.parent.name.startswith(_PREFIX) else None
