"""Is an audit log whole? Reads its lines once and names the first entry that was edited, cut, moved or is missing.

Rules, for the entry expected next:
* a line that is no canonical entry, or that the log's key did not sign: `edited`;
* a signed entry that was here before: `repeated`; one that belongs further down: `moved`; one that stands nowhere:
  `missing`; one with the right number that follows another entry than the one before it: `foreign`, of another history
  (its owner went back to a backup, or began again);
* the log may begin later than with entry 1 only where an entry in it says that the older ones are no longer kept;
* every head that somebody else holds must be an entry of this log: another hash is `rewritten`, an entry past the end
  is `cut`. Without such heads a cut end cannot be seen by anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NoReturn

from fedsite.protocol import audit
from fedsite.protocol.audit import Entry, Head
from fedsite.protocol.errors import FedsiteError
from fedsite.protocol.keys import VerifyKey

Fault = Literal["edited", "torn", "repeated", "moved", "missing", "foreign", "rewritten", "cut"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line and where it stands ("file:line"); `whole` when its end is there."""

    data: bytes
    where: str
    whole: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldHead:
    """A head that somebody else holds, and who."""

    head: Head
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """The first thing that is wrong."""

    entry: int  # sequence number
    fault: Fault
    where: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found."""

    signer: str  # id of the key that signed, hex; empty where no entry names it
    first: int  # sequence number of the first entry, 0 without any
    head: Head | None  # of the entries that are good
    held: int  # heads of others that agree
    problem: Problem | None
    heads: Mapping[str, Sequence[Head]] = field(default_factory=dict)  # of other logs, as this one recorded them

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.problem is None


class _FoundError(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.text)
        self.problem = problem


def verify(lines: Iterable[Line], *, signer: str = "", held: Sequence[HeldHead] = ()) -> Verdict:
    """Check a log from its first line to its last.

    Args:
        lines: of all its files, in order.
        signer: id of the key that must have signed it; empty to take the key that its first entry names.
        held: heads of this log that somebody else holds.
    """
    return _Check(iter(lines), signer, held).run()


class _Check:
    def __init__(self, lines: Iterator[Line], signer: str, held: Sequence[HeldHead]) -> None:
        self._lines = lines
        self._signer = signer
        self._key: VerifyKey | None = None
        self._held: dict[int, list[HeldHead]] = {}
        for head in sorted(held, key=lambda found: found.head.sequence):
            self._held.setdefault(head.head.sequence, []).append(head)
        self._head: Head | None = None
        self._first: Entry | None = None
        self._agree = 0
        self._heads: dict[str, list[Head]] = {}
        self._dropped: set[tuple[int, str]] = set()

    def run(self) -> Verdict:
        problem = None
        try:
            for line in self._lines:
                self._take(line)
            self._check_beginning()
            self._check_end()
        except _FoundError as error:
            problem = error.problem
        return Verdict(
            signer=self._key.id if self._key is not None else self._signer,
            first=0 if self._first is None else self._first.sequence,
            head=self._head,
            held=self._agree,
            problem=problem,
            heads=self._heads,
        )

    @property
    def _expected(self) -> int:
        return 1 if self._head is None else self._head.sequence + 1

    def _take(self, line: Line) -> None:
        if not line.whole:
            self._fail("torn", line, "has no end of line: its writer died, or it was cut there")
        signed = self._signed(line)
        if signed is None:
            self._fail("edited", line, "is not as it was signed")
        entry, head = signed
        if self._head is None:
            self._begin(entry, line)
        elif entry.sequence != self._head.sequence + 1:
            self._misplaced(entry, line)
        elif entry.previous != self._head.hash:
            text = f"follows another entry {self._head.sequence} than the one before it: it is of another history"
            self._fail("foreign", line, text)
        self._head = head
        self._compare(head, line)
        for name, other in entry.heads.items():
            self._heads.setdefault(name, []).append(other)
        if entry.kind == audit.DROPPED:
            self._dropped.add((int(entry.facts.get("through", -1)), str(entry.facts.get("hash", ""))))

    def _begin(self, entry: Entry, line: Line) -> None:
        self._first = entry
        if self._key is None:
            self._fail("missing", line, "is missing: the log begins with one that does not say whose it is", entry=1)
        begins = audit.beginning(self._key)
        if entry.sequence == 1 and entry.previous != begins.hash:
            self._fail("foreign", line, "does not begin a log of its signer")

    def _signed(self, line: Line) -> tuple[Entry, Head] | None:
        """The entry of a line when the log's key signed it, and the head it makes."""
        try:
            if self._key is not None:
                return audit.read_signed(line.data, self._key)
            entry = audit.read(line.data)
            key = audit.key_of(entry)
            if key is None:
                return entry, entry.head  # of nobody, and refused as a beginning
            found = audit.read_signed(line.data, key)
        except FedsiteError:
            return None
        if self._signer and key.id != self._signer:
            text = f"was signed by {key.id}, and not by {self._signer}"
            raise _FoundError(self._problem("foreign", line, text))
        self._key = key
        return found

    def _misplaced(self, entry: Entry, line: Line) -> None:
        wanted = self._expected
        if entry.sequence < wanted:
            self._fail("repeated", line, f"stands here again, after entry {wanted - 1}", entry=entry.sequence)
        for other in self._lines:
            found = self._signed(other) if other.whole else None
            if found is not None and found[0].sequence == wanted:
                self._fail("moved", other, f"stands here, and belongs before entry {entry.sequence} at {line.where}")
        after = f": entry {wanted - 1} is followed by entry {entry.sequence}"
        self._fail("missing", line, f"is missing{after}")

    def _check_beginning(self) -> None:
        first = self._first
        if first is None or first.sequence == 1 or (first.sequence - 1, first.previous) in self._dropped:
            return
        where = Line(b"", "the beginning")
        self._fail("missing", where, f"is missing: the log begins with entry {first.sequence}", entry=1)

    def _compare(self, head: Head, line: Line) -> None:
        for found in self._held.pop(head.sequence, []):
            if found.head.hash != head.hash:
                text = f"is not the one that {found.by} holds the hash of: this log was rewritten there or before"
                self._fail("rewritten", line, text, entry=head.sequence)
            self._agree += 1

    def _check_end(self) -> None:
        """Heads past the end; those of entries that are no longer kept, and said so, cannot be compared."""
        last = 0 if self._head is None else self._head.sequence
        for sequence in sorted(self._held):
            if sequence > last:
                by = self._held[sequence][0].by
                text = f"is missing: the log ends with entry {last}, and {by} holds the hash of entry {sequence}"
                self._fail("cut", Line(b"", "the end"), text)

    def _fail(self, fault: Fault, line: Line, text: str, *, entry: int | None = None) -> NoReturn:
        raise _FoundError(self._problem(fault, line, text, entry=entry))

    def _problem(self, fault: Fault, line: Line, text: str, *, entry: int | None = None) -> Problem:
        number = self._expected if entry is None else entry
        return Problem(entry=number, fault=fault, where=line.where, text=f"entry {number} {text}")
