"""What each call of the local API does: generators of messages that know nothing of gRPC and sockets."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from fedsite.client.consent import pause
from fedsite.client.local.activity import Activity, Board
from fedsite.client.local.local_limits import HEARTBEAT_S, MAX_MESSAGE
from fedsite.protocol import instants, local_pb2
from fedsite.protocol.errors import ConfigError, DocumentError

_log = logging.getLogger(__name__)

PACE_S: Final = 0.25  # shortest time between two messages of a watch, and age of a look at the site
MAX_ROUNDS: Final = 1000  # that are told
MAX_JSON: Final = MAX_MESSAGE * 3 // 4  # bytes of a `json` field
_STALE_S: Final = 5.0  # after which the site is looked at again though nothing was heard
T = TypeVar("T", bound=Message)
Answer = Callable[[Iterator[bytes], Callable[[], bool]], Iterator[Message]]


class Scoring(Protocol):
    """Whoever scores windows (score_link.ScoreLink)."""

    def score(self, asked: local_pb2.Windows) -> local_pb2.Scores:
        """Scores of windows.

        Raises:
            FedsiteError: no release, or windows of another shape.
        """

    def rest(self) -> None:
        """Called about once a second."""

    def close(self) -> None:
        """End what was started."""


class Calls:
    """The API's calls over a site's files and its agent's board."""

    def __init__(
        self,
        *,
        directory: Path,
        board: Board,
        status: Callable[[Activity], Mapping[str, Any]],
        rounds: Callable[[], Mapping[str, Any]],
        scoring: Scoring,
        clock: Callable[[], datetime] = instants.now,
    ) -> None:
        """Put the parts together.

        Args:
            directory: the site's state directory.
            board: what the agent is doing.
            status: the site as one JSON value with `findings` (overview.value).
            rounds: runs as one JSON value with `rounds`.
            scoring: scores windows.
            clock: UTC.
        """
        self._directory = directory
        self._board = board
        self._status = status
        self._rounds = rounds
        self._scoring = scoring
        self._clock = clock
        self._looking = threading.Lock()
        self._looked: tuple[int, float, local_pb2.SiteStatus] | None = None
        self._paused = self._pause() is not None

    def table(self) -> dict[str, Answer]:
        """The calls by name."""
        return {
            "Status": self.status,
            "Watch": self.watch,
            "Pause": self.pause,
            "Resume": self.resume,
            "Rounds": self.rounds,
            "Score": self.score,
        }

    def status(self, requests: Iterator[bytes], alive: Callable[[], bool]) -> Iterator[Message]:
        """How this site is."""
        _one(requests, local_pb2.StatusRequest)
        yield self._look(fresh=True)

    def watch(self, requests: Iterator[bytes], alive: Callable[[], bool]) -> Iterator[Message]:
        """The same whenever it changed."""
        _one(requests, local_pb2.WatchRequest)
        while True:
            seen, _ = self._board.look()
            yield self._look(fresh=False)
            if not self._board.wait(seen, HEARTBEAT_S, alive=alive):
                return
            time.sleep(PACE_S)

    def pause(self, requests: Iterator[bytes], alive: Callable[[], bool]) -> Iterator[Message]:
        """Pause, or change the pause."""
        asked = _one(requests, local_pb2.PauseRequest)
        if asked.seconds > pause.LONGEST.total_seconds():
            raise ConfigError(f"a pause of {asked.seconds} s", allowed=f"at most {pause.LONGEST.days} days")
        lasting = timedelta(seconds=asked.seconds) if asked.seconds else None
        _, changed = pause.begin(self._directory, lasting, asked.reason, self._clock())
        self._board.touch()
        yield self._pause_told(changed)

    def resume(self, requests: Iterator[bytes], alive: Callable[[], bool]) -> Iterator[Message]:
        """End a pause."""
        _one(requests, local_pb2.ResumeRequest)
        changed = pause.end(self._directory, self._clock())
        self._board.touch()
        yield self._pause_told(changed)

    def rounds(self, requests: Iterator[bytes], alive: Callable[[], bool]) -> Iterator[Message]:
        """Runs that wait for a person, and runs that were."""
        _one(requests, local_pb2.RoundsRequest)
        value = dict(self._rounds())
        value["rounds"] = value["rounds"][-MAX_ROUNDS:]
        while value["rounds"] and len(_plain(value).encode("utf-8")) > MAX_JSON:
            value["rounds"] = value["rounds"][(len(value["rounds"]) + 1) // 2 :]
        told = local_pb2.RoundList(json=_text(value))
        for row in value["rounds"]:
            told.rounds.add(
                run_id=_field(row, "run_id"),
                task=_field(row, "task"),
                state=_field(row, "state"),
                plan_hash=_field(row, "plan_hash"),
            )
        yield told

    def score(self, requests: Iterator[bytes], alive: Callable[[], bool]) -> Iterator[Message]:
        """Scores for windows, message by message."""
        for request in requests:
            yield self._scoring.score(_parsed(request, local_pb2.Windows))

    def left(self) -> None:
        """Hear that a caller has gone: its place is free at once."""
        self._board.wake()

    def rest(self) -> None:
        """Notice what changed without a call: a pause that ended, or was made by a command while no agent answered."""
        now_paused = self._pause() is not None
        if now_paused != self._paused:
            self._paused = now_paused
            self._board.touch()
        self._scoring.rest()

    def close(self) -> None:
        """Let everybody go."""
        self._board.close()
        self._scoring.close()

    def _look(self, *, fresh: bool) -> local_pb2.SiteStatus:
        """The site now; watchers share a look, which reads files and verifies the release."""
        with self._looking:
            number, activity = self._board.look()
            kept = self._looked
            age = time.monotonic() - kept[1] if kept is not None else 0.0
            if kept is not None and not fresh and kept[0] == number and age < _STALE_S:
                return kept[2]
            value = self._status(activity)
            told = local_pb2.SiteStatus(activity=told_activity(activity), json=_text(value))
            found = self._pause()
            if found is not None:
                told.pause.CopyFrom(found)
            for finding in value.get("findings", ()):
                told.findings.add(
                    **{name: _field(finding, name) for name in ("code", "severity", "title", "text", "remedy")},
                    depends_on=[str(code) for code in finding.get("depends_on", ())],
                )
            self._looked = (number, time.monotonic(), told)
            return told

    def _pause(self) -> local_pb2.Pause | None:
        found = pause.read(self._directory, self._clock())
        if found is None:
            return None
        return local_pb2.Pause(**{name: text or "" for name, text in pause.plain(found).items()})

    def _pause_told(self, changed: bool) -> local_pb2.Paused:
        found = self._pause()
        self._paused = found is not None
        if changed:
            _log.info("%s by the operator", "paused" if self._paused else "resumed")
        return local_pb2.Paused(pause=found, changed=changed, activity=told_activity(self._board.look()[1]))


def told_activity(activity: Activity) -> local_pb2.Activity:
    """An activity as a message."""
    return local_pb2.Activity(**asdict(activity))


def _one(requests: Iterator[bytes], kind: type[T]) -> T:
    """The one message of a call that takes one."""
    request = next(requests, None)
    if request is None:
        raise DocumentError("a call without its message", allowed=f"one {kind.__name__}")
    return _parsed(request, kind)


def _parsed(data: bytes, kind: type[T]) -> T:
    found = kind()
    try:
        found.ParseFromString(data)
    except (DecodeError, RecursionError, UnicodeDecodeError):
        raise DocumentError(
            f"{len(data)} bytes that are no {kind.__name__}", allowed="fedsite.local.v1 (protocol/local.proto)"
        ) from None
    return found


def _text(value: Mapping[str, Any]) -> str:
    text = _plain(value)
    size = len(text.encode("utf-8"))
    if size > MAX_JSON:
        raise DocumentError(f"an answer of {size} bytes", allowed=f"at most {MAX_JSON}", next_step="see the files")
    return text


def _plain(value: Mapping[str, Any]) -> str:
    """As JSON; a lone surrogate, of a file's name that is no text, is a question mark."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "replace").decode("utf-8")


def _field(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return "" if value is None else str(value).encode("utf-8", "replace").decode("utf-8")
