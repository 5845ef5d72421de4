"""The Link over a Grid of our own: batches, failures, lost SuperLinks, and a whole ServerApp attempt."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

pytest.importorskip("flwr", reason="flwr is not installed: pip install -e '.[dev]'")

from flwr.app import Error, Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import PullObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.run import RunNotRunningException
from flwr.supercore.task_identity import TaskIdentity

from fedsite.protocol import documents
from fedsite.protocol.messages import Frame
from fedsite.protocol.plan import RoundPlan
from fedsite.protocol.records import from_record, to_record
from fedsite.server import flower_app, flower_grid, runs
from fedsite.server.flower_grid import FlowerLink
from fedsite.server.home import ServerHome
from fedsite.server.journal import Reader
from fedsite.server.link import Failure, SiteLink
from fedsite.server.runs import Launch, RunDirectory
from tests.simulated_fleet import Play, SimulatedClock, SimulatedFleet


class MemoryGrid:
    """Flower's Grid as far as we use it: messages go to simulated sites, replies wait to be pulled."""

    def __init__(self, fleet: SimulatedFleet) -> None:
        self.fleet = fleet
        self.numbers = {site.name: index for index, site in enumerate(fleet.all, start=1)}
        self.replies: dict[str, Message] = {}
        self.pushes: list[int] = []
        self.pulls: list[int] = []
        self.error: BaseException | None = None
        self.objects: dict[str, bytes] = {}
        self.damage: Callable[[str, dict[str, bytes]], None] = lambda asked, objects: None
        self.confirmed: list[str] = []

    def get_node_ids(self) -> Iterable[int]:
        self._raise()
        return [number for name, number in self.numbers.items() if self.fleet[name].online]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self._raise()
        found = []
        batch = list(messages)
        self.pushes.append(len(batch))
        for message in batch:
            name = next(n for n, number in self.numbers.items() if number == message.metadata.dst_node_id)
            message.metadata.__dict__["_message_id"] = f"m{len(self.replies)}"
            for frame in self.fleet[name].receive(from_record(message.content)):
                self.replies[message.metadata.message_id] = Message(to_record(frame), reply_to=message)
            found.append(message.metadata.message_id)
        return found

    @property
    def _runtime_client(self) -> MemoryGrid:
        return self

    @property
    def run(self) -> Any:
        return SimpleNamespace(run_id=1)

    @property
    def node(self) -> Node:
        return Node(node_id=1)

    def PullMessages(self, request: Any) -> PullAppMessagesResponse:
        self._raise()
        self.pulls.append(len(request.message_ids))
        answer = PullAppMessagesResponse()
        for name in request.message_ids:
            reply = self.replies.pop(name, None)
            if reply is None:
                continue
            with no_object_id_recompute():
                reply.metadata.__dict__["_message_id"] = reply.object_id
                objects = {key: item.deflate() for key, item in get_all_nested_objects(reply).items()}
                answer.messages_list.append(message_to_proto(remove_content_from_message(reply)))
                answer.message_object_trees.append(get_object_tree(reply))
            self.damage(name, objects)
            self.objects |= objects
        return answer

    def PullObject(self, request: Any) -> PullObjectResponse:
        self._raise()
        content = self.objects.get(request.object_id)
        return PullObjectResponse(
            object_found=True, object_available=content is not None, object_content=content or b""
        )

    def ConfirmMessageReceived(self, request: Any) -> None:
        self.confirmed.append(request.message_object_id)

    def _raise(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture(autouse=True)
def _identity() -> Iterator[None]:
    before = (TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    yield
    TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = before


@pytest.fixture
def fleet() -> SimulatedFleet:
    return SimulatedFleet()


@pytest.fixture
def grid(fleet: SimulatedFleet) -> MemoryGrid:
    return MemoryGrid(fleet)


@pytest.fixture
def roster(fleet: SimulatedFleet, grid: MemoryGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database of sites, as far as the link reads it."""

    class Row:
        def __init__(self, name: str) -> None:
            site = fleet[name]
            self.site_id, self.name = site.key.public.id, name
            self.node_id, self.identity = str(grid.numbers[name]), site.key.public.raw
            self.revoked = "2026-01-01T00:00:00Z" if name == "west" else None

    monkeypatch.setattr(flower_grid, "read_sites", lambda _path: [Row(site.name) for site in fleet.all])


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
    grid.replies[ids[2]] = held
    assert found.late(ids) == {ids[2]: True}
    assert found.late(ids) == {}
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


@pytest.fixture
def started(fleet: SimulatedFleet, tmp_path: Path) -> tuple[ServerHome, RunDirectory, RoundPlan]:
    home = ServerHome(tmp_path / "server")
    for folder in (home.path, home.runs, home.logs, home.releases):
        folder.mkdir(mode=0o700)
    fleet.key.save(home.path / "signing.key")
    play = Play(fleet=fleet, folder=home.runs).with_rounds(count=1, wait_s=0.0)
    plan = RoundPlan.parse(
        documents.canonical({**documents.parse(play.plan().encode()), "release": {"enabled": False}})
    )
    run = RunDirectory(home.runs / plan.run_id)
    run.create(plan, play.initial, Launch(trained=tuple(sorted(play.initial))))
    run.offer(1)
    return home, run, plan


@pytest.mark.usefixtures("roster")
def test_one_process_drives_an_epoch_and_the_next_one_does_not(
    grid: MemoryGrid, started: tuple[ServerHome, RunDirectory, RoundPlan]
) -> None:
    home, run, _ = started
    assert flower_app.drive(grid, home, run, epoch=1, owner="7")  # type: ignore[arg-type]
    result = run.result()
    assert result is not None
    assert (result["outcome"], result["rounds"][0]["participants"]) == ("completed", 2)
    assert not run.key_file.exists()
    before = len(Reader(run.journal_file).events())
    assert not flower_app.drive(grid, home, run, epoch=1, owner="8")  # type: ignore[arg-type]
    assert len(Reader(run.journal_file).events()) == before
    assert runs.find(home.runs, "latest").summary().state == "completed"


@pytest.mark.usefixtures("roster")
def test_a_stop_file_ends_the_run(grid: MemoryGrid, started: tuple[ServerHome, RunDirectory, RoundPlan]) -> None:
    home, run, _ = started
    run.stop_file.touch()
    assert flower_app.drive(grid, home, run, epoch=1, owner="7")  # type: ignore[arg-type]
    assert run.summary().state == "stopped"


@pytest.mark.usefixtures("roster")
def test_a_run_that_cannot_start_has_a_result(
    grid: MemoryGrid, started: tuple[ServerHome, RunDirectory, RoundPlan]
) -> None:
    home, run, _ = started
    (home.path / "signing.key").unlink()
    assert flower_app.drive(grid, home, run, epoch=1, owner="7")  # type: ignore[arg-type]
    assert (run.summary().state, Reader(run.journal_file).events()[-1]["kind"]) == ("failed", "finished")


def test_the_run_key_is_encrypted_found_again_and_bound_to_the_server(
    fleet: SimulatedFleet, started: tuple[ServerHome, RunDirectory, RoundPlan]
) -> None:
    _, run, plan = started
    made = flower_app.run_key(plan, run, fleet.key)
    again = flower_app.run_key(plan, run, fleet.key)
    assert made is not None
    assert again is not None
    assert made.public == again.public
    assert made._seed not in run.key_file.read_bytes()
    with contextlib.suppress(AttributeError):
        assert run.key_file.stat().st_mode & 0o077 == 0


def _error(reply: Message) -> Message:
    metadata: Any = reply.metadata
    asked = Message(to_record(Frame(header=b"", signature=b"")), 1, "query")
    asked.metadata.__dict__["_message_id"] = metadata.reply_to_message_id
    return Message(Error(code=3, reason="node died"), reply_to=asked)
