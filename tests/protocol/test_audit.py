"""A log of seven entries, and everything somebody without its key, or with it, could do to it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.protocol import audit, documents, shape
from fedsite.protocol.audit import Head
from fedsite.protocol.audit_check import HeldHead, Line, Verdict, verify
from fedsite.protocol.errors import DocumentError, IntegrityError, TrustError
from fedsite.protocol.keys import SigningKey
from tests.protocol.conftest import key_of

KEY = key_of("site")
OTHER = key_of("another site")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
COUNT = 7


def chain(count: int = COUNT, *, key: SigningKey = KEY, word: str = "x") -> tuple[list[bytes], list[Head]]:
    head, lines, heads = audit.beginning(key.public), [], []
    for number in range(1, count + 1):
        first = number == 1
        line, head = audit.make(
            head,
            key,
            kind=audit.BEGUN if first else "released",
            facts={"key": key.public.text} if first else {"number": number, "word": word},
            at="2026-01-02T03:04:05Z",
            salt=bytes([number]) * audit.SALT_BYTES,
        )
        lines.append(line)
        heads.append(head)
    return lines, heads


LINES, HEADS = chain()
TEXT = b"\n".join(LINES) + b"\n"


def split(data: bytes) -> list[Line]:
    parts = data.split(b"\n")
    last = [] if parts[-1] == b"" else [Line(parts[-1], f"log:{len(parts)}", False)]
    return [Line(part, f"log:{number}") for number, part in enumerate(parts[:-1], start=1)] + last


def judged(lines: Sequence[bytes], **held: Any) -> Verdict:
    return verify(split(b"".join(line + b"\n" for line in lines)), **held)


def fault(verdict: Verdict) -> tuple[int, str]:
    assert verdict.problem is not None
    return verdict.problem.entry, verdict.problem.fault


def holds(head: Head) -> list[HeldHead]:
    return [HeldHead(head=head, by="the centre")]


def test_a_whole_log() -> None:
    verdict = judged(LINES, held=[HeldHead(head=head, by="the centre") for head in HEADS])
    assert (verdict.ok, verdict.signer, verdict.first, verdict.held) == (True, KEY.public.id, 1, COUNT)
    assert verdict.head == HEADS[-1]


@given(at=st.integers(0, len(TEXT) - 1), byte=st.integers(0, 255))
def test_any_byte_that_is_changed_is_found_and_its_entry_named(at: int, byte: int) -> None:
    if TEXT[at] == byte:
        return
    changed = TEXT[:at] + bytes([byte]) + TEXT[at + 1 :]
    entry = TEXT[:at].count(b"\n") + 1  # the end of a line belongs to it
    verdict = verify(split(changed))
    assert fault(verdict)[0] == entry


def test_every_byte_counts() -> None:
    lines = LINES[:3]
    text = b"\n".join(lines) + b"\n"
    for at, byte in enumerate(text):
        changed = text[:at] + bytes([byte ^ 1]) + text[at + 1 :]
        assert fault(verify(split(changed)))[0] == text[:at].count(b"\n") + 1


@given(index=st.integers(0, COUNT - 2))
def test_a_dropped_line_is_named(index: int) -> None:
    assert fault(judged(LINES[:index] + LINES[index + 1 :])) == (index + 1, "missing")


@given(index=st.integers(0, COUNT - 1), to=st.integers(0, COUNT))
def test_a_line_that_stands_twice_is_named(index: int, to: int) -> None:
    lines = [*LINES[:to], LINES[index], *LINES[to:]]
    if to >= index:
        assert fault(judged(lines)) == (index + 1, "repeated")
    elif to == 0:
        assert fault(judged(lines)) == (1, "missing")  # whose log it is, is not said where it begins
    else:
        assert fault(judged(lines)) == (to + 1, "moved")  # too early: what belongs there is further down


@given(pair=st.tuples(st.integers(1, COUNT - 1), st.integers(1, COUNT - 1)).filter(lambda pair: pair[0] < pair[1]))
def test_two_lines_that_changed_places_are_named(pair: tuple[int, int]) -> None:
    lines = list(LINES)
    lines[pair[0]], lines[pair[1]] = lines[pair[1]], lines[pair[0]]
    assert fault(judged(lines)) == (pair[0] + 1, "moved")


@given(kept=st.integers(0, COUNT - 1), data=st.data())
def test_an_end_that_was_cut_is_seen_against_a_head_somebody_else_holds(kept: int, data: st.DataObject) -> None:
    head = HEADS[data.draw(st.integers(kept, COUNT - 1))]
    assert judged(LINES[:kept]).ok  # nobody can see it in the log itself
    assert fault(judged(LINES[:kept], held=holds(head))) == (kept + 1, "cut")


@given(which=st.integers(1, COUNT - 1))
def test_a_log_written_anew_by_its_owner_is_seen_against_a_head(which: int) -> None:
    anew, _ = chain(word="y")
    assert judged(anew).ok
    assert judged(anew, held=holds(HEADS[0])).ok  # the first entry is the same in both
    assert fault(judged(anew, held=holds(HEADS[which]))) == (which + 1, "rewritten")


@given(which=st.integers(2, COUNT - 1))
def test_an_entry_of_another_history_is_named(which: int) -> None:
    anew, _ = chain(word="y")
    assert fault(judged([*LINES[:which], *anew[which:]])) == (which + 1, "foreign")


def test_an_entry_of_somebody_else_is_named() -> None:
    theirs, _ = chain(key=OTHER)
    assert fault(judged([*LINES[:3], theirs[3], *LINES[4:]])) == (4, "edited")
    assert fault(judged(theirs, signer=KEY.public.id)) == (1, "foreign")
    assert judged(theirs, signer=OTHER.public.id).ok


def test_a_last_line_without_its_end_is_torn() -> None:
    assert fault(verify(split(TEXT[:-1]))) == (COUNT, "torn")
    assert fault(verify(split(TEXT[:-20]))) == (COUNT, "torn")


def test_nothing_at_all_is_nothing_wrong_until_somebody_holds_a_head() -> None:
    assert judged([]).ok
    assert fault(judged([], held=holds(HEADS[2]))) == (1, "cut")


def test_a_beginning_is_missed_unless_an_entry_says_that_it_was_dropped() -> None:
    first = (audit.CONTINUED, {"key": KEY.public.text})
    line, head = audit.make(HEADS[4], KEY, kind=first[0], facts=first[1], at=at(), salt=bytes(16))
    assert fault(judged([line])) == (1, "missing")
    facts = {"through": HEADS[4].sequence, "hash": HEADS[4].hash}
    said, _ = audit.make(head, KEY, kind=audit.DROPPED, facts=facts, at=at(), salt=bytes(16))
    verdict = judged([line, said], held=holds(HEADS[2]))
    assert (verdict.ok, verdict.first, verdict.held) == (True, 6, 0)
    lie, _ = audit.make(head, KEY, kind=audit.DROPPED, facts={**facts, "through": 4}, at=at(), salt=bytes(16))
    assert fault(judged([line, lie])) == (1, "missing")


def at() -> str:
    return "2026-01-02T03:04:05Z"


def test_heads_of_others_are_told() -> None:
    line, _ = audit.make(
        HEADS[-1], KEY, kind="released", facts={}, at=at(), salt=bytes(16), heads={OTHER.public.id: HEADS[2]}
    )
    assert judged([*LINES, line]).heads == {OTHER.public.id: [HEADS[2]]}


def test_an_entry_reads_back() -> None:
    entry = audit.read(LINES[3])
    assert (entry.sequence, entry.kind, entry.facts["number"]) == (4, "released", 4)
    assert audit.read_signed(LINES[3], KEY.public) == (entry, HEADS[3])
    assert entry.head == HEADS[3]
    assert documents.canonical(shape.plain(entry)) == LINES[3]
    with pytest.raises(TrustError):
        audit.read_signed(LINES[3], OTHER.public)


def test_another_spelling_is_no_entry() -> None:
    with pytest.raises(IntegrityError):
        audit.read(json.dumps(json.loads(LINES[3])).encode())
    upper = LINES[3].replace(audit.read(LINES[3]).signature.encode(), audit.read(LINES[3]).signature.upper().encode())
    with pytest.raises(TrustError):
        audit.read_signed(upper, KEY.public)


def test_the_salt_hides_what_an_entry_says() -> None:
    made = {
        audit.make(HEADS[0], KEY, kind="refused", facts={}, at=at(), salt=salt)[1].hash
        for salt in (bytes(16), bytes([1]) * 16)
    }
    assert len(made) == 2


@pytest.mark.parametrize(
    "value", [None, 3, [], {}, {"sequence": -1, "hash": "0" * 64}, {"sequence": 1, "hash": "0"}, {"sequence": 1.5}]
)
def test_a_malformed_head(value: Any) -> None:
    with pytest.raises(DocumentError):
        audit.read_head(value)


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=6,
    )
)
def test_any_line_of_somebody_elses_making_is_refused(value: Any) -> None:
    lines = [*LINES[:3], json.dumps(value).encode(), *LINES[4:]]
    assert fault(judged(lines)) == (4, "edited")
