"""Held pulls: an answer as soon as there is one, never a message for somebody who has left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fedsite.server.link.held import HeldPulls, wanted_wait


class _Mailbox:
    def __init__(self) -> None:
        self.messages: list[str] = []
        self.looks = 0

    async def take(self) -> str | None:
        self.looks += 1
        return self.messages.pop() if self.messages else None


async def _never() -> None:
    await asyncio.Event().wait()


def _hold(held: HeldPulls, box: _Mailbox, gone: Callable[[], Awaitable[Any]] = _never, wait_s: float = 30.0) -> Any:
    return asyncio.ensure_future(held.until_found(7, wait_s, box.take, lambda found: found is not None, gone))


def test_a_waiting_message_is_answered_at_once() -> None:
    async def scenario() -> None:
        box = _Mailbox()
        box.messages.append("hello")
        assert await _hold(HeldPulls(), box) == "hello"
        assert box.looks == 1

    asyncio.run(scenario())


def test_a_pull_is_answered_when_its_node_is_woken_and_not_before() -> None:
    async def scenario() -> None:
        held, box = HeldPulls(), _Mailbox()
        pull = _hold(held, box)
        await asyncio.sleep(0.01)
        held.wake([8])
        await asyncio.sleep(0.01)
        assert box.looks == 1
        box.messages.append("hello")
        held.wake([7])
        assert await pull == "hello"

    asyncio.run(scenario())


def test_an_empty_answer_comes_after_the_wait() -> None:
    async def scenario() -> None:
        box = _Mailbox()
        assert await _hold(HeldPulls(), box, wait_s=0.01) is None
        assert box.looks == 1

    asyncio.run(scenario())


def test_a_client_that_left_takes_no_message() -> None:
    async def scenario() -> None:
        held, box, left = HeldPulls(), _Mailbox(), asyncio.Event()
        pull = _hold(held, box, left.wait)
        await asyncio.sleep(0.01)
        box.messages.append("hello")
        left.set()
        held.wake([7])
        assert await pull is None
        assert box.messages == ["hello"]

    asyncio.run(scenario())


def test_a_newer_pull_releases_the_older() -> None:
    async def scenario() -> None:
        held, box = HeldPulls(), _Mailbox()
        older = _hold(held, box)
        await asyncio.sleep(0.01)
        newer = _hold(held, box)
        assert await older is None
        box.messages.append("hello")
        held.wake([7])
        assert await newer == "hello"

    asyncio.run(scenario())


def test_closing_answers_everybody() -> None:
    async def scenario() -> None:
        held, box = HeldPulls(), _Mailbox()
        pull = _hold(held, box)
        await asyncio.sleep(0.01)
        held.close()
        assert await pull is None

    asyncio.run(scenario())


def test_the_wait_a_client_asks_for_is_bounded_and_never_an_error() -> None:
    assert [wanted_wait(text) for text in (None, "", "20", "1e9", "-3", "soon")] == [0, 0, 20, 30, 0, 0]
    assert wanted_wait("nan") in (0.0, 30.0)
