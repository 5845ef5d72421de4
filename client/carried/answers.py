"""`site/exchange/`: answers that wait to be carried to the server, until they expire or their run has ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from fedsite.protocol import documents, instants, messages
from fedsite.protocol.errors import RefusalCode
from fedsite.protocol.exchange_count import Counts
from fedsite.protocol.kept import checked, decode, encode, keep
from fedsite.protocol.messages import Frame, Header
from fedsite.protocol.storage import private_directory, storage_errors

FOLDER: Final = "exchange"
_SUFFIX: Final = ".answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """An answer as it is kept."""

    instruction: str  # hash of what it answers, hex
    run_id: str
    kind: str
    round: int
    expires: datetime  # when its instruction does
    outcome: str
    code: RefusalCode | None
    reply: Frame


class CarriedAnswers:
    """Files of one site; one writer, who holds the agent's lock."""

    def __init__(self, directory: Path) -> None:
        """Open the place below the site's state directory, made when it is not there."""
        self._folder = private_directory(directory / FOLDER)

    @property
    def counts(self) -> Counts:
        """Numbers of the files from and to the server."""
        return Counts(self._folder / "count.json")

    def find(self, instruction: str) -> Answered | None:
        """The answer to the instruction with this hash."""
        path = self._path(instruction)
        return _read(path) if path.exists() else None

    def keep(self, instruction: str, header: Header, reply: Frame) -> Answered:
        """Keep an answer until its instruction expires.

        Raises:
            StorageError: the disk is full; the instruction is answered again, in the same bytes, by another import.
        """
        about = {"expires": header.expires}
        keep(self._path(instruction), documents.canonical(about) + b"\n" + encode(reply))
        return _read(self._path(instruction))

    def all(self, now: datetime) -> list[Answered]:
        """What is still worth carrying; what expired is removed."""
        found = []
        for path, answered in kept(self._folder):
            if now >= answered.expires:
                with storage_errors(path):
                    path.unlink(missing_ok=True)
            else:
                found.append(answered)
        return sorted(found, key=lambda item: (item.run_id, item.round, item.kind))

    def ended(self, run_id: str) -> None:
        """Drop the answers of a run that is over."""
        for path, answered in kept(self._folder):
            if answered.run_id == run_id:
                with storage_errors(path):
                    path.unlink(missing_ok=True)

    def over(self, run_id: str) -> bool:
        """Whether the end of a run is among the answers."""
        return any(item.run_id == run_id and item.kind == "finish" for _, item in kept(self._folder))

    def _path(self, instruction: str) -> Path:
        return self._folder / f"{instruction}{_SUFFIX}"


def kept(folder: Path) -> list[tuple[Path, Answered]]:
    """Every answer in the folder, whether it has expired or not.

    Raises:
        IntegrityError, StorageError: one is damaged, or cannot be read.
    """
    return [(path, _read(path)) for path in sorted(folder.glob(f"*{_SUFFIX}"))]


def summary(item: Answered) -> dict[str, Any]:
    """One answer, for people and scripts."""
    code = None if item.code is None else str(item.code)
    return {"run_id": item.run_id, "kind": item.kind, "round": item.round, "outcome": item.outcome, "code": code}


def _read(path: Path) -> Answered:
    about, _, data = checked(path).partition(b"\n")
    frame = decode(data)
    reply = messages.read_reply(frame.header)
    return Answered(
        instruction=path.stem,
        run_id=reply.run_id,
        kind=reply.kind,
        round=reply.round,
        expires=instants.read(str(documents.parse(about)["expires"])),
        outcome=reply.outcome,
        code=reply.code,
        reply=frame,
    )
