"""The loop: one instruction at a time, answers that survive a lost connection, a clean end at any moment."""

from __future__ import annotations

import signal
import threading
from collections import deque
from typing import Any

import pytest

from fedsite.client.agent import Agent, StateReport
from fedsite.protocol.errors import IntegrityError, StorageError, TrustError, UnreachableError
from fedsite.protocol.messages import Frame


def frame(name: str) -> Frame:
    return Frame(header=name.encode(), signature=b"", blobs={})


class Link:
    """A server in memory: each pull takes the next item; an exception among them is raised."""

    def __init__(self, *items: Any) -> None:
        self.items = deque(items)
        self.activations: deque[Exception | None] = deque()
        self.refuse_push: deque[Exception] = deque()
        self.sent: list[tuple[Any, Frame]] = []
        self.closed = 0
        self.activated = 0
        self.agent: Agent | None = None

    def activate(self) -> None:
        self.activated += 1
        error = self.activations.popleft() if self.activations else None
        if error is not None:
            raise error

    def pull(self) -> tuple[Any, Frame] | None:
        if not self.items:
            assert self.agent is not None
            self.agent.stop()
            return None
        item = self.items.popleft()
        if isinstance(item, Exception):
            raise item
        return None if item is None else (item, frame(item))

    def push(self, received: Any, reply: Frame, noted: Any) -> bool:
        if self.refuse_push:
            raise self.refuse_push.popleft()
        self.sent.append((received, reply))
        return True

    def note(self, received: Any) -> bytes:
        return str(received).encode()

    def recall(self, note: bytes) -> Any:
        return note.decode()

    def close(self) -> None:
        self.closed += 1


class Nothing:
    """Keeps nothing."""

    def begin(self, link: bytes, instruction: Frame) -> str:
        return ""

    def answered(self, name: str, reply: Frame) -> None: ...

    def noted(self, name: str, link: bytes) -> None: ...

    def done(self, name: str) -> None: ...

    def pending(self) -> list[Any]:
        return []


class Worker:
    def __init__(self) -> None:
        self.closed = self.interrupted = self.asked_idle = 0

    def close_if_idle(self) -> bool:
        self.asked_idle += 1
        return False

    def close(self) -> None:
        self.closed += 1

    def interrupt(self) -> None:
        self.interrupted += 1


class Echo:
    def __init__(self) -> None:
        self.handled: list[bytes] = []

    def handle(self, asked: Frame) -> Frame:
        self.handled.append(asked.header)
        return frame("re:" + asked.header.decode())


def run(link: Link, **changes: Any) -> tuple[Echo, Worker, list[dict[str, Any]], list[dict[str, float]]]:
    echo, worker = Echo(), Worker()
    states: list[dict[str, Any]] = []
    delays: list[dict[str, float]] = []

    def delay(**given: float) -> float:
        delays.append(given)
        return 0.0

    link.agent = Agent(
        link=link,
        handler=changes.get("handler", echo),
        worker=worker,
        delay=delay,
        unsent=changes.get("unsent") or Nothing(),
        report=lambda s: states.append(dict(s)),
        between=changes.get("between", lambda: None),
    )
    link.agent.run()
    return echo, worker, states, delays


def test_each_instruction_is_answered_in_order_and_everything_ends() -> None:
    link = Link("a", None, "b")
    echo, worker, states, delays = run(link)
    assert echo.handled == [b"a", b"b"]
    assert [received for received, _ in link.sent] == ["a", "b"]
    assert (worker.closed, link.closed) == (1, 1)
    assert worker.asked_idle >= 1
    assert delays[0]["failures"] == 0
    assert [state["state"] for state in states][:3] == ["connecting", "idle", "working"]


def test_an_unreachable_server_is_tried_again_with_more_failures_each_time() -> None:
    link = Link("a")
    link.activations.extend([UnreachableError("down"), UnreachableError("down"), None])
    echo, _, states, delays = run(link)
    assert echo.handled == [b"a"]
    assert [given["failures"] for given in delays[:2]] == [1, 2]
    assert {"state": "unreachable", "error": "down"} in states


def test_an_answer_that_could_not_be_sent_goes_out_after_the_next_connection_unworked() -> None:
    link = Link("a", "b")
    link.refuse_push.append(UnreachableError("broken"))
    echo, _, _, _ = run(link)
    assert echo.handled == [b"a", b"b"]  # a was not handled twice
    assert [received for received, _ in link.sent] == ["a", "b"]
    assert link.activated == 2


def test_a_broken_message_is_dropped_and_the_next_one_taken() -> None:
    link = Link(IntegrityError("not a frame"), "a")
    echo, _, _, _ = run(link)
    assert echo.handled == [b"a"]


def test_a_server_that_forgot_us_is_told_once_and_a_revocation_ends_the_agent() -> None:
    link = Link(TrustError("unknown node"), "a")
    echo, _, _, _ = run(link)
    assert echo.handled == [b"a"]
    revoked = Link(TrustError("revoked"), TrustError("revoked"))
    with pytest.raises(TrustError, match="revoked"):
        run(revoked)
    assert revoked.closed == 1
    refused = Link()
    refused.activations.append(TrustError("not our server"))
    with pytest.raises(TrustError):
        run(refused)


def test_a_signal_during_a_long_pull_ends_it_at_once() -> None:
    class Hanging(Link):
        def pull(self) -> tuple[Any, Frame] | None:
            signal.raise_signal(signal.SIGUSR1)
            threading.Event().wait(30)
            raise AssertionError("the signal did not end the pull")

    link = Hanging()
    before = signal.signal(signal.SIGUSR1, lambda number, _: link.agent and link.agent.stop())
    try:
        _, worker, _, _ = run(link)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (worker.interrupted, worker.closed, link.closed) == (1, 1, 1)


def test_a_second_signal_does_not_wait_for_the_answer() -> None:
    class Stubborn(Echo):
        def handle(self, asked: Frame) -> Frame:
            assert link.agent is not None
            link.agent.stop()
            link.agent.stop()
            raise AssertionError("the second signal was not heard")

    link = Link("a")
    _, worker, _, _ = run(link, handler=Stubborn())
    assert link.sent == []
    assert (worker.closed, link.closed) == (1, 1)


def test_a_signal_during_work_lets_the_answer_go_out_first() -> None:
    class Stopping(Echo):
        def handle(self, asked: Frame) -> Frame:
            assert link.agent is not None
            link.agent.stop()
            return super().handle(asked)

    link = Link("a", "b")
    _, worker, _, _ = run(link, handler=Stopping())
    assert [received for received, _ in link.sent] == ["a"]
    assert worker.interrupted == 1


def test_the_state_file_is_written_when_something_changes_and_never_stops_the_agent() -> None:
    written: list[dict[str, Any]] = []
    report = StateReport(written.append, {"pid": 7})
    for state in ("connecting", "idle", "idle", "working", "idle"):
        report({"state": state})
    assert [value["state"] for value in written] == ["connecting", "idle", "working", "idle"]
    assert written[0]["pid"] == 7

    def full(value: dict[str, Any]) -> None:
        raise StorageError("disk full")

    StateReport(full, {})({"state": "idle"})


def test_chores_come_once_connected_and_between_instructions_never_in_the_middle_of_one() -> None:
    done: list[int] = []
    link = Link("one", None, "two", UnreachableError("gone"), "three")
    run(link, between=lambda: done.append(len(link.sent)))
    assert done == [0, 1, 2]  # connected; an empty pull; connected again; the last pull ends the agent
