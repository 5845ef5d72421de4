"""The board between the agent's loop and whoever watches it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from fedsite.client.local.activity import Board
from fedsite.client.local.local_calls import told_activity
from fedsite.protocol import local_pb2

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
TEXTS = st.text(st.characters(exclude_categories=()))


def board() -> Board:
    return Board(pid=17, clock=lambda: NOW)


def test_a_board_tells_the_latest_and_that_it_is_new() -> None:
    shown = board()
    seen, first = shown.look()
    assert (first.state, first.pid, first.since) == ("starting", 17, "2026-03-01T12:00:00Z")
    shown.report({"state": "working", "kind": "train", "run_id": "R", "round": 3})
    number, activity = shown.look()
    assert number > seen
    assert (activity.state, activity.kind, activity.run_id, activity.round) == ("working", "train", "R", 3)
    assert shown.wait(seen, 60.0) is True  # there is something new already
    shown.report({"state": "unreachable", "error": "no route"})
    assert shown.look()[1].kind == ""
    assert shown.look()[1].error == "no route"


def test_who_waits_is_woken_by_a_change_and_by_the_end() -> None:
    shown = board()
    woken: list[bool] = []
    for act in (shown.touch, shown.close):
        seen, _ = shown.look()
        waiting = threading.Thread(target=lambda seen=seen: woken.append(shown.wait(seen, 60.0)))
        waiting.start()
        act()
        waiting.join(30.0)
        assert not waiting.is_alive()
    assert woken == [True, False]
    assert shown.wait(shown.look()[0], 60.0) is False


def test_waiting_ends_with_the_time_and_with_the_one_who_asked() -> None:
    shown = board()
    seen, _ = shown.look()
    assert shown.wait(seen, 0.01) is True
    assert shown.wait(seen, 60.0, alive=lambda: False) is False


@given(
    st.dictionaries(
        st.sampled_from(["state", "kind", "run_id", "round", "error"]), st.integers() | st.text(st.characters())
    )
)
def test_whatever_the_loop_says_can_be_told_on_the_socket(state: dict[str, object]) -> None:
    shown = board()
    shown.report(state)
    data = told_activity(shown.look()[1]).SerializeToString()
    assert local_pb2.Activity.FromString(data).pid == 17
