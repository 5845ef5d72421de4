"""What is kept of a run: whole replies, values by what they were made from, no path of the centre's choosing."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedsite.client.store import REMEMBERED_S, SILENT_S, Outbox
from fedsite.protocol import ids
from fedsite.protocol.errors import IntegrityError, RefusalCode, TrustError
from fedsite.protocol.kept import decode, encode
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


def header(kit: Any, number: int, kind: str = "train", **changes: Any) -> Any:
    return kit.centre.header(kit.site, kind, kit.centre.plan(), **{"round": number, **changes})


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


def test_values_do_not_depend_on_masks_or_on_what_follows(kit: Any) -> None:
    outbox, digest = kit.outbox, "0" * 64
    first = header(kit, 1, blobs={"model": digest, "secagg": "1" * 64}, body={"evaluate": True})
    outbox.keep_values(first, b"vector", "m" * 64)
    body = {"evaluate": True, "next": {"round": 2, "attempt": 1}}
    again = header(kit, 1, attempt=2, blobs={"model": digest, "secagg": "2" * 64, "next": "3" * 64}, body=body)
    assert outbox.values(again, "m" * 64) == b"vector"
    assert outbox.values(again, "n" * 64) is None  # another grid
    assert outbox.values(again) is None


def test_a_stage_is_a_kind_of_its_own_for_each_purpose(kit: Any) -> None:
    outbox: Outbox = kit.outbox
    asked = [("train", ""), ("share", "train"), ("share", "evaluate"), ("unmask", "train")]
    for number in (1, 2, 3):
        for kind, purpose in asked:
            outbox.keep_reply(header(kit, number, kind, purpose=purpose), Frame(header=kind.encode(), signature=b"s"))
    for kind, purpose in asked:
        reply = outbox.reply(header(kit, 3, kind, purpose=purpose))
        assert reply is not None
        assert reply.header == kind.encode()
        with pytest.raises(TrustError):
            outbox.reply(header(kit, 1, kind, purpose=purpose))
    assert outbox.reply(header(kit, 1, "share", purpose="calibrate")) is None
    assert len(list(outbox.directory.rglob("*.reply"))) == 2 * len(asked)


def test_a_run_is_no_path(kit: Any, tmp_path: Path) -> None:
    for name in ("../other", "a/b", "", "x" * 65):
        with pytest.raises(TrustError):
            kit.outbox.accept(name, b"plan")
    kit.outbox.accept("01ARZ3NDEKTSV4RRFFQ69G5FAV", b"plan")
    assert kit.outbox.plan("01ARZ3NDEKTSV4RRFFQ69G5FAV") is not None
    assert (tmp_path / "outbox" / "01ARZ3NDEKTSV4RRFFQ69G5FAV" / "plan.json").stat().st_mode & 0o077 == 0


def test_a_run_the_server_never_ended_is_forgotten(kit: Any, tmp_path: Path) -> None:
    run_id = kit.centre.plan().run_id
    now = [0.0]
    outbox = Outbox(tmp_path / "outbox", clock=lambda: now[0])
    outbox.accept(run_id, b"plan")
    outbox.keep_values(header(kit, 1), b"values")
    now[0] = (tmp_path / "outbox" / run_id).stat().st_mtime + SILENT_S - 1
    assert outbox.tidy() == []
    now[0] += 2
    assert outbox.tidy() == [run_id]
    assert outbox.tidy() == []
    assert outbox.values(header(kit, 1)) is None
    with pytest.raises(TrustError):
        outbox.reply(header(kit, 1))


def test_a_run_that_ended_long_ago_is_a_floor_below_which_none_begins(kit: Any, tmp_path: Path) -> None:
    now = [time.time()]
    outbox = Outbox(tmp_path / "outbox", clock=lambda: now[0])
    day = 86_400.0
    old, half, fresh = (ids.ulid(clock=lambda age=age: now[0] - age * day) for age in (200, 100, 1))
    never, still = (ids.ulid(clock=lambda age=age: now[0] - age * day) for age in (150, 120))
    ahead = ids.ulid(clock=lambda: now[0] + 1000 * day)
    reply = Frame(header=b"{}", signature=b"s")
    for run_id in (old, half, fresh, still, ahead):
        outbox.accept(run_id, b"plan")
        outbox.keep_reply(header(kit, 1, run_id=run_id), reply)
        outbox.keep_reply(header(kit, 1, run_id=run_id, kind="finish"), reply)
    for run_id in (old, half, fresh, ahead):
        outbox.finish(run_id)
    now[0] += REMEMBERED_S - day
    for name in (old, half, fresh, ahead):  # the last word of each, by the file system
        os.utime(tmp_path / "outbox" / name, (now[0] - REMEMBERED_S - day,) * 2)
    os.utime(tmp_path / "outbox" / fresh)
    os.utime(tmp_path / "outbox" / still, (now[0],) * 2)
    assert outbox.tidy() == []
    assert sorted(path.name for path in (tmp_path / "outbox").iterdir()) == sorted([fresh, still, ahead, "floor"])
    for run_id in (old, never, half):
        for kind in ("prepare", "train", "install", "finish"):
            with pytest.raises(TrustError) as error:
                outbox.reply(header(kit, 1, run_id=run_id, kind=kind))
            assert error.value.refusal == RefusalCode.REPLAYED
    assert outbox.reply(header(kit, 1, run_id=still)) == reply
    assert outbox.reply(header(kit, 2, run_id=still)) is None
    assert outbox.reply(header(kit, 1, run_id=ids.ulid(clock=lambda: now[0]))) is None


asked = st.lists(
    st.tuples(st.sampled_from(["prepare", "train", "evaluate"]), st.integers(0, 6), st.integers(1, 3)), max_size=40
)


@given(asked=asked)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
def test_nothing_is_answered_twice_and_little_is_kept(
    kit: Any, tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[str, int, int]]
) -> None:
    """Whatever order a centre asks in; a reply given is the first one or none at all."""
    outbox = Outbox(tmp_path_factory.mktemp("outbox"))
    given: dict[tuple[str, int, int], Frame] = {}
    for number, (kind, round_number, attempt) in enumerate(asked):
        instruction = header(kit, round_number, kind=kind, attempt=attempt)
        try:
            stored = outbox.reply(instruction)
        except TrustError:
            continue
        if stored is not None:
            assert stored == given[kind, round_number, attempt]
            continue
        assert (kind, round_number, attempt) not in given
        given[kind, round_number, attempt] = Frame(header=str(number).encode(), signature=b"s")
        outbox.keep_values(instruction, b"values")
        outbox.keep_reply(instruction, given[kind, round_number, attempt])
    files = [path.name for path in outbox.directory.glob("*/*")]
    assert len([name for name in files if name.endswith(".reply")]) <= 2 * 3
    assert len([name for name in files if name.endswith(".values")]) <= 3 * 3


def test_a_resumed_run_may_go_back_and_an_old_attempt_may_not(kit: Any) -> None:
    reply = Frame(header=b"{}", signature=b"s")
    for number in (1, 2, 3, 4, 5):
        kit.outbox.keep_reply(header(kit, number), reply)
    assert kit.outbox.reply(header(kit, 2, attempt=2)) is None
    kit.outbox.keep_reply(header(kit, 2, attempt=2), reply)
    assert kit.outbox.reply(header(kit, 3, attempt=2)) is None
    with pytest.raises(TrustError):
        kit.outbox.reply(header(kit, 3))
    kit.outbox.keep_reply(header(kit, 3, attempt=2), reply)
    with pytest.raises(TrustError):  # never asked, but not known not to have been
        kit.outbox.reply(header(kit, 1, attempt=1))
    assert kit.outbox.reply(header(kit, 6, attempt=1)) is None
