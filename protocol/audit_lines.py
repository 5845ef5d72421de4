"""Audit logs on the disk, read only: their files, their lines, and which of the given files belong to one log."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from fedsite.protocol import audit, ids, storage
from fedsite.protocol.audit import Entry, Head
from fedsite.protocol.audit_check import Line
from fedsite.protocol.errors import ConfigError, FedsiteError, IntegrityError

SUFFIX: Final = ".jsonl"
_TAIL = 1 << 16  # bytes read at once in search of the last line


def name(sequence: int) -> str:
    """Of the file whose first entry has this number."""
    return f"{sequence:012d}{SUFFIX}"


def files(folder: Path) -> list[Path]:
    """The files of a log, in order."""
    with storage.storage_errors(folder):
        if not folder.is_dir():
            return []
        return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX and path.stem.isdigit())


def lines(paths: Sequence[Path]) -> Iterator[Line]:
    """The lines of files, one at a time; one that is longer than any entry comes in pieces that are none.

    Raises:
        StorageError: one cannot be read.
    """
    for path in paths:
        with storage.storage_errors(path), path.open("rb") as file:
            number = 0
            while data := file.readline(audit.MAX_LINE + 2):
                number += 1
                whole = data.endswith(b"\n")
                yield Line(data[:-1] if whole else data, f"{path}:{number}", whole)


def backwards(paths: Sequence[Path]) -> Iterator[bytes]:
    """The whole lines of files, the newest first, without their ends; what stands after the last is left out.

    Raises:
        StorageError: one cannot be read.
    """
    for path in reversed(paths):
        with storage.storage_errors(path), path.open("rb") as file:
            at, rest, ended = file.seek(0, os.SEEK_END), b"", False
            while at > 0:
                step = min(_TAIL, at)
                at -= step
                file.seek(at)
                first, *whole = (file.read(step) + rest).split(b"\n")
                yield from reversed(whole if ended else whole[:-1])
                rest, ended = (first, True) if whole else (first, ended)
            if ended:
                yield rest


def last_line(path: Path, size: int) -> tuple[bytes | None, bytes]:
    """The last whole line of a file of `size` bytes, without its end, and what stands after it.

    Raises:
        IntegrityError: that is longer than any entry.
    """
    data, at = b"", size
    with path.open("rb") as file:
        while at > 0 and data.count(b"\n") < 2 and len(data) <= 2 * audit.MAX_LINE:
            step = min(_TAIL, at)
            at -= step
            file.seek(at)
            data = file.read(step) + data
    whole, end, rest = data.rpartition(b"\n")
    if at > 0 and not end:
        raise IntegrityError(
            f"{path} ends with a line longer than any entry",
            allowed=f"at most {audit.MAX_LINE} bytes",
            next_step=f"keep {path.parent} for whoever looks into it and move it away, and a new log begins",
        )
    return (whole.rpartition(b"\n")[2], rest) if end else (None, rest)


def logs(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """The files at these paths by the id of the key that has to have signed them, each log's in order.

    A folder stands for every log in it and below it. Whose log a file is of says the folder it lies in, as it was
    written; else the file's own first entry; else it stands for itself, under its path.

    Raises:
        ConfigError: nothing is there.
    """
    found: dict[str, list[Path]] = {}
    for path in paths:
        if not path.exists():
            raise ConfigError(f"{path} is not there", allowed="a file or folder of a log", next_step="check the path")
        below = sorted(file for file in path.rglob(f"*{SUFFIX}") if file.stem.isdigit()) if path.is_dir() else [path]
        for file in below:
            known = found.setdefault(_named(file.absolute().parent.name) or _signer(file) or str(file), [])
            if file not in known:
                known.append(file)
    return {signer: _once(sorted(log, key=_first)) for signer, log in found.items()}


def head(paths: Sequence[Path]) -> Entry | None:
    """The last whole entry of a log; nothing before it is looked at.

    Raises:
        DocumentError, IntegrityError: its last line is no entry.
        StorageError: a file cannot be read.
    """
    for path in reversed(paths):
        with storage.storage_errors(path):
            line, _ = last_line(path, path.stat().st_size)
        if line is not None:
            return audit.read(line)
    return None


def holds(folder: Path, wanted: Head) -> bool:
    """Whether a log has this very entry; true, too, where it is so old that it is kept no longer.

    Raises:
        StorageError: a file cannot be read.
    """
    found = files(folder)
    before = [path for path in found if int(path.stem) <= wanted.sequence]
    if not before:
        return bool(found)
    number = b'"sequence":%d,' % wanted.sequence
    for line in backwards(before[-1:]):
        if number in line:
            with contextlib.suppress(FedsiteError):
                if audit.read(line).head == wanted:
                    return True
    return False


def heard(folder: Path, newest: int) -> dict[str, Head]:
    """The last head of each other log that the `newest` files of a log tell of, by signer's id.

    Raises:
        StorageError: a file cannot be read.
    """
    found: dict[str, Head] = {}
    for line in backwards(files(folder)[-newest:]):
        if b'"heads":{}' not in line:
            # It is our own log: an entry of a thousand sites is not checked letter by letter.
            with contextlib.suppress(FedsiteError, ValueError, KeyError, TypeError, AttributeError):
                for signer, head in json.loads(line)["heads"].items():
                    if signer not in found:
                        found[signer] = audit.read_head(head)
    return found


def _once(log: Sequence[Path]) -> list[Path]:
    """Without copies that were made when a file was not full yet: what begins another one of the same number."""
    found: list[Path] = []
    for path in log:
        if found and found[-1].name == path.name:
            with storage.storage_errors(path):
                first, second = sorted((found[-1], path), key=lambda one: one.stat().st_size)
                if second.read_bytes().startswith(first.read_bytes()):
                    found[-1] = second
                    continue
        found.append(path)
    return found


def _named(folder: str) -> str:
    try:
        return ids.id_bytes(folder).hex()
    except FedsiteError:
        return ""


def _signer(path: Path) -> str:
    try:
        key = audit.key_of(audit.read(_first_line(path)))
    except FedsiteError:
        return ""
    return "" if key is None else key.id


def _first(path: Path) -> tuple[int, str]:
    """The number of a file's first entry: its name says it, also where that entry is damaged."""
    if path.stem.isdigit():
        return int(path.stem), str(path)
    try:
        return audit.read(_first_line(path)).sequence, str(path)
    except FedsiteError:
        return 0, str(path)


def _first_line(path: Path) -> bytes:
    with storage.storage_errors(path), path.open("rb") as file:
        return file.readline(audit.MAX_LINE + 2).rstrip(b"\n")
