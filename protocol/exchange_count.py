"""Numbers of the files that two ends carry to each other: each is given once, and taken in once."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Final

from fedsite.protocol import documents
from fedsite.protocol.errors import DocumentError, RefusalCode, TrustError
from fedsite.protocol.exchange_file import Head, Parcel
from fedsite.protocol.storage import read, write_atomic

SCHEMA: Final = "fedsite.exchange-count/1"
REMEMBERED: Final = 256  # numbers; whatever is below the smallest of them counts as taken in


class Counts:
    """One file; its user holds a lock of its own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def next(self, now: datetime) -> int:
        """A number for a file that goes out.

        It is above every earlier one and at least the time in milliseconds: an end that is restored from a backup does
        not give its numbers again.
        """
        state = self._read()
        state["sent"] = max(state["sent"] + 1, int(now.timestamp() * 1000))
        write_atomic(self._path, documents.canonical(state))
        return int(state["sent"])

    def known(self, parcel: Parcel) -> bool:
        """Whether this very file was taken in before.

        Raises:
            TrustError: its number was another file's, or is older than what is remembered (`replayed`).
        """
        state = self._read()
        found = state["received"].get(str(parcel.head.sequence))
        if found == parcel.digest:
            return True
        if found is not None:
            raise _replayed(parcel.head, "another file had this number")
        if parcel.head.sequence <= state["floor"]:
            raise _replayed(parcel.head, f"numbers up to {state['floor']} are closed")
        return False

    def note(self, parcel: Parcel) -> None:
        """Remember that it was taken in."""
        state = self._read()
        state["received"][str(parcel.head.sequence)] = parcel.digest
        for number in sorted(map(int, state["received"]))[:-REMEMBERED]:
            del state["received"][str(number)]
            state["floor"] = number
        write_atomic(self._path, documents.canonical(state))

    def _read(self) -> dict[str, Any]:
        if not self._path.exists():
            return {"schema": SCHEMA, "sent": 0, "received": {}, "floor": 0}
        state = documents.document(read(self._path), SCHEMA)
        numbers = [state.get("sent"), state.get("floor"), *_numbers(state.get("received"))]
        if not all(isinstance(number, int) for number in numbers):
            raise DocumentError(f"{self._path} is damaged", next_step="remove it: files are then numbered by the time")
        return state


def _numbers(received: Any) -> list[int | None]:
    if not isinstance(received, dict):
        return [None]
    return [int(name) if name.isdecimal() and isinstance(digest, str) else None for name, digest in received.items()]


def _replayed(head: Head, why: str) -> TrustError:
    return TrustError(
        f"file {head.sequence} of site {head.site_id[:8]} does not count: {why}",
        allowed="each file once",
        next_step="import the newest file; what is still open is in it",
        refusal=RefusalCode.REPLAYED,
    )
