"""Files on a medium that people carry: read and written whole, and nothing but files, whatever somebody put there.

The medium was in other hands. What it holds is believed by its signatures alone (exchange_file.py); that it is a file,
and can be read, is asked here.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from fedsite.protocol.errors import ConfigError, DocumentError, RefusalCode
from fedsite.protocol.exchange_file import MAX_FILE
from fedsite.protocol.storage import read, storage_errors


def read_parcel(path: Path) -> bytes:
    """The bytes of a file that was carried here.

    Raises:
        ConfigError: there is none, or it is something else than a file. DocumentError: too large; nothing was read.
        StorageError: it cannot be read.
    """
    _only_files(path)
    with storage_errors(path):
        size = path.stat().st_size
    if size > MAX_FILE:
        raise DocumentError(
            f"{path} has {size} bytes",
            allowed=f"at most {MAX_FILE}",
            next_step="check that it is the file that was exported",
            refusal=RefusalCode.TOO_LARGE,
        )
    return read(path, limit=MAX_FILE)


def write_parcel(path: Path, data: bytes) -> None:
    """Write a file to be carried, whole or not at all; on whatever file system the medium has.

    Raises:
        ConfigError: something else than a file is there. StorageError: the medium is full, read-only or away.
    """
    if os.path.lexists(path):
        _only_files(path)
    new = path.with_name(f".{path.name}.new")
    with storage_errors(path):
        # Not `write_atomic`: a stick's file system may know no modes, and refuses to have them set. And whoever had the
        # stick may have left a link there, to a file of this host's.
        new.unlink(missing_ok=True)
        try:
            with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)
        except BaseException:
            with contextlib.suppress(OSError):
                new.unlink()
            raise


def _only_files(path: Path) -> None:
    """Refuse what is not there, and whatever is no file of its own: a link leads off the medium, a device has no end.

    Raises:
        ConfigError: it is none.
    """
    with storage_errors(path):
        mode = path.lstat().st_mode if os.path.lexists(path) else None
    if mode is not None and stat.S_ISREG(mode):
        return
    kinds = ((stat.S_ISLNK, "a symbolic link"), (stat.S_ISDIR, "a directory"))
    what = "no file" if mode is None else next((name for test, name in kinds if test(mode)), "a device, pipe or socket")
    raise ConfigError(
        f"{path} is {what}" if mode is not None else f"no file {path}",
        allowed="a file that was exported",
        next_step="check the path",
    )
