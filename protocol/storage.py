"""Files of the state directory: written whole or not at all, readable by their owner only."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from fedsite.protocol.errors import StorageError

_REMEDIES = {
    errno.ENOSPC: "free some space on that disk (df -h), then repeat the command",
    errno.EDQUOT: "raise the quota or remove files (quota -s), then repeat the command",
    errno.EROFS: "set FEDSITE_HOME to a directory on a writable disk",
    errno.EACCES: "run as the directory's owner, or set FEDSITE_HOME to a directory of yours",
    errno.EPERM: "run as the directory's owner, or set FEDSITE_HOME to a directory of yours",
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f), then repeat the command",
    errno.ENOENT: "check the path, then repeat the command",
    errno.ENOTDIR: "set FEDSITE_HOME to a directory",
    errno.EISDIR: "move that directory away, then repeat the command",
    errno.ENAMETOOLONG: "set FEDSITE_HOME to a shorter path",
    errno.EIO: "check the disk (dmesg), then repeat the command",
}


def state_home(environment: Mapping[str, str] = os.environ) -> Path:
    """The state directory: `FEDSITE_HOME`, else `$XDG_STATE_HOME/fedsite`, else `~/.local/state/fedsite`."""
    if environment.get("FEDSITE_HOME"):
        return Path(environment["FEDSITE_HOME"]).expanduser().absolute()
    if environment.get("XDG_STATE_HOME"):
        return Path(environment["XDG_STATE_HOME"]).expanduser().absolute() / "fedsite"
    return Path.home() / ".local" / "state" / "fedsite"


def private_directory(path: Path) -> Path:
    """Make `path` (and its parents), mode 0700; one that exists and is ours is closed to others.

    Raises:
        StorageError: it cannot be made, is not a directory, or is somebody else's or everybody's.
    """
    with storage_errors(path):
        new = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in reversed(new):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                give(handle, folder)
            finally:
                os.close(handle)
        found = path.stat()
        if found.st_uid != os.geteuid() and os.geteuid() != 0:
            raise PermissionError(errno.EACCES, "belongs to another user", str(path))
        if found.st_mode & stat.S_ISVTX:
            # Closing /tmp to others, because somebody set FEDSITE_HOME=/tmp, would be our fault.
            raise PermissionError(errno.EACCES, "is a directory shared by all users", str(path))
        if stat.S_IMODE(found.st_mode) & 0o077:
            path.chmod(0o700)
    return path


def write_atomic(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `data` so that a reader, or a crash at any moment, sees the old bytes or the new ones.

    Raises:
        StorageError: the disk is full, read-only, or the directory cannot be written; the old file is untouched.
    """
    with storage_errors(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)  # 0600 from creation
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), mode)
                give(file.fileno(), Path(name))
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
        sync_directory(path.parent)


def give(handle: int, path: Path) -> None:
    """What root has just made in another user's directory becomes that user's, whose agent has to read and write it.

    Args:
        handle: of the file or directory.
        path: where it was made; nothing is done where something else lies there by now, or the directory is root's.
    """
    if os.geteuid() != 0:
        return
    place = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        owner, made = os.fstat(place), os.fstat(handle)
        there = os.stat(path.name, dir_fd=place, follow_symlinks=False)
        same = (there.st_dev, there.st_ino) == (made.st_dev, made.st_ino)
        if owner.st_uid != 0 and same and (stat.S_ISDIR(made.st_mode) or made.st_nlink == 1):
            os.fchown(handle, owner.st_uid, owner.st_gid)
    finally:
        os.close(place)


def sync_directory(path: Path) -> None:
    """Make a rename in `path` survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read(path: Path, *, limit: int = 16 << 20) -> bytes:
    """The bytes of a file of at most `limit` bytes.

    Raises:
        StorageError: missing, unreadable or too large.
    """
    with storage_errors(path), path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise StorageError(f"{path} is larger than {limit} bytes", allowed=f"at most {limit} bytes")
    return data


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Say which path and what to do where the operating system says only a number.

    Raises:
        StorageError: any OSError inside.
    """
    try:
        yield
    except OSError as error:
        where = error.filename or path
        reason = error.strerror or type(error).__name__
        allowed = "a file that is there" if error.errno == errno.ENOENT else "a writable directory with space left"
        remedy = _REMEDIES.get(error.errno or 0, "check the path and its permissions (ls -ld), then repeat the command")
        raise StorageError(f"{where}: {reason}", allowed=allowed, next_step=remedy) from None
