"""The round loop's Link over Flower's simulated Grid: messages are Flower's own, and counted as they would be sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from fedsite.protocol.errors import FedsiteError, UnreachableError
from fedsite.protocol.messages import Frame, read_header
from fedsite.protocol.records import from_record, to_record
from fedsite.server.link.transport import Failure, SiteLink

MESSAGE_TYPE: Final = "query"
WHO: Final = "who"  # record of the question which site a node is, and of its answer
NUMBER: Final = "number"
LOOK_S: Final = 0.02  # between looks for replies, seconds
_PATIENCE_S: Final = 600.0  # for all nodes to say which site they are, seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Messages of one kind that were answered: bytes of all of Flower's objects in one, medians."""

    kind: str  # of the instruction; "share of train" for a stage of a secure sum
    messages: int
    bytes_down: int
    bytes_up: int


class GridLink:
    """Link (server.link.transport) for one simulated Flower run."""

    def __init__(self, grid: Grid, sites: Mapping[int, SiteLink]) -> None:
        """`sites`: by node id."""
        self._grid = grid
        self._sites = sorted(sites.values(), key=lambda site: site.name)
        self._sent: dict[str, tuple[str, int]] = {}  # kind and bytes, by message id
        self._counted: dict[str, list[tuple[int, int]]] = {}

    def sites(self) -> list[SiteLink]:
        """All of them: nobody is away."""
        return list(self._sites)

    def send(self, messages: Sequence[tuple[SiteLink, Frame]], expires_s: float) -> list[str | None]:
        """Push each frame as one Flower message."""
        found: list[str | None] = []
        for site, frame in messages:
            content = to_record(frame)
            header = read_header(frame.header)
            kind = f"{header.kind} of {header.purpose}" if header.purpose else header.kind
            size = _bytes(content)
            pushed = list(self._grid.push_messages([Message(content, int(site.node_id), MESSAGE_TYPE, ttl=expires_s)]))
            found.append(pushed[0] if pushed else None)
            if pushed:
                self._sent[pushed[0]] = kind, size
        return found

    def poll(self, message_ids: Collection[str], wait_s: float) -> Iterator[tuple[str, Frame | Failure]]:
        """Replies that have arrived; waits up to `wait_s` seconds for the first one."""
        until = time.monotonic() + wait_s
        while message_ids:
            replies = list(self._grid.pull_messages(list(message_ids)))
            for reply in replies:
                yield reply.metadata.reply_to_message_id, self._read(reply)
            if replies or time.monotonic() >= until:
                return
            time.sleep(LOOK_S)

    def late(self, message_ids: Collection[str]) -> dict[str, bool]:
        """Which of these have been answered by now."""
        replies = self._grid.pull_messages(list(message_ids)) if message_ids else []
        return {reply.metadata.reply_to_message_id: not reply.has_error() for reply in replies}

    @property
    def traffic(self) -> tuple[Traffic, ...]:
        """What was sent, by kind, in the order of the first of each."""
        return tuple(
            Traffic(
                kind=kind,
                messages=len(sizes),
                bytes_down=int(np.median([down for down, _ in sizes])),
                bytes_up=int(np.median([up for _, up in sizes])),
            )
            for kind, sizes in self._counted.items()
        )

    def _read(self, reply: Message) -> Frame | Failure:
        if reply.has_error():
            return Failure(reason=f"Flower error {reply.error.code}: {reply.error.reason}")
        kind, down = self._sent.pop(reply.metadata.reply_to_message_id)
        self._counted.setdefault(kind, []).append((down, _bytes(reply.content)))
        try:
            return from_record(reply.content)
        except FedsiteError as error:
            return Failure(reason=str(error))


def numbers(grid: Grid, count: int, stopping: Callable[[], bool]) -> dict[int, int]:
    """Which site each of `count` nodes is, by node id: Flower names nodes at random.

    Raises:
        UnreachableError: not all of them said so in time.
    """
    until = time.monotonic() + _PATIENCE_S
    nodes: list[int] = []
    while len(nodes) < count and time.monotonic() < until and not stopping():
        nodes = list(grid.get_node_ids())
        time.sleep(LOOK_S)
    asked = [Message(RecordDict({WHO: ConfigRecord({NUMBER: -1})}), node, MESSAGE_TYPE) for node in nodes]
    waiting, found = set(grid.push_messages(asked)), {}
    while waiting and time.monotonic() < until and not stopping():
        for reply in grid.pull_messages(list(waiting)):
            waiting.discard(reply.metadata.reply_to_message_id)
            if not reply.has_error():
                found[reply.metadata.src_node_id] = int(reply.content[WHO][NUMBER])
        time.sleep(LOOK_S)
    if len(found) < count:
        raise UnreachableError(f"{len(found)} of {count} nodes of Flower's simulation answered", allowed="all of them")
    return found


def _bytes(content: RecordDict) -> int:
    """Of everything that Flower would put on the wire for a message's content."""
    return sum(len(item.deflate()) for item in get_all_nested_objects(content).values())
