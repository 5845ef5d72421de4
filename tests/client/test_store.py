"""What is kept of a run: whole replies, values by what they were made from, no path of the centre's choosing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.client.store import Outbox, decode, encode
from fedsite.protocol.errors import IntegrityError, RefusalCode, TrustError
from fedsite.protocol.messages import Frame

frames = st.builds(
    Frame,
    header=st.binary(max_size=50),
    signature=st.binary(max_size=64),
    blobs=st.dictionaries(st.text(max_size=8), st.binary(max_size=40), max_size=3),
)


@given(frame=frames)
def test_a_frame_comes_back_whole_or_not_at_all(frame: Frame) -> None:
    data = encode(frame)
    assert decode(data) == frame
    if data:
        with pytest.raises(IntegrityError):
            decode(data[:-1])


def header(kit: Any, number: int, **changes: Any) -> Any:
    return kit.centre.header(kit.site, "train", kit.centre.plan(), round=number, **changes)


def test_old_rounds_keep_only_that_they_were_answered(kit: Any) -> None:
    outbox: Outbox = kit.outbox
    reply = Frame(header=b"{}", signature=b"s", blobs={"sealed": b"x" * 1000})
    for number in (1, 2, 3):
        outbox.keep_values(header(kit, number), b"values")
        outbox.keep_reply(header(kit, number), reply)
    assert outbox.reply(header(kit, 3)) == reply
    assert outbox.reply(header(kit, 2)) == reply
    with pytest.raises(TrustError) as error:
        outbox.reply(header(kit, 1))
    assert error.value.refusal == RefusalCode.REPLAYED
    assert outbox.values(header(kit, 1)) is None
    assert outbox.values(header(kit, 3)) == b"values"


def test_values_belong_to_what_they_were_made_from(kit: Any) -> None:
    kit.outbox.keep_values(header(kit, 1), b"values")
    assert kit.outbox.values(header(kit, 1, attempt=2)) == b"values"
    assert kit.outbox.values(header(kit, 1, model_hash="0" * 64)) is None
    assert kit.outbox.values(header(kit, 1, body={"evaluate": True})) is None
    assert kit.outbox.values(header(kit, 2)) is None


def test_a_run_is_no_path(kit: Any, tmp_path: Path) -> None:
    for name in ("../other", "a/b", "", "x" * 65):
        with pytest.raises(TrustError):
            kit.outbox.accept(name, b"plan")
    kit.outbox.accept("01ARZ3NDEKTSV4RRFFQ69G5FAV", b"plan")
    assert kit.outbox.open_runs() == ["01ARZ3NDEKTSV4RRFFQ69G5FAV"]
    assert (tmp_path / "outbox" / "01ARZ3NDEKTSV4RRFFQ69G5FAV" / "plan.json").stat().st_mode & 0o077 == 0


def test_a_run_the_server_never_ended_is_forgotten(kit: Any, tmp_path: Path) -> None:
    run_id = kit.centre.plan().run_id
    kit.outbox.accept(run_id, b"plan")
    kit.outbox.keep_values(header(kit, 1), b"values")
    changed = (tmp_path / "outbox" / run_id).stat().st_mtime
    assert kit.outbox.end_old(changed - 1) == []
    assert kit.outbox.end_old(changed + 1) == [run_id]
    assert kit.outbox.open_runs() == []
    assert kit.outbox.values(header(kit, 1)) is None
    with pytest.raises(TrustError):
        kit.outbox.reply(header(kit, 1))
