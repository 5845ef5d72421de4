"""Objects on their way: who asks waits, is told at once, and asks only when there is news."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from fedsite.server.link.arrivals import Arrivals


class _Store:
    def __init__(self) -> None:
        self.there = False
        self.looks = 0

    async def look(self) -> bool:
        self.looks += 1
        return self.there


def _ask(arrivals: Arrivals, store: _Store, name: str = "a", wait_s: float = 30.0) -> Coroutine[Any, Any, bool]:
    return arrivals.until_there(name, wait_s, store.look, lambda there: not there)


def test_an_object_that_is_there_is_told_at_once() -> None:
    async def scenario() -> None:
        store = _Store()
        store.there = True
        assert await _ask(Arrivals(), store) is True
        assert store.looks == 1

    asyncio.run(scenario())


def test_everybody_who_waits_is_told_when_it_arrives_and_nobody_looks_before() -> None:
    async def scenario() -> None:
        arrivals, store, other = Arrivals(), _Store(), _Store()
        asked = [asyncio.ensure_future(_ask(arrivals, store)) for _ in range(2)]
        elsewhere = asyncio.ensure_future(_ask(arrivals, other, name="b"))
        await asyncio.sleep(0.01)
        assert (store.looks, other.looks) == (2, 1)
        store.there = True
        arrivals.arrived("a")
        assert await asyncio.gather(*asked) == [True, True]
        assert (store.looks, other.looks) == (4, 1)
        elsewhere.cancel()

    asyncio.run(scenario())


def test_an_upload_during_the_look_is_not_missed() -> None:
    async def scenario() -> None:
        arrivals = Arrivals()
        answers = [False, True]

        async def look() -> bool:
            found = answers.pop(0)
            arrivals.arrived("a")  # after the answer was read, before anybody waits
            return found

        assert await arrivals.until_there("a", 30.0, look, lambda there: not there) is True

    asyncio.run(scenario())


def test_after_the_wait_the_answer_is_what_it_was_and_nobody_is_remembered() -> None:
    async def scenario() -> None:
        arrivals, store = Arrivals(), _Store()
        assert await _ask(arrivals, store, wait_s=0.01) is False
        assert store.looks == 1
        assert arrivals._waiting == {}

    asyncio.run(scenario())
