"""Objects that are announced before they are there: whoever asks for one waits for its upload, and asks nobody again.

A round's instructions are announced to all sites at once and uploaded one by one: sites that kept looking would take
the processor from the uploads they wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


class Arrivals:
    """Who waits for which object; everything in it belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}

    def arrived(self, name: str) -> None:
        """An object was uploaded, or refused."""
        for event in self._waiting.get(name, ()):
            event.set()

    async def until_there(
        self, name: str, wait_s: float, look: Callable[[], Awaitable[T]], missing: Callable[[T], bool]
    ) -> T:
        """Look, and look again whenever the object arrives, for `wait_s` seconds.

        Args:
            name: of the object.
            wait_s: after so long the last answer is told as it is.
            look: asks for the object.
            missing: whether an answer says that the object is still on its way.
        """
        until = asyncio.get_running_loop().time() + wait_s
        event = asyncio.Event()  # there before the look: an upload in between is not missed
        waiting = self._waiting.setdefault(name, set())
        waiting.add(event)
        try:
            while missing(result := await look()):
                try:
                    await asyncio.wait_for(event.wait(), until - asyncio.get_running_loop().time())
                except TimeoutError:
                    break
                event.clear()
            return result
        finally:
            waiting.discard(event)
            if not waiting:
                self._waiting.pop(name, None)
