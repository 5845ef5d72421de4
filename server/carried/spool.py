"""`server/exchange/<site id>/`: what waits to be carried to a site, and what was carried back, as files.

`out` holds the open instructions, `in` the verified replies that the driver of the run has not read yet. Drivers put
and take, `fedsite server exchange` copies out and in; every file is written whole, and none of them waits for another.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from fedsite.protocol import ids, instants, signing
from fedsite.protocol.errors import FedsiteError, RefusalCode, StorageError
from fedsite.protocol.exchange_count import Counts
from fedsite.protocol.exchange_file import MAX_FRAMES
from fedsite.protocol.kept import checked, decode, encode, keep
from fedsite.protocol.messages import Frame, Header, read_header
from fedsite.protocol.storage import private_directory, storage_errors

MAX_BYTES: Final = 4 << 30  # of one site's open instructions
_INSTRUCTION: Final = ".instruction"
_REPLY: Final = ".reply"


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """An instruction that was not answered and has not expired."""

    name: str
    header: Header
    frame: Frame


class Spool:
    """The files of one site."""

    def __init__(self, folder: Path, site_id: str) -> None:
        """Name the place; it is made when something is put there.

        Args:
            folder: `server/exchange`.
            site_id: hex.
        """
        ids.id_bytes(site_id)
        self.site_id = site_id
        self._folder = folder / site_id
        self._out, self._in = self._folder / "out", self._folder / "in"

    @property
    def counts(self) -> Counts:
        """Numbers of the files to and from this site."""
        return Counts(self._folder / "count.json")

    def put(self, frame: Frame) -> str:
        """Offer an instruction in place of earlier ones of its run; returns its name.

        Raises:
            StorageError: the disk is full, or too much waits already.
        """
        self._make()
        header = read_header(frame.header)
        for path in self._out.glob(f"{header.run_id}-*{_INSTRUCTION}"):
            # A run asks a site one thing at a time: what came before is closed, and would be work for nothing.
            path.unlink(missing_ok=True)
        with storage_errors(self._out):
            waiting = [path.stat().st_size for path in self._out.iterdir()]
        if len(waiting) >= MAX_FRAMES or sum(waiting) + frame.size > MAX_BYTES:
            raise StorageError(
                f"{len(waiting)} instructions of {sum(waiting)} bytes wait for site {self.site_id[:8]}",
                allowed=f"at most {MAX_FRAMES} of {MAX_BYTES} bytes",
                next_step="stop runs of which nothing is carried: fedsite runs stop",
                refusal=RefusalCode.TOO_LARGE,
            )
        name = f"{header.run_id}-{signing.instruction_hash(frame)}"
        keep(self._out / f"{name}{_INSTRUCTION}", encode(frame))
        return name

    def open(self, now: datetime) -> list[Open]:
        """What waits for an answer, oldest run first; what expired is removed."""
        found = []
        for path in sorted(self._out.glob(f"*{_INSTRUCTION}")):
            try:
                frame = decode(checked(path))
                header = read_header(frame.header)
            except (FedsiteError, FileNotFoundError):
                if path.exists():  # else a driver took it away meanwhile
                    raise
                continue
            if now >= instants.read(header.expires):
                self.close(path.stem)
            elif not self._reply(path.stem).exists():
                found.append(Open(name=path.stem, header=header, frame=frame))
        return found

    def answer(self, name: str, reply: Frame) -> None:
        """Take in the verified reply to an open instruction."""
        self._make()
        keep(self._reply(name), encode(reply))

    def answered(self, name: str) -> bool:
        """Whether its reply is here."""
        return self._reply(name).exists()

    def take(self, name: str) -> Frame | None:
        """Its reply, once."""
        path = self._reply(name)
        if not path.exists():
            return None
        frame = decode(checked(path))
        self.close(name)
        return frame

    def waits(self, name: str) -> bool:
        """Whether its instruction is still on offer."""
        return (self._out / f"{name}{_INSTRUCTION}").exists()

    def close(self, name: str) -> None:
        """Remove an instruction and its reply."""
        for path in (self._out / f"{name}{_INSTRUCTION}", self._reply(name)):
            with storage_errors(path):
                path.unlink(missing_ok=True)

    def withdraw(self, run_id: str) -> None:
        """Remove what an earlier driver of a run left."""
        for folder in (self._out, self._in):
            for path in folder.glob(f"{run_id}-*"):
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other commands that export or import for this site waiting."""
        self._make()
        with storage_errors(self._folder):
            handle = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _make(self) -> None:
        for folder in (self._folder.parent, self._folder, self._out, self._in):
            private_directory(folder)

    def _reply(self, name: str) -> Path:
        return self._in / f"{name}{_REPLY}"
