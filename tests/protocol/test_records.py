"""Frames survive the trip through Flower's objects; anything else is refused with a code."""

from __future__ import annotations

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsite.protocol.errors import IntegrityError, RefusalCode
from fedsite.protocol.messages import Frame
from fedsite.protocol.records import INLINE, from_record, to_record


def _through_the_wire(record: RecordDict) -> RecordDict:
    contents = {key: item.deflate() for key, item in get_all_nested_objects(record).items()}
    return inflate_object_from_contents(record.object_id, contents)  # type: ignore[return-value]


@settings(max_examples=40, deadline=None)
@given(
    header=st.binary(max_size=200),
    signature=st.binary(min_size=64, max_size=64),
    blobs=st.dictionaries(st.text(max_size=12), st.binary(max_size=300), max_size=4),
)
def test_a_frame_comes_back_as_it_was(header: bytes, signature: bytes, blobs: dict[str, bytes]) -> None:
    frame = Frame(header=header, signature=signature, blobs=blobs)
    assert from_record(_through_the_wire(to_record(frame))) == frame


def test_a_large_blob_travels_in_chunks_and_comes_back() -> None:
    blob = bytes(range(256)) * (12 << 12)  # 12 MiB
    frame = Frame(header=b"{}", signature=b"s" * 64, blobs={"model": blob, "plan": b"small"})
    record = to_record(frame)
    sizes = [len(item.deflate()) for item in get_all_nested_objects(record).values()]
    assert max(sizes) < 6 << 20
    assert from_record(_through_the_wire(record)) == frame


def test_a_small_frame_is_two_objects() -> None:
    record = to_record(Frame(header=b"{}", signature=b"s" * 64, blobs={"values": bytes(INLINE)}))
    assert len(get_all_nested_objects(record)) == 2


def test_equal_models_to_two_sites_share_their_objects() -> None:
    model = bytes(INLINE + 1)
    first, second = (
        set(get_all_nested_objects(to_record(Frame(header=name, signature=b"s" * 64, blobs={"model": model}))))
        for name in (b"one", b"two")
    )
    assert len(first & second) == 3  # ArrayRecord, Array, chunk


@pytest.mark.parametrize(
    "record",
    [
        RecordDict(),
        RecordDict({"frame": ConfigRecord({"header": b"{}"})}),
        RecordDict({"frame": ConfigRecord({"header": "text", "signature": b""})}),
        RecordDict({"frame": ConfigRecord({"header": b"", "signature": b"", "code": b"import os"})}),
        RecordDict({"frame": ConfigRecord({"header": b"", "signature": b""}), "more": ConfigRecord()}),
        RecordDict({"frame": ConfigRecord({"header": b"", "signature": b""}), "blobs": ConfigRecord()}),
        RecordDict(
            {
                "frame": ConfigRecord({"header": b"", "signature": b""}),
                "blobs": ArrayRecord({"model": Array(dtype="uint8", shape=(9,), stype="fedsite.bytes", data=b"short")}),
            }
        ),
        RecordDict(
            {
                "frame": ConfigRecord({"header": b"", "signature": b""}),
                "blobs": ArrayRecord(
                    {"model": Array(dtype="float32", shape=(4,), stype="numpy.ndarray", data=b"1234")}
                ),
            }
        ),
    ],
)
def test_what_is_not_a_frame_is_refused_as_malformed(record: RecordDict) -> None:
    with pytest.raises(IntegrityError) as caught:
        from_record(record)
    assert caught.value.refusal is RefusalCode.MALFORMED


def test_a_frame_above_the_limit_is_refused_by_both_ends() -> None:
    record = to_record(Frame(header=b"{}", signature=b"s" * 64, blobs={"values": bytes(100)}))
    with pytest.raises(IntegrityError) as caught:
        from_record(record, limit=99)
    assert caught.value.refusal is RefusalCode.TOO_LARGE
    with pytest.raises(IntegrityError):
        to_record(Frame(header=b"", signature=b"", blobs={str(index): b"" for index in range(65)}))
