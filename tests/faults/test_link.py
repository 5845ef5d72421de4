"""A link that is lost for hours, clocks that jump, agents that die at every write: nothing lost, nothing sent twice."""

from __future__ import annotations

import os
import signal
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fedsite.client.identity.site import Site
from fedsite.client.settings import PolicySettings, Settings
from fedsite.protocol import instants
from fedsite.protocol.errors import RefusalCode, UnreachableError
from fedsite.protocol.kept import decode
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.messages import Frame
from tests.client.conftest import Centre, FakeWorker, Kit
from tests.faults.simulated_link import START, Link, Server, World, in_child, run

HOUR = 3600.0


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    return _kit(tmp_path)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def server(tmp_path: Path, world: World) -> Server:
    return Server(tmp_path / "server", world)


def asked(kit: Kit, server: Server, kind: str = "prepare", *, within_s: float = 24 * HOUR, **changes: Any) -> int:
    """Ask something that counts for so long; its number."""
    plan, expires = kit.centre.plan(), START + timedelta(seconds=within_s)
    changes = {"expires": instants.text(expires), **changes}
    if kind == "prepare":
        frame = kit.centre.prepare(kit.site, plan, **changes)
    elif kind == "train":
        frame = kit.centre.train(kit.site, plan, **changes)
    else:
        frame = kit.centre.ask(kit.site, kind, plan, **changes)
    return server.ask(frame, expires)


def outcome(kit: Kit, server: Server, number: int) -> str:
    """What the server read in the answer to an instruction: its outcome, and its code where it has one."""
    answer = server.answer(number)
    if answer is None:
        return "none"
    frame = decode((server.folder / f"{number:03}.asked").read_bytes())
    reply = kit.centre.open(kit.site, answer, frame)
    return reply.outcome if reply.code is None else str(reply.code)


def unsent(kit: Kit) -> list[Path]:
    return list((kit.site.directory / "outbox" / "unsent").glob("*.entry"))


def test_an_answer_waits_six_hours_for_the_link_and_goes_out_once(kit: Kit, world: World, server: Server) -> None:
    number = asked(kit, server)
    link, states = Link(server, world, until=8 * HOUR), list[dict[str, Any]]()
    link.failures = [UnreachableError("cut")]
    world.down = [(1.0, 6 * HOUR)]
    _cut_after(link, world)
    run(link, kit, states)
    assert outcome(kit, server, number) == "ok"
    assert len(server.pushed()) == 1
    assert unsent(kit) == []
    lost = [state for state in states if state["state"] == "unreachable"]
    assert all(state["unsent"] == 1 for state in lost)
    pauses = [later - earlier for earlier, later in zip(link.tried, link.tried[1:], strict=False)]
    assert max(pauses) <= 45.0
    assert len(link.tried) < 6 * HOUR / 20  # it is not asked for more often than that on the average
    assert states[-1]["state"] == "idle"


def test_an_answer_that_expired_with_its_attempt_is_dropped_by_name(
    kit: Kit, world: World, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    number = asked(kit, server, within_s=600.0)
    link = Link(server, world, until=8 * HOUR)
    link.failures = [UnreachableError("cut")]
    _cut_after(link, world)
    world.down = [(1.0, 6 * HOUR)]
    run(link, kit)
    assert outcome(kit, server, number) == "none"
    assert unsent(kit) == []
    assert "prepare of run" in caplog.text
    assert "expired with its attempt at 2026-03-01T12:10:00Z and was dropped" in caplog.text


def test_an_outage_over_several_agents_loses_nothing(kit: Kit, world: World, server: Server) -> None:
    numbers = [asked(kit, server), asked(kit, server, "train", within_s=12 * HOUR)]
    world.down = [(1.0, 5 * HOUR)]
    link = Link(server, world)
    link.failures = [UnreachableError("cut")]
    _cut_after(link, world)
    _stop_at(link, world, HOUR)
    run(link, kit)
    for until in (2 * HOUR, 3 * HOUR):
        link = Link(server, world)
        _stop_at(link, world, until)
        run(link, kit)
        assert len(unsent(kit)) == 1
    run(Link(server, world, until=6 * HOUR), kit)
    assert [outcome(kit, server, number) for number in numbers] == ["ok", "ok"]
    assert sorted(number for number, _ in server.pushed()) == numbers


@pytest.mark.parametrize("by", [HOUR, -HOUR])
def test_a_clock_that_jumps_is_named_and_waited_out(kit: Kit, world: World, server: Server, by: float) -> None:
    number = asked(kit, server)
    world.wrong = [(0.0, HOUR / 2, by)]
    states: list[dict[str, Any]] = []
    run(Link(server, world, until=HOUR), kit, states)
    assert outcome(kit, server, number) == "ok"
    wrong = [state for state in states if state["state"] == "clock"]
    assert wrong
    assert wrong[0]["error"] == f"this host's clock is {by:.0f} s wrong"
    assert max(state["seconds"] for state in wrong) < HOUR / 2
    assert states[-1]["state"] == "idle"


@pytest.mark.parametrize("by", [HOUR, -HOUR])
def test_a_clock_that_jumps_while_an_answer_is_made_costs_no_more_than_that_answer(
    kit: Kit, world: World, server: Server, by: float
) -> None:
    """Ahead, the instruction looks expired and is refused before data is read; behind, it is answered; sent later."""
    first = asked(kit, server)
    run(Link(server, world), kit)
    train = asked(kit, server, "train", within_s=world.seconds + HOUR / 2)
    begin = world.seconds
    world.wrong = [(begin, begin + 600, by)]
    link = Link(server, world, until=begin + HOUR / 4)
    link._check = _only(link, "push")  # type: ignore[method-assign]
    kit.now = world.site_now
    run(link, kit)
    assert outcome(kit, server, first) == "ok"
    assert outcome(kit, server, train) == ("expired" if by > 0 else "ok")
    assert len(server.pushed()) == 2
    kit.now = world.now
    again = asked(kit, server, "train", within_s=world.seconds + HOUR, attempt=2)
    run(Link(server, world), kit)
    assert outcome(kit, server, again) == "ok"
    assert sum(spend.steps for spend in kit.spent()) == 3  # charged once, whichever of the two was answered


SCRIPT = ("prepare", "statistics", "train", "finish")


def _killed_at(place: int) -> Any:
    """Patch what changes files, so that this process dies at the given step; counts the steps."""
    count = Counter[str]()

    def dying(original: Any) -> Any:
        def step(*arguments: Any, **names: Any) -> Any:
            for moment in ("before", "after"):
                if count["steps"] == place:
                    os.kill(os.getpid(), signal.SIGKILL)
                count["steps"] += 1
                if moment == "before":
                    found = original(*arguments, **names)
            return found

        return step

    os.replace, os.unlink = dying(os.replace), dying(os.unlink)
    Path.replace, Path.unlink = dying(Path.replace), dying(Path.unlink)  # type: ignore[method-assign]
    return count


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 13])
def test_an_agent_that_dies_at_any_write_sends_nothing_twice_and_pays_once(tmp_path: Path, every: int) -> None:
    """At each change of a file in turn, before it and after it; then comes the next agent, and the next attempt."""
    cases, again = 0, Counter[str]()
    for place in range(3, 500, every) if every > 1 else range(500):
        (folder := tmp_path / str(place)).mkdir()
        world, kit = World(), _kit(folder)
        server = Server(folder / "server", world)

        def dies(place: int = place, kit: Kit = kit, server: Server = server, world: World = world) -> None:
            _killed_at(place)
            for kind in SCRIPT:
                asked(kit, server, kind)
                run(Link(server, world), kit)

        ended = in_child(dies)
        assert ended in (0, -signal.SIGKILL)
        run(Link(server, world), kit)  # what was left is sent, or named
        numbers = dict(zip(SCRIPT, range(len(list(server.folder.glob("*.asked")))), strict=False))
        for kind in SCRIPT:
            if kind not in numbers:
                numbers[kind] = asked(kit, server, kind)
            elif server.answer(numbers[kind]) is None:  # it was being worked on
                again[kind] += 1
                numbers[kind] = asked(kit, server, kind, attempt=2)
            run(Link(server, world), kit)
            assert outcome(kit, server, numbers[kind]) == "ok", (place, kind)
        assert len({number for number, _ in server.pushed()}) == len(set(server.pushed())), place
        assert sorted(spend.steps for spend in kit.spent()) == [1, 3], place
        assert unsent(kit) == []
        if ended == 0:
            break
        cases += 1
    print(f"{cases} places, {again.total()} instructions asked again")
    assert cases * every >= 60
    assert again.total() < cases


def test_a_server_that_went_back_to_a_backup_gets_refusals_or_the_same_values(
    kit: Kit, world: World, server: Server
) -> None:
    """Its journal has forgotten round 2: asked as the same attempt it is `replayed`, as a later one sent again."""
    for kind in SCRIPT[:3]:
        asked(kit, server, kind)
    asked(kit, server, "train", round=2)
    run(Link(server, world), kit)
    before = kit.spent()
    calls = len(kit.worker.calls)
    forgotten = [
        asked(kit, server, "train", round=2, within_s=23 * HOUR),
        asked(kit, server, "statistics", within_s=23 * HOUR),
        asked(kit, server, "train", round=1, within_s=23 * HOUR),
    ]
    driven_again = [asked(kit, server, "train", round=2, attempt=1001), asked(kit, server, "train", attempt=1002)]
    unknown = asked(kit, server, "train", run_id="01BX5ZZKBKACTAV9WEVGEMMVRZ")
    run(Link(server, world), kit)
    assert [outcome(kit, server, number) for number in forgotten] == [RefusalCode.REPLAYED] * 3
    assert [outcome(kit, server, number) for number in driven_again] == ["ok", "ok"]
    assert outcome(kit, server, unknown) == RefusalCode.PLAN_UNKNOWN
    assert kit.spent() == before
    assert not [name for name, _ in kit.worker.calls[calls:] if name in ("train", "statistics")]


def test_a_server_that_forgot_that_a_run_is_over_hears_so(kit: Kit, world: World, server: Server) -> None:
    for kind in SCRIPT:
        asked(kit, server, kind)
    run(Link(server, world), kit)
    before = kit.spent()
    late = [asked(kit, server, kind, attempt=1001) for kind in ("prepare", "train")]
    run(Link(server, world), kit)
    assert [outcome(kit, server, number) for number in late] == [RefusalCode.REPLAYED] * 2
    assert kit.spent() == before


def _kit(folder: Path) -> Kit:
    centre = Centre()
    site = Site(directory=folder / "site", name="alpha", federation=centre.federation, key=SigningKey.generate())
    site.directory.mkdir()
    return Kit(centre=centre, site=site, worker=FakeWorker(), settings=Settings(policy=PolicySettings()))


def _cut_after(link: Link, world: World) -> None:
    """The link goes down while the first answer is on its way."""
    push = link.push

    def cut(received: Any, frame: Frame, noted: Any) -> bool:
        world.seconds = max(world.seconds, 1.0)
        link.push = push  # type: ignore[method-assign]
        raise link.failures.pop(0)

    link.push = cut  # type: ignore[method-assign]


def _stop_at(link: Link, world: World, until: float) -> None:
    """End the agent while it looks for the server."""
    activate = link.activate

    def stopping() -> None:
        if world.seconds >= until:
            assert link.agent is not None
            link.agent.stop()
        activate()

    link.activate = stopping  # type: ignore[method-assign]


def _only(link: Link, where: str) -> Any:
    """A request that was let in before the clock jumped may still bring an instruction: only sending is refused."""
    check = type(link)._check
    pulled = [0]

    def lenient() -> None:
        pulled[0] += 1
        if pulled[0] > 2:  # activate, and the pull that was held
            check(link)

    assert where == "push"
    return lenient
