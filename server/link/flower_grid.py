"""The round loop's Link over Flower's Grid: few calls, and one reply in memory at a time.

Flower's own loop sleeps three seconds between looks and inflates every reply at once; this one looks more often the
younger the question is, and takes replies one by one (flower_replies).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from flwr.app import Message
from flwr.serverapp import Grid
from flwr.supercore.run import RunNotRunningException

from fedsite.protocol.errors import FedsiteError
from fedsite.protocol.messages import Frame
from fedsite.protocol.records import from_record, to_record
from fedsite.server.link.flower_replies import Replies
from fedsite.server.link.transport import Failure, SiteLink, enrolled

BATCH_BYTES = 64 << 20  # of messages in memory at once when they are sent
SMALLEST_LIMIT = 32 << 20  # bytes a reply may have at least: calibration counts can be larger than an update
FASTEST_S, SLOWEST_S = 0.01, 0.25  # between two looks for replies, seconds
PATIENCE = 0.05  # of a question's age is waited between two looks: no reply is taken much later than it could be
ROSTER_S = 0.25  # who is online is known for so long, seconds
MESSAGE_TYPE = "query"
_MAX_BATCH = 256  # messages

_log = logging.getLogger(__name__)


class FlowerLink:
    """Link for one Flower run."""

    def __init__(
        self,
        grid: Grid,
        database: Path,
        *,
        reply_bytes: int,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """Nothing is sent yet.

        Args:
            grid: of the ServerApp.
            database: fedsite.db, read only.
            reply_bytes: expected size of a reply.
            clock: monotonic seconds.
            wait: sleeps.
        """
        self._grid = grid
        self._database = database
        self._replies = Replies(grid, limit=max(SMALLEST_LIMIT, 2 * reply_bytes))
        self._clock = clock
        self._wait = wait
        self._asked_at = clock()
        self._roster: list[SiteLink] = []
        self._roster_at = float("-inf")
        self._next = 0
        self._away = False
        self.ended = False  # Flower says that the run is over

    def sites(self) -> list[SiteLink]:
        """Enrolled, unrevoked sites that are online, by name."""
        if self._clock() - self._roster_at > ROSTER_S:
            online = {str(node) for node in self._try(self._grid.get_node_ids, [])}
            self._roster = enrolled(self._database, lambda site: site.node_id in online)
            self._roster_at = self._clock()
        return list(self._roster)

    def send(self, messages: Sequence[tuple[SiteLink, Frame]], expires_s: float) -> list[str | None]:
        """Push in batches; blobs that several frames share are uploaded once."""
        found: list[str | None] = []
        for batch in _batches(messages):
            pushed: list[str] = self._try(partial(self._push, _pack(batch, expires_s)), [])
            # Flower answers with an empty list when a batch is too large for it.
            found += [message or None for message in pushed] if len(pushed) == len(batch) else [None] * len(batch)
        self._asked_at = self._clock()
        return found

    def poll(self, message_ids: Collection[str], wait_s: float) -> Iterator[tuple[str, Frame | Failure]]:
        """Replies that have arrived; waits up to `wait_s` seconds for the first one."""
        until = self._clock() + wait_s
        while True:
            found = False
            for message in self._arrived(list(message_ids)):
                found = True
                yield self._read(message)
            if found:
                return
            now = self._clock()
            pause = min(max(PATIENCE * (now - self._asked_at), FASTEST_S), SLOWEST_S)
            if self.ended or now + pause >= until:
                self._wait(max(0.0, until - now))
                return
            self._wait(pause)

    def late(self, message_ids: Collection[str]) -> dict[str, bool]:
        """Late answers and losses among these; an answer stays where it is until the Flower run ends."""
        found: dict[str, bool] = {}
        asked = list(message_ids)
        for start in range(0, len(asked), _MAX_BATCH):
            found |= self._try(partial(self._replies.settle, asked[start : start + _MAX_BATCH]), {})
        return found

    def _push(self, batch: list[Message]) -> list[str]:
        return list(self._grid.push_messages(batch))

    def _arrived(self, message_ids: list[str]) -> Iterator[Message]:
        """Replies to these ids that are there as a whole, one at a time; every id gets its turn."""
        if not message_ids:
            return
        start = self._next % len(message_ids)
        self._next = start + _MAX_BATCH
        chosen = (message_ids[start:] + message_ids[:start])[:_MAX_BATCH]
        self._try(partial(self._replies.announce, chosen), None)
        for asked in self._replies.waiting(message_ids):
            message = self._try(partial(self._replies.take, asked), None)
            if message is not None:
                yield message

    def _read(self, message: Message) -> tuple[str, Frame | Failure]:
        # A dead site is reported by the SuperLink itself: only this id says whose reply it stands for.
        asked = message.metadata.reply_to_message_id
        if message.has_error():
            return asked, Failure(reason=f"Flower error {message.error.code}: {message.error.reason}")
        try:
            return asked, from_record(message.content)
        except FedsiteError as error:
            return asked, Failure(reason=str(error))

    def _try(self, action: Callable[[], Any], otherwise: Any) -> Any:
        """Do it; a SuperLink that is away for a moment is no reason to end a run."""
        try:
            found = action()
        except RunNotRunningException:
            self.ended = True
            return otherwise
        except httpx.HTTPError as error:
            if not self._away:
                _log.warning("the SuperLink does not answer: %s", error)
            self._away = True
            return otherwise
        self._away = False
        return found


def _batches(messages: Sequence[tuple[SiteLink, Frame]]) -> Iterable[Sequence[tuple[SiteLink, Frame]]]:
    start, size = 0, 0
    for index, (_, frame) in enumerate(messages):
        if index > start and (size + frame.size > BATCH_BYTES or index - start >= _MAX_BATCH):
            yield messages[start:index]
            start, size = index, 0
        size += frame.size
    if start < len(messages):
        yield messages[start:]


def _pack(batch: Sequence[tuple[SiteLink, Frame]], expires_s: float) -> list[Message]:
    return [Message(to_record(frame), int(site.node_id), MESSAGE_TYPE, ttl=expires_s) for site, frame in batch]
