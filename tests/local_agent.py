"""The local API in this process, over a site that is only values: for tests of what goes over the socket."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from fedsite.client.consent import pause
from fedsite.client.local import local_socket
from fedsite.client.local.activity import Activity, Board
from fedsite.client.local.local_api import LocalApi
from fedsite.client.local.local_calls import Calls
from fedsite.client.local.local_client import LocalClient
from fedsite.client.local.local_limits import SERVICE
from fedsite.protocol import instants, local_pb2
from fedsite.protocol.errors import DataError

FINDING = {
    "code": "disk", "severity": "warning", "title": "the disk fills up", "text": "1 MB free", "remedy": "df -h",
    "depends_on": ["settings"],
}  # fmt: skip
ROUND = {"run_id": "R1", "task": "pump", "state": "waiting", "plan_hash": "00ff", "epsilon": 1.5}


@dataclass(slots=True)
class FakeScoring:
    """Gives each window the sum of its values; refuses a task named otherwise."""

    rested: int = 0
    closed: int = 0

    def score(self, asked: local_pb2.Windows) -> local_pb2.Scores:
        import numpy as np

        if asked.task not in ("", "pump"):
            raise DataError(f"task {asked.task}", allowed="pump", next_step="fedsite model status")
        x = np.frombuffer(asked.values, "<f4").reshape(asked.windows, -1).sum(axis=1)
        return local_pb2.Scores(
            version="1.0", shape=[len(x)], values=x.astype("<f8").tobytes(), milliseconds=0.5, threshold=3.0
        )

    def rest(self) -> None:
        self.rested += 1

    def close(self) -> None:
        self.closed += 1


@dataclass(slots=True)
class LocalAgent:
    """A listening API and ways to talk to it."""

    directory: Path
    board: Board = field(default_factory=lambda: Board(pid=17))
    scoring: FakeScoring = field(default_factory=FakeScoring)
    runs: list[dict[str, Any]] = field(default_factory=lambda: [ROUND])
    failure: Exception | None = None
    looks: int = 0
    api: Any = None
    channel: Any = None

    def __enter__(self) -> LocalAgent:
        self.api = LocalApi(local_socket.prepare(self.directory), self.calls())
        self.api.start()
        options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.insecure_channel(local_socket.target(self.api.path), options=options)
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()
        self.api.close()

    def calls(self) -> Calls:
        """What answers behind the socket."""
        return Calls(
            directory=self.directory,
            board=self.board,
            status=self.status,
            rounds=lambda: {"schema": "fedsite.rounds/1", "rounds": self.runs},
            scoring=self.scoring,
        )

    def status(self, activity: Activity) -> Mapping[str, Any]:
        self.looks += 1
        if self.failure is not None:
            raise self.failure
        return {"schema": "fedsite.status/2", "agent": {"state": activity.state}, "findings": [FINDING]}

    def client(self) -> LocalClient:
        return LocalClient(self.channel)

    def call(self, name: str, *messages: bytes, **options: Any) -> list[bytes]:
        """What a call answers, byte for byte."""
        method = self.channel.stream_stream(f"/{SERVICE}/{name}")
        return list(method(iter(messages), timeout=20.0, **options))

    def refusal(self, name: str, *messages: bytes, **options: Any) -> Any:
        """The gRPC error that a call ends with."""
        try:
            self.call(name, *messages, **options)
        except grpc.RpcError as error:
            return error
        raise AssertionError(f"{name} was answered")

    def well(self) -> bool:
        """Whether it still answers, and nothing has changed."""
        told = local_pb2.SiteStatus.FromString(self.call("Status", b"")[0])
        return not told.HasField("pause") and json.loads(told.json)["findings"] == [FINDING]

    def as_before(self) -> None:
        """Wait until no call is left, end what a test has begun, and see that it is well."""
        until = time.monotonic() + 30.0
        while self.api.busy and time.monotonic() < until:
            time.sleep(0.01)
        assert not self.api.busy
        self.failure = None
        pause.end(self.directory, instants.now())
        assert self.well()

    def write(self, data: bytes) -> bytes:
        """Write raw bytes to the socket; returns the beginning of what came back."""
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(5.0)
            raw.connect(str(self.api.path))
            try:
                raw.sendall(data)
                raw.shutdown(socket.SHUT_WR)
                return raw.recv(4096)
            except (BrokenPipeError, ConnectionResetError):
                return b""


@contextmanager
def listening() -> Iterator[LocalAgent]:
    """One that listens, in a directory of its own."""
    directory = short_directory()
    try:
        with LocalAgent(directory) as running:
            yield running
    finally:
        drop(directory)


def short_directory() -> Path:
    """A directory of a short path."""
    return Path(tempfile.mkdtemp(prefix="fs-"))


def drop(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
