"""The command line's end of the agent's socket: thin, with a deadline on every call."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
from numpy.typing import NDArray

from fedsite.client.device.release_scorer import Scored
from fedsite.client.local import local_socket
from fedsite.client.local.local_errors import decode
from fedsite.client.local.local_limits import MAX_MESSAGE, MAX_WINDOWS, SERVICE
from fedsite.protocol import local_pb2
from fedsite.protocol.errors import DataError, IntegrityError, UnreachableError

CALL_S: Final = 15.0  # for one answer
QUIET_S: Final = 45.0  # of a watch: three of the agent's own
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),  # an agent that came back is not taken for the one that was gone
)
_ROOM: Final = 1 << 16  # bytes of a message that are not values


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseTold:
    """What the agent says after `pause` or `resume`."""

    pause: Mapping[str, Any] | None  # since, until (or None), reason; None: not paused
    changed: bool  # False: it was so already
    working: Mapping[str, Any] | None  # kind, run_id, round of what ends first


class LocalClient:
    """Calls of the local API; errors are those that the agent had."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def status(self) -> dict[str, Any]:
        """How the site is, as `fedsite status --json` prints it.

        Raises:
            UnreachableError: no answer. Others of the tree: as the agent says.
        """
        return _json(self._one("Status", local_pb2.StatusRequest(), local_pb2.SiteStatus).json)

    def watch(self) -> Iterator[dict[str, Any]]:
        """The same at once and whenever something changed, until the agent ends.

        Raises:
            UnreachableError: the agent has ended, or says nothing any more.
        """
        call = self._call("Watch", iter([local_pb2.WatchRequest()]), None)
        try:
            for found in _received(call, local_pb2.SiteStatus):
                yield _json(found.json)
        finally:
            call.cancel()
        raise UnreachableError("the agent has ended", next_step="fedsite up")

    def pause(self, lasting: timedelta | None, reason: str = "") -> PauseTold:
        """Pause for a time, or, with None, until `resume`. Raises as `status`."""
        seconds = 0 if lasting is None else max(1, round(lasting.total_seconds()))
        return _pause(self._one("Pause", local_pb2.PauseRequest(seconds=seconds, reason=reason), local_pb2.Paused))

    def resume(self) -> PauseTold:
        """End a pause. Raises as `status`."""
        return _pause(self._one("Resume", local_pb2.ResumeRequest(), local_pb2.Paused))

    def rounds(self) -> dict[str, Any]:
        """Runs as `fedsite rounds --json` prints them. Raises as `status`."""
        return _json(self._one("Rounds", local_pb2.RoundsRequest(), local_pb2.RoundList).json)

    def scoring(self, *, task: str = "") -> AgentScorer:
        """A stream of windows through the release that the agent holds.

        Args:
            task: refuse a release of any other task; empty: any.
        """
        return AgentScorer(self, task)

    def _one(self, name: str, request: Any, kind: Any) -> Any:
        call = self._call(name, iter([request]), CALL_S)
        for found in _received(call, kind):
            return found
        raise UnreachableError("the agent ended without an answer", next_step="fedsite status")

    def _call(self, name: str, requests: Iterator[Any], timeout_s: float | None) -> Any:
        method = self._channel.stream_stream(f"/{SERVICE}/{name}")
        return method((request.SerializeToString() for request in requests), timeout=timeout_s)


class AgentScorer:
    """Scores windows through the agent, in one stream; a message holds as many windows as fit."""

    def __init__(self, client: LocalClient, task: str) -> None:
        self._client = client
        self._task = task
        self.version = ""  # of the release that scored the last windows

    def scores(self, parts: Sequence[NDArray[np.float32]]) -> list[Scored]:
        """As WindowScorer.

        Raises:
            DataError: windows of another shape. IntegrityError: the release changed in between, or does not verify.
            UnreachableError: the agent has ended.
        """
        messages = [_pieces(part) for part in parts]
        asked = [piece for pieces in messages for piece in pieces]
        call = self._client._call("Score", map(self._asked, asked), CALL_S + 1e-3 * CALL_S * len(asked))
        found = list(_received(call, local_pb2.Scores))
        versions = {item.version for item in found}
        if len(found) != len(asked) or len(versions) != 1:
            raise IntegrityError("the release changed while it was scoring", next_step="repeat the command")
        self.version = versions.pop()
        told = iter(found)
        return [_together([next(told) for _ in pieces]) for pieces in messages]

    def _asked(self, x: NDArray[np.float32]) -> local_pb2.Windows:
        windows, length, features = x.shape
        return local_pb2.Windows(
            task=self._task, windows=windows, time=length, features=features, values=x.astype("<f4").tobytes()
        )


def _pieces(x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    if x.ndim != 3 or not x.size:
        raise DataError(f"windows of shape {list(x.shape)}", allowed="[windows, time, feature]")
    step = min(MAX_WINDOWS, max(1, (MAX_MESSAGE - _ROOM) // (4 * x.shape[1] * x.shape[2])))
    return [x[at : at + step] for at in range(0, len(x), step)]


def _together(found: Sequence[local_pb2.Scores]) -> Scored:
    values = [np.frombuffer(item.values, "<f8").reshape(tuple(item.shape)) for item in found]
    return Scored(values=np.concatenate(values), milliseconds=sum(item.milliseconds for item in found))


@contextmanager
def connect(directory: Path) -> Iterator[LocalClient | None]:
    """The agent of this state directory while it is needed; None where none runs.

    Raises:
        TrustError: the socket is somebody else's.
    """
    from fedsite.client import state_directory

    path = local_socket.find(directory) if state_directory.running(directory) else None
    if path is None:
        yield None
        return
    channel = grpc.insecure_channel(local_socket.target(path), options=_OPTIONS)
    try:
        yield LocalClient(channel)
    finally:
        channel.close()


def _received(call: Any, kind: Any) -> Iterator[Any]:
    try:
        for data in call:
            found = kind()
            found.ParseFromString(data)
            yield found
    except grpc.RpcError as error:
        raise decode(error) from None


def _pause(found: local_pb2.Paused) -> PauseTold:
    doing = found.activity
    told = {"since": found.pause.since, "until": found.pause.until or None, "reason": found.pause.reason}
    working = {"kind": doing.kind, "run_id": doing.run_id, "round": doing.round}
    return PauseTold(
        pause=told if found.HasField("pause") else None,
        changed=found.changed,
        working=working if doing.state == "working" else None,
    )


def _json(text: str) -> dict[str, Any]:
    value = json.loads(text)
    assert isinstance(value, dict)
    return value
