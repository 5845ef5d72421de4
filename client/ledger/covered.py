"""Whose records a run reads, as the budget keeps it: keyed hashes of entity names, and the time covered of each.

Names never reach the disk. The key is the site's own, so that nobody who finds the file can try names; what was written
under another key (a site that joined anew with a new identity), or with names out of other columns (which the centre
chooses), cannot be compared, and counts as everything.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fedsite.protocol import documents
from fedsite.telemetry.coverage import EVER, SITE, Coverage, Interval

PURPOSE: Final = "ledger"  # what the key is derived from the site's identity for
_RECORD: Final = struct.Struct("<16sdd")
_WHOLE: Final = bytes(16)  # stands for the whole site, which holds every entity
_APART: Final = ""  # clock of intervals that are on several
_KEY: Final = 32  # hex digits that say which key; those after them say which columns names came out of


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """Intervals (first and last, both included) by an entity's keyed hash, in times of one clock."""

    key: str  # which key the hashes were made with, and of names out of which columns, hex
    clock: str
    spans: Mapping[bytes, Interval]

    def meets(self, other: Covered, *, timed: bool) -> bool:
        """Whether a record may be in both; without `timed`, whether an entity is, at whatever times."""
        if self.key[:_KEY] != other.key[:_KEY]:
            return True
        if _WHOLE in self.spans or _WHOLE in other.spans:
            pairs = [(a, b) for a in self.spans.values() for b in other.spans.values()]
        elif self.key != other.key:
            return bool(self.spans and other.spans)
        else:
            pairs = [(self.spans[name], other.spans[name]) for name in self.spans.keys() & other.spans.keys()]
        if not timed or self.clock != other.clock or self.clock == _APART:
            return bool(pairs)
        return any(a[0] <= b[1] and b[0] <= a[1] for a, b in pairs)

    def within(self, other: Covered) -> bool:
        """Whether `other` covers everything of this, so that what was checked for it holds here."""
        whole = other.spans.get(_WHOLE)
        if self.key[:_KEY] != other.key[:_KEY] or (self.key != other.key and whole is None):
            return False
        if self.clock != other.clock:
            return whole == EVER
        held = ((span, other.spans.get(name, whole)) for name, span in self.spans.items())
        return all(wide is not None and wide[0] <= span[0] and span[1] <= wide[1] for span, wide in held)

    def joined(self, other: Covered) -> Covered:
        """What either covers, as one interval an entity: rather too much than too little."""
        if self.key != other.key:
            return everything(other.key[:_KEY])
        if self.clock != other.clock:
            return Covered(key=self.key, clock=_APART, spans=dict.fromkeys([*self.spans, *other.spans], EVER))
        spans = dict(self.spans)
        for name, (first, last) in other.spans.items():
            known = spans.get(name, (first, last))
            spans[name] = (min(first, known[0]), max(last, known[1]))
        return Covered(key=self.key, clock=self.clock, spans=spans)

    def pack(self) -> bytes:
        """The intervals as bytes, in a fixed order: 32 an entity."""
        return b"".join(_RECORD.pack(name, *self.spans[name]) for name in sorted(self.spans))


def unpack(key: str, clock: str, data: bytes) -> Covered:
    """The inverse of `Covered.pack`."""
    spans = {name: (first, last) for name, first, last in _RECORD.iter_unpack(data)}
    return Covered(key=key, clock=clock, spans=spans)


def hashed(found: Coverage, key: bytes) -> Covered:
    """A coverage with its names hidden; one that names nothing covers everything.

    Args:
        found: as the worker tells it.
        key: the site's, for this purpose alone.
    """
    if not found.entities:
        return everything(key_id(key))
    spans = {_WHOLE if name == SITE else _hash(key, b"entity", name): span for name, span in found.entities.items()}
    return Covered(key=key_id(key) + _columns_id(key, found.columns), clock=found.clock, spans=spans)


def everything(key: str) -> Covered:
    """All entities at all times: what is taken for covered where nobody can say."""
    return Covered(key=key, clock=_APART, spans={_WHOLE: EVER})


def unknown() -> Covered:
    """Of a run from before anybody noted whose records it read: it meets everything, under whichever key."""
    return everything("")


def key_id(key: bytes) -> str:
    """Names a key without telling it."""
    return _hash(key, b"key", "").hex()


def _columns_id(key: bytes, columns: Sequence[str]) -> str:
    """Of the columns that name an entity together; empty where none do."""
    return _hash(key, b"columns", documents.canonical(list(columns)).decode()).hex() if columns else ""


def _hash(key: bytes, kind: bytes, name: str) -> bytes:
    return hmac.digest(key, kind + b"\0" + name.encode("utf-8", "surrogatepass"), hashlib.sha256)[:16]
