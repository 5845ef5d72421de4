"""The agent's hold on the process that scores windows: started when asked, ended when nobody has asked for long."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Final

from fedsite.client.local.local_errors import of_child
from fedsite.client.local.local_limits import MAX_WINDOWS
from fedsite.client.work import memory
from fedsite.client.work.worker_link import WorkerError, WorkerLink
from fedsite.protocol import local_pb2
from fedsite.protocol.errors import ConfigError, DataError

IDLE_S: Final = 60.0  # without windows, after which the process ends
MESSAGE_S: Final = 60.0  # for the windows of one message


class ScoreLink:
    """One process for every stream; messages take turns."""

    def __init__(self, directory: Path, *, memory_bytes: int, idle_s: float = IDLE_S) -> None:
        """Prepare, without starting anything.

        Args:
            directory: the site's state directory.
            memory_bytes: most the process may take; 0: no bound.
            idle_s: seconds without windows after which it ends.
        """
        self._turn = threading.Lock()
        self._closed = False
        self._worker = WorkerLink(
            directory / "logs" / "scoring.log",
            idle_s=idle_s,
            memory_bytes=memory_bytes,
            command=(sys.executable, "-m", "fedsite.client.device.score_child", str(directory)),
        )

    @property
    def pid(self) -> int | None:
        """Of the process while it runs."""
        return self._worker.pid

    def score(self, asked: local_pb2.Windows) -> local_pb2.Scores:
        """Scores of windows.

        Raises:
            DataError: windows of another shape than they say, or than the release takes.
            ConfigError: no release is installed, or it is of another task. IntegrityError: it does not verify.
        """
        shape = [asked.windows, asked.time, asked.features]
        if 0 in shape or asked.windows > MAX_WINDOWS or 4 * shape[0] * shape[1] * shape[2] != len(asked.values):
            raise DataError(
                f"windows {shape} in {len(asked.values)} bytes",
                allowed=f"windows × time × features float32 values, at most {MAX_WINDOWS} windows",
            )
        with self._turn:
            if self._closed:
                raise ConfigError("the agent is ending", next_step="fedsite up")
            try:
                answer = self._worker.call(
                    "score", {"shape": shape, "task": asked.task}, {"x": asked.values}, timeout_s=MESSAGE_S
                )
            except WorkerError as error:
                raise of_child(error) from None
        told = local_pb2.Scores(
            version=answer.header["version"],
            shape=answer.header["shape"],
            values=answer.blobs["values"],
            milliseconds=answer.header["milliseconds"],
        )
        if answer.header["threshold"] is not None:
            told.threshold = answer.header["threshold"]
        return told

    def rest(self) -> None:
        """End the process when nobody has scored for long."""
        if self._turn.acquire(blocking=False):
            try:
                if self._worker.close_if_idle():
                    memory.give_back()  # what its messages took here
            finally:
                self._turn.release()

    def close(self) -> None:
        """End the process, also in the middle of a message."""
        self._closed = True
        self._worker.interrupt()
        with self._turn:
            self._worker.close(grace_s=0.0)
