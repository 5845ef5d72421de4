"""A server and the way to it, whose link, clock and memory fail on demand; hours pass as fast as they are counted.

The server keeps what it was told in files, so that an agent that dies in a child process is not forgotten. As Flower
does, it hands an instruction out once, takes one answer to each, and takes the very same answer again without a word.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fedsite.client.agent import Agent
from fedsite.client.link.clocks import ClockError
from fedsite.client.link.flower_fleet import poll_delay
from fedsite.client.link.unsent import Unsent
from fedsite.protocol.errors import UnreachableError
from fedsite.protocol.kept import decode, encode
from fedsite.protocol.messages import Frame

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
HELD_S = 20.0  # an empty pull


@dataclass
class World:
    """Time, and what is wrong at which of its seconds."""

    seconds: float = 0.0
    down: list[tuple[float, float]] = field(default_factory=list)  # the link
    wrong: list[tuple[float, float, float]] = field(default_factory=list)  # the site's clock, and by how much

    @property
    def now(self) -> datetime:
        """By the server's clock."""
        return START + timedelta(seconds=self.seconds)

    @property
    def skew(self) -> float:
        """Seconds that the site's clock is ahead."""
        return sum(by for begin, end, by in self.wrong if begin <= self.seconds < end)

    @property
    def site_now(self) -> datetime:
        """By the site's clock."""
        return self.now + timedelta(seconds=self.skew)

    @property
    def up(self) -> bool:
        return not any(begin <= self.seconds < end for begin, end in self.down)


@dataclass
class Server:
    """What the server knows, in files; instructions are asked for one after the other."""

    folder: Path
    world: World
    expires: dict[int, datetime] = field(default_factory=dict)  # by the instruction's number

    def ask(self, frame: Frame, expires: datetime | None = None) -> int:
        """Put an instruction on the way; its number."""
        self.folder.mkdir(exist_ok=True)
        number = len(list(self.folder.glob("*.asked")))
        (self.folder / f"{number:03}.asked").write_bytes(encode(frame))
        if expires is not None:
            self.expires[number] = expires
        return number

    def next(self) -> tuple[int, Frame] | None:
        """Hand one out; never again."""
        for path in sorted(self.folder.glob("*.asked")):
            taken = path.with_suffix(".taken")
            if not taken.exists():
                taken.write_bytes(b"")
                return int(path.stem), decode(path.read_bytes())
        return None

    def take(self, number: int, frame: Frame) -> bool:
        """Take an answer; false when it is too late."""
        data = encode(frame)
        with (self.folder / "pushed").open("a") as file:
            file.write(json.dumps([number, hashlib.sha256(data).hexdigest()]) + "\n")
        if number in self.expires and self.world.now >= self.expires[number]:
            return False
        path = self.folder / f"{number:03}.answer"
        if not path.exists():
            path.write_bytes(data)
        return True

    def answer(self, number: int) -> Frame | None:
        path = self.folder / f"{number:03}.answer"
        return decode(path.read_bytes()) if path.exists() else None

    def pushed(self) -> list[tuple[int, str]]:
        """Every answer that ever arrived: number and digest."""
        path = self.folder / "pushed"
        return [tuple(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


class Link:
    """The agent's end."""

    def __init__(self, server: Server, world: World, until: float | None = None) -> None:
        self.server, self.world, self.until = server, world, until
        self.agent: Agent | None = None
        self.tried: list[float] = []  # when a connection was looked for
        self.failures: list[Exception] = []  # of the next pushes

    def activate(self) -> None:
        self.tried.append(self.world.seconds)
        self._check()

    def pull(self) -> tuple[Any, Frame] | None:
        self._check()
        found = self.server.next()
        if found is not None:
            return found
        if self.until is None or self.world.seconds >= self.until:
            assert self.agent is not None
            self.agent.stop()
        self.world.seconds += HELD_S
        return None

    def push(self, received: Any, frame: Frame, noted: Callable[[bytes], None]) -> bool:
        self._check()
        if self.failures:
            raise self.failures.pop(0)
        noted(self.note(received))
        return self.server.take(received, frame)

    def note(self, received: Any) -> bytes:
        return str(received).encode()

    def recall(self, note: bytes) -> Any:
        return int(note)

    def close(self) -> None: ...

    def _check(self) -> None:
        if not self.world.up:
            raise UnreachableError("the link is down")
        if not -305 < self.world.skew < 5:
            raise ClockError(f"this host's clock is {self.world.skew:.0f} s wrong")


class NoWorker:
    """There is none to end."""

    def close_if_idle(self) -> bool:
        return False

    def close(self) -> None: ...

    def interrupt(self) -> None: ...


def run(link: Link, kit: Any, states: list[dict[str, Any]] | None = None) -> None:
    """One agent on the site's directory, until there is nothing to do at `link.until`."""
    world = link.world

    def wait(seconds: float) -> None:
        world.seconds += seconds

    told = [] if states is None else states
    link.agent = Agent(
        link=link,
        handler=kit.handler(),
        worker=NoWorker(),
        delay=poll_delay,
        unsent=Unsent(kit.outbox, clock=lambda: world.site_now),
        report=lambda state: told.append({**state, "seconds": world.seconds}),
        uniform=lambda: 0.5,
        clock=lambda: world.seconds,
        now=lambda: world.site_now,
        wait=wait,
    )
    link.agent.run()


def in_child(action: Callable[[], None]) -> int:
    """Do it in a forked process; how that ended (its exit status, or minus the signal)."""
    child = os.fork()
    if child == 0:
        try:
            action()
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)
