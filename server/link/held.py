"""Pulls that wait: a site's request is held until its next instruction is there, so that nobody polls in vain.

The site asks for it with a header; a plain SuperNode does not, and gets its answer at once.
Rules: one held pull for each node, a newer one releases the older; a pull whose client went away takes no message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

WAIT_HEADER = "fedsite-wait"
LONGEST_S = 30.0
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Hold:
    event: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False


class HeldPulls:
    """Who waits for which node; everything in it belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._holds: dict[int, _Hold] = {}
        self._closed = False

    def wake(self, nodes: Iterable[int]) -> None:
        """Something was sent to these nodes."""
        for node in nodes:
            hold = self._holds.get(node)
            if hold is not None:
                hold.event.set()

    def close(self) -> None:
        """Let everybody go; the process stops."""
        self._closed = True
        for hold in self._holds.values():
            hold.event.set()

    async def until_found(
        self,
        node: int,
        wait_s: float,
        look: Callable[[], Awaitable[T]],
        found: Callable[[T], bool],
        gone: Callable[[], Awaitable[object]],
    ) -> T:
        """Look, and look again whenever the node is woken, for `wait_s` seconds.

        Args:
            node: whose messages.
            wait_s: 0 looks once.
            look: takes a message away when there is one.
            found: whether `look` found one.
            gone: returns when the client has closed its connection.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + min(wait_s, LONGEST_S)
        hold = _Hold()
        older = self._holds.get(node)
        if older is not None:
            older.over = True
            older.event.set()
        self._holds[node] = hold
        left = asyncio.ensure_future(gone())
        try:
            result = await look()
            while not found(result) and not self._closed and not hold.over:
                woken = asyncio.ensure_future(hold.event.wait())
                await asyncio.wait({woken, left}, timeout=until - loop.time(), return_when=asyncio.FIRST_COMPLETED)
                woken.cancel()
                if left.done() or not hold.event.is_set() or hold.over or self._closed:
                    break
                hold.event.clear()
                result = await look()
            return result
        finally:
            left.cancel()
            if self._holds.get(node) is hold:
                del self._holds[node]


def wanted_wait(header: str | None) -> float:
    """Seconds the client asks for; 0 when it does not, or writes nonsense."""
    try:
        return max(0.0, min(float(header or 0), LONGEST_S))
    except ValueError:
        return 0.0
