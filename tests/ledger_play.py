"""A whole run at one site, by the real Releases, Budget and Outbox, that can be killed or starved at any write.

The worker is none: it prices with fixed figures and answers with fresh noise each time, so that a value that was made
twice differs from one that was sent twice.
"""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from fedsite.client.ledger.budget import Budget
from fedsite.client.ledger.budget_entries import as_values
from fedsite.client.releases import Releases
from fedsite.client.settings import DataSettings, PolicySettings, Settings
from fedsite.client.store import Outbox
from fedsite.client.work import pipe
from fedsite.client.work.worker_link import WorkerError
from fedsite.models import spends
from fedsite.protocol import documents
from fedsite.protocol.errors import FedsiteError, RefusalCode
from fedsite.protocol.messages import Header
from fedsite.protocol.plan import LocalPlan, ModelPlan, PrivacyPlan, ProtectionPlan, RoundPlan, RoundsPlan
from fedsite.telemetry.task import load_task

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
RUN = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
COVERS = {"clock": "utc", "entities": {"pump-1": [0.0, 100.0], "pump-2": [0.0, 50.0]}}
GROWN = {"clock": "utc", "entities": {"pump-1": [0.0, 200.0], "pump-3": [0.0, 50.0]}}
PLAN = RoundPlan(
    federation="f" * 32,
    run_id=RUN,
    created="2026-03-01T12:00:00Z",
    task=load_task("pump").document,
    model=ModelPlan(name="mlp", options={"hidden": [4]}),
    local=LocalPlan(steps=3, sampling_rate=0.1),
    privacy=PrivacyPlan(
        mode="sample", unit="entity", epsilon=4.0, noise_multiplier=2.0, statistics_noise=10.0, calibration_noise=20.0
    ),
    protection=ProtectionPlan(mode="sealed"),
    rounds=RoundsPlan(count=3),
)
UNIT = PLAN.privacy.unit


@dataclass
class Worker:
    """Fresh bytes for every release."""

    covers: Mapping[str, Any] = field(default_factory=lambda: COVERS)
    refuses: bool = False

    def call(
        self, operation: str, arguments: Mapping[str, Any], blobs: Mapping[str, bytes], *, timeout_s: float
    ) -> pipe.Message:
        if operation == "cost":
            priced = as_values(spends.own(PLAN, spends.whole(PLAN)))
            figures = dict.fromkeys(("run", "round", "claim", "epsilon", "task"), 1.0)
            return pipe.Message(header={"spends": priced, **figures})
        if self.refuses:
            raise WorkerError("the data breaks the contract", refusal=RefusalCode.DATA_CONTRACT)
        if operation == "calibrate":
            raise WorkerError("killed by its memory")
        told = {"coverage": documents.canonical(self.covers)}
        return pipe.Message(header={}, blobs={**told, "values": os.urandom(16)} if operation != "prepare" else told)


@dataclass
class Play:
    """One site's directory, and what has been handed over to be sent there."""

    directory: Path
    worker: Worker = field(default_factory=Worker)
    clock: Callable[[], datetime] = lambda: NOW
    sent: Callable[[str, bytes], None] = lambda name, values: None

    @property
    def path(self) -> Path:
        """The budget."""
        return self.directory / "budget.db"

    def releases(self) -> Releases:
        """As after a restart of the agent."""
        return Releases(
            settings=Settings(data=DataSettings(path=str(self.directory / "pumps.csv")), policy=PolicySettings()),
            worker=self.worker,
            budget=partial(Budget, self.path),
            outbox=Outbox(self.directory / "outbox"),
            key=bytes(32),
            clock=self.clock,
        )

    def run(self) -> None:
        """The run from prepare to finish: two attempts at a round, data that grows, a calibration that fails twice."""
        self.prepare()
        releases = self.releases()
        self._release(releases, "statistics", 0)
        self._release(releases, "train", 1)
        self._release(self.releases(), "train", 1, attempt=2)
        self.worker.covers = GROWN
        self._release(releases, "train", 2)
        for _ in range(2):
            try:
                releases.values(header("calibrate", 2, blobs={"graph": "g"}), PLAN, {"graph": b"g"})
            except FedsiteError as error:
                if not isinstance(error, WorkerError) and error.refusal != "budget":
                    raise
                self.sent("calibrate", b"failed")
        self.finish()

    def prepare(self) -> None:
        """Accept the run."""
        self.releases().accept(header("prepare", 0), PLAN)
        self.sent("prepare", b"")

    def finish(self) -> None:
        """End it."""
        self.releases().finish(RUN)
        self.sent("finish", b"")

    def _release(self, releases: Releases, kind: str, number: int, attempt: int = 1) -> None:
        values = releases.values(header(kind, number, attempt=attempt), PLAN, {"model": b"m"})
        self.sent(f"{kind} {number}", values)


def header(kind: Any, number: int, attempt: int = 1, blobs: Mapping[str, str] = {}) -> Header:
    return Header(
        kind=kind, federation=PLAN.federation, site_id="s" * 32, run_id=RUN, round=number, attempt=attempt,
        plan_hash=PLAN.hash, blobs=dict(blobs),
    )  # fmt: skip


class Points:
    """Counts everything that changes a file, and kills this process at one of them: before it is done, or after."""

    def __init__(self, kill_at: int = -1, *, after: bool = False) -> None:
        self.count = 0
        self.names: list[str] = []
        self._kill_at = kill_at
        self._after = after

    def watch(self) -> None:
        """Put this between the program and its files; for a process of its own, which never takes it out again."""
        points = self

        class Watched(sqlite3.Connection):
            reading = False

            def execute(self, sql: str, *given: Any) -> sqlite3.Cursor:
                execute = super().execute
                words = sql.split()
                if words[0] == "BEGIN":
                    self.reading = words[1] == "DEFERRED"
                asks = words[0] == "SELECT" or (words[0] == "PRAGMA" and "=" not in sql)
                if asks or self.reading:
                    return execute(sql, *given)
                found: sqlite3.Cursor = points.at(" ".join(words[:3]), lambda: execute(sql, *given))
                return found

        connect, replace, sync, made = sqlite3.connect, os.replace, os.fsync, os.open

        def opened(path: Any, flags: int, *given: Any, **named: Any) -> int:
            if not flags & os.O_CREAT:
                return made(path, flags, *given, **named)
            return int(self.at("open", lambda: made(path, flags, *given, **named)))

        instead(sqlite3, "connect", partial(connect, factory=Watched))
        instead(os, "replace", lambda *given: self.at("rename", lambda: replace(*given)))
        instead(os, "fsync", lambda handle: self.at("fsync", lambda: sync(handle)))
        instead(os, "open", opened)

    def at(self, name: str, do: Callable[[], Any]) -> Any:
        number, self.count = self.count, self.count + 1
        self.names.append(name)
        if number == self._kill_at and not self._after:
            os.kill(os.getpid(), signal.SIGKILL)
        found = do()
        if number == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return found


def instead(module: ModuleType, name: str, function: Any) -> None:
    """Put a function into the place of another, in a process that ends soon."""
    setattr(module, name, function)


@dataclass
class Ended:
    """What is known of a process that ended: how, and what it said before."""

    code: int  # of os.waitstatus_to_exitcode: 0, or minus the signal
    said: list[tuple[str, bytes]]


def apart(work: Callable[[Callable[[str, bytes], None]], None]) -> Ended:
    """Do `work` in a process of its own, which shares nothing but files; it is given a way to say things."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reader)
            work(lambda name, data: _say(writer, name, data))
            code = 0
        except FedsiteError as error:
            _say(writer, "error", type(error).__name__.encode())
        except BaseException as error:
            _say(writer, "defect", repr(error).encode())
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe_end:
        said = list(_heard(pipe_end))
    return Ended(code=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said=said)


def _say(writer: int, name: str, data: bytes) -> None:
    os.write(writer, f"{name}\t{data.hex()}\n".encode())  # below PIPE_BUF: whole or not at all


def _heard(reader: BinaryIO) -> Iterator[tuple[str, bytes]]:
    for line in reader:
        name, _, data = line.decode().rstrip("\n").partition("\t")
        yield name, bytes.fromhex(data)
