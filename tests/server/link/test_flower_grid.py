"""The Link over a Grid of our own: batches, failures, lost SuperLinks, and a whole ServerApp attempt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.app import Error, Message
from flwr.supercore.run import RunNotRunningException

from fedsite.protocol.messages import Frame
from fedsite.protocol.records import to_record
from fedsite.server.link import flower_grid
from fedsite.server.link.flower_grid import FlowerLink
from fedsite.server.link.transport import Failure, SiteLink
from tests.memory_grid import MemoryGrid
from tests.simulated_fleet import SimulatedClock, SimulatedFleet


def link(grid: MemoryGrid, clock: SimulatedClock, reply_bytes: int = 1) -> FlowerLink:
    return FlowerLink(grid, Path("fedsite.db"), reply_bytes=reply_bytes, clock=clock, wait=clock.wait)  # type: ignore[arg-type]


@pytest.mark.usefixtures("roster")
def test_only_unrevoked_sites_that_are_online(grid: MemoryGrid, fleet: SimulatedFleet) -> None:
    found = link(grid, fleet.clock)
    assert [site.name for site in found.sites()] == ["north", "south"]
    fleet["south"].online = False
    assert [site.name for site in found.sites()] == ["north", "south"]  # known for a moment
    fleet.clock.wait(1.0)
    assert [site.name for site in found.sites()] == ["north"]


def send_to(found: FlowerLink, grid: MemoryGrid, count: int, size: int = 1) -> list[str | None]:
    """Send frames that the sites answer with an echo."""
    for site in grid.fleet.all:
        site.receive = lambda frame: [frame]  # type: ignore[method-assign]
    frame = Frame(header=b"{}", signature=b"s" * 64, blobs={"model": b"x" * size})
    names = [site.name for site in grid.fleet.all]
    targets = [
        SiteLink(
            site_id="",
            name=names[i % 3],
            node_id=str(grid.numbers[names[i % 3]]),
            public_key=grid.fleet.all[0].key.public,
        )
        for i in range(count)
    ]
    return found.send([(target, frame) for target in targets], 60.0)


def test_large_messages_are_sent_one_at_a_time_and_taken_so(
    grid: MemoryGrid, fleet: SimulatedFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flower_grid, "BATCH_BYTES", 1000)
    found = link(grid, fleet.clock, reply_bytes=600)
    ids = [message for message in send_to(found, grid, 3, size=600) if message is not None]
    assert grid.pushes == [1, 1, 1]
    replies = found.poll(ids, 1.0)
    for number in (1, 2, 3):
        assert isinstance(next(replies)[1], Frame)
        assert len(grid.confirmed) == number  # the next one is fetched when this one has been dealt with


def test_a_reply_that_never_comes_whole_holds_nobody_up(grid: MemoryGrid, fleet: SimulatedFleet) -> None:
    found = link(grid, fleet.clock)
    ids = [message for message in send_to(found, grid, 2) if message is not None]
    missing: dict[str, bytes] = {}

    def hide(asked: str, objects: dict[str, bytes]) -> None:
        if asked == ids[0]:
            missing.update([objects.popitem()])

    grid.damage = hide
    assert [asked for asked, _ in found.poll(ids, 1.0)] == [ids[1]]
    assert list(found.poll(ids[:1], 1.0)) == []
    grid.objects |= missing  # the rest of the upload
    ((asked, reply),) = found.poll(ids[:1], 1.0)
    assert asked == ids[0]
    assert isinstance(reply, Frame)


def test_a_late_reply_is_told_once_and_never_fetched(grid: MemoryGrid, fleet: SimulatedFleet) -> None:
    found = link(grid, fleet.clock)
    ids = [message for message in send_to(found, grid, 3) if message is not None]
    grid.replies[ids[1]] = _error(grid.replies[ids[1]])
    held = grid.replies.pop(ids[2])
    assert found.late(ids) == {ids[0]: True, ids[1]: False}
    assert found.late(ids[2:]) == {}
    grid.replies[ids[2]] = held
    assert found.late(ids[2:]) == {ids[2]: True}
    assert grid.confirmed == []  # nothing was taken


def test_a_reply_that_is_half_there_at_the_deadline_is_late(grid: MemoryGrid, fleet: SimulatedFleet) -> None:
    found = link(grid, fleet.clock)
    ids = [message for message in send_to(found, grid, 1) if message is not None]
    grid.damage = lambda asked, objects: objects.clear()
    assert list(found.poll(ids, 1.0)) == []
    assert found.late(ids) == {ids[0]: True}


def test_a_reply_that_is_no_message_or_too_large_is_its_sites_failure(
    grid: MemoryGrid, fleet: SimulatedFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flower_grid, "SMALLEST_LIMIT", 100_000)
    found = link(grid, fleet.clock)
    ids = [message for message in send_to(found, grid, 3) if message is not None]

    def damage(asked: str, objects: dict[str, bytes]) -> None:
        for name in objects:
            if asked == ids[0]:
                objects[name] = objects[name].replace(b"Message", b"Massage")
            if asked == ids[1]:
                objects[name] += bytes(200_000)

    grid.damage = damage
    # Each reply stands in objects of its own: equal ones would be stored once.
    for number, message in enumerate(ids):
        content = grid.replies[message].content
        content["frame"]["header"] = b"{%d}" % number
    replies = dict(found.poll(ids, 1.0))
    assert [type(replies[message]) for message in ids] == [Failure, Failure, Frame]


def test_small_messages_go_together(grid: MemoryGrid, fleet: SimulatedFleet) -> None:
    found = link(grid, fleet.clock)
    ids = [message for message in send_to(found, grid, 3) if message is not None]
    assert (grid.pushes, len(list(found.poll(ids, 1.0)))) == ([3], 3)
    assert grid.pulls == [3]


def test_a_poll_waits_as_long_as_it_was_told_and_looks_ever_less_often(grid: MemoryGrid, fleet: SimulatedFleet) -> None:
    found = link(grid, fleet.clock)
    started = fleet.clock.now
    assert list(found.poll(["unknown"], 10.0)) == []
    assert fleet.clock.now - started == pytest.approx(10.0)
    assert 40 < len(grid.pulls) < 150


def test_flowers_errors_and_foreign_content_are_failures(grid: MemoryGrid, fleet: SimulatedFleet) -> None:
    found = link(grid, fleet.clock)
    ids = [message for message in send_to(found, grid, 2) if message is not None]
    first, second = grid.replies[ids[0]], grid.replies[ids[1]]
    grid.replies[ids[0]] = _error(first)
    second.content["frame"]["header"] = 3
    replies = dict(found.poll(ids, 1.0))
    assert isinstance(replies[ids[0]], Failure)
    assert isinstance(replies[ids[1]], Failure)


@pytest.mark.usefixtures("roster")
def test_a_superlink_that_is_away_is_waited_for(grid: MemoryGrid, fleet: SimulatedFleet) -> None:
    found = link(grid, fleet.clock)
    grid.error = httpx.ConnectError("refused")
    assert send_to(found, grid, 2) == [None, None]
    assert list(found.poll(["m"], 0.1)) == []
    assert found.sites() == []
    assert not found.ended


def test_a_run_that_flower_has_ended_is_over(grid: MemoryGrid, fleet: SimulatedFleet) -> None:
    found = link(grid, fleet.clock)
    grid.error = RunNotRunningException()
    assert list(found.poll(["m"], 1.0)) == []
    assert found.ended


def _error(reply: Message) -> Message:
    metadata: Any = reply.metadata
    asked = Message(to_record(Frame(header=b"", signature=b"")), 1, "query")
    asked.metadata.__dict__["_message_id"] = metadata.reply_to_message_id
    return Message(Error(code=3, reason="node died"), reply_to=asked)
