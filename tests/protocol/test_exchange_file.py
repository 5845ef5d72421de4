"""Files that are carried: whole and ours, or refused by name, whatever happened to them on their way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsite.protocol import documents, envelope, exchange_file, shape
from fedsite.protocol.errors import ConfigError, FedsiteError, RefusalCode, TrustError
from fedsite.protocol.exchange_count import REMEMBERED, Counts
from fedsite.protocol.exchange_file import Address, Direction, Parcel, open_parcel, pack
from fedsite.protocol.federation import Federation
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.messages import Frame
from tests.authority import AUTHORITY

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY, SITE = SigningKey.generate(), SigningKey.generate()
FEDERATION = Federation(
    id=KEY.public.id,
    name="test",
    address="fl.example.org:9443",
    ca_certificate=AUTHORITY.certificate,
    signing_key=KEY.public.text,
)
FRAMES = (
    Frame(header=b"one", signature=b"s" * 64, blobs={"model": b"weights" * 5, "plan": b""}),
    Frame(header=b"two", signature=b"t" * 64, blobs={"model": b"weights" * 5}),
)
FILES = {"/releases/1/model.onnx": b"onnx"}


def _made(
    *, direction: Direction = "instructions", sequence: int = 1, key: SigningKey = KEY, federation: str = ""
) -> bytes:
    address = Address(
        direction=direction,
        federation=federation or FEDERATION.id,
        site_id=SITE.public.id,
        sequence=sequence,
        created=NOW,
        expires=NOW + timedelta(days=3),
    )
    return pack(address, FRAMES, FILES, key)


def _opened(data: bytes, *, direction: Direction = "instructions", now: datetime = NOW) -> Parcel:
    return open_parcel(data, direction, FEDERATION, lambda _site: KEY.public, now)


def test_what_was_packed_comes_out_and_what_is_shared_is_there_once() -> None:
    data = _made()
    found = _opened(data)
    assert (found.frames, found.files) == (FRAMES, FILES)
    assert (found.head.sequence, found.head.site_id) == (1, SITE.public.id)
    assert data.count(b"weights" * 5) == 1


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, len(_made()) - 1), mask=st.integers(1, 255))
def test_a_file_in_which_any_byte_was_changed_is_refused(at: int, mask: int) -> None:
    data = bytearray(_made())
    data[at] ^= mask
    with pytest.raises(FedsiteError) as refused:
        _opened(bytes(data))
    assert refused.value.refusal in (RefusalCode.MALFORMED, RefusalCode.SIGNATURE, RefusalCode.WRONG_SITE)


@settings(max_examples=100, deadline=None)
@given(length=st.integers(0, len(_made()) - 1))
def test_a_file_that_was_cut_anywhere_is_refused(length: int) -> None:
    with pytest.raises(FedsiteError) as refused:
        _opened(_made()[:length])
    assert "cut short" in refused.value.found
    assert refused.value.refusal is RefusalCode.MALFORMED


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=300))
def test_bytes_of_any_kind_are_refused_by_name(data: bytes) -> None:
    for found in (data, b"fedsite.exchange/1\n" + data, _made() + data + b"x"):
        with pytest.raises(FedsiteError):
            _opened(found)


def test_a_file_of_another_federation_direction_or_key_or_time_is_refused() -> None:
    other = SigningKey.generate()
    cases: list[tuple[bytes, datetime, RefusalCode]] = [
        (_made(federation=other.public.id, key=other), NOW, RefusalCode.WRONG_SITE),
        (_made(direction="replies"), NOW, RefusalCode.WRONG_SITE),
        (_made(key=other), NOW, RefusalCode.SIGNATURE),
        (_made(key=SITE), NOW, RefusalCode.SIGNATURE),
        (_made(), NOW + timedelta(days=3), RefusalCode.EXPIRED),
    ]
    for data, now, code in cases:
        with pytest.raises(TrustError) as refused:
            _opened(data, now=now)
        assert refused.value.refusal is code


def test_a_head_in_another_spelling_is_another_file() -> None:
    data = _made()
    start = len(b"fedsite.exchange/1\n") + 8
    (length,) = exchange_file._LENGTH.unpack_from(data, start - 8)
    head = data[start : start + length].replace(b'{"signature"', b'{ "signature"')
    again = data[: start - 8] + exchange_file._LENGTH.pack(len(head)) + head + data[start + length :]
    with pytest.raises(FedsiteError, match="written anew"):
        _opened(again)


def test_a_signed_head_still_has_to_fit_its_parts() -> None:
    data = _made()
    start = len(b"fedsite.exchange/1\n") + 8
    (length,) = exchange_file._LENGTH.unpack_from(data, start - 8)
    head = shape.plain(_opened(data).head)
    parts = head["parts"]
    for change in ({"parts": parts[:-1]}, {"parts": parts * 2}, {"sequence": 0}, {"site_id": "x"}, {"more": 1}):
        signed = envelope.wrap("fedsite/sig/exchange/1", {**head, **change}, KEY)
        again = data[: start - 8] + exchange_file._LENGTH.pack(len(signed)) + signed + data[start + length :]
        with pytest.raises(FedsiteError):
            _opened(again)
    assert documents.parse(data[start : start + length])["signed"] == head


def test_a_number_is_given_once_and_never_again_after_a_restore(tmp_path: Path) -> None:
    counts = Counts(tmp_path / "count.json")
    numbers = [counts.next(NOW) for _ in range(3)] + [counts.next(NOW - timedelta(days=1))]
    assert numbers == sorted(set(numbers))
    (tmp_path / "count.json").unlink()
    assert counts.next(NOW + timedelta(seconds=1)) > numbers[-1]


def test_a_file_is_known_by_its_number_and_digest_and_old_numbers_are_closed(tmp_path: Path) -> None:
    counts = Counts(tmp_path / "count.json")
    first = _opened(_made(sequence=5))
    assert not counts.known(first)
    counts.note(first)
    assert counts.known(first)
    other = open_parcel(
        pack(
            Address(
                direction="instructions", federation=FEDERATION.id, site_id=SITE.public.id, sequence=5,
                created=NOW, expires=NOW + timedelta(days=4),
            ),
            FRAMES, FILES, KEY,
        ),
        "instructions", FEDERATION, lambda _site: KEY.public, NOW,
    )  # fmt: skip
    with pytest.raises(TrustError) as refused:
        counts.known(other)
    assert refused.value.refusal is RefusalCode.REPLAYED
    state = documents.parse((tmp_path / "count.json").read_bytes())
    state["received"] |= {str(number): "d" for number in range(100, 100 + REMEMBERED)}
    (tmp_path / "count.json").write_bytes(documents.canonical(state))
    counts.note(_opened(_made(sequence=2000)))
    for sequence in (5, 7):
        with pytest.raises(TrustError, match="closed"):
            counts.known(_opened(_made(sequence=sequence)))
    assert not counts.known(_opened(_made(sequence=1000)))


def test_a_damaged_count_is_told(tmp_path: Path) -> None:
    path = tmp_path / "count.json"
    for text in (b"", b"{}", b'{"schema":"fedsite.exchange-count/1","sent":"x","received":{},"floor":0}'):
        path.write_bytes(text)
        with pytest.raises(ConfigError):
            Counts(path).next(NOW)
