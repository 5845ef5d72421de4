"""`python -m fedsite.client.device.score_child STATE PARENT MEMORY`: scores with the installed release.

It holds the release and onnxruntime, never torch. It looks at the installed release again when another one was made
current, and every ten seconds: a changed file is not used for long. It ends with the agent that started it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from fedsite.client.device.release_scorer import ReleaseScorer
from fedsite.client.device.slots import CURRENT, Slots
from fedsite.client.work import lifeline, memory, pipe, worker
from fedsite.protocol.errors import ConfigError, DataError

CHECK_S: Final = 10.0  # after which the installed release is verified again


class Scoring:
    """The process's one operation, over the release that is installed now."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._scorer: ReleaseScorer | None = None
        self._mark: Any = None
        self._checked = 0.0

    def score(self, arguments: Mapping[str, Any], blobs: Mapping[str, bytes]) -> pipe.Message:
        """Score windows.

        Raises:
            FedsiteError: no release that verifies, another task, windows of another shape or with gaps.
        """
        scorer = self._current()
        name = scorer.manifest.task.get("name")
        if arguments["task"] and arguments["task"] != name:
            raise ConfigError(
                f"the release is for task {name}", allowed=arguments["task"], next_step="fedsite model status"
            )
        x = np.frombuffer(blobs["x"], "<f4").reshape(arguments["shape"])
        if not np.isfinite(x).all():
            raise DataError(f"{int((~np.isfinite(x)).sum())} values that are no numbers", allowed="finite readings")
        found = scorer.score(x)
        header = {
            "version": scorer.manifest.version,
            "threshold": scorer.manifest.threshold,
            "shape": list(found.values.shape),
            "milliseconds": found.milliseconds,
        }
        return pipe.Message(header=header, blobs={"values": found.values.astype("<f8").tobytes()})

    def _current(self) -> ReleaseScorer:
        """The installed release; verified anew where it may have changed."""
        now = time.monotonic()
        mark = _mark(self._directory / CURRENT)
        if self._scorer is not None and mark == self._mark and now - self._checked < CHECK_S:
            return self._scorer
        from fedsite.client.identity import site

        kept, self._scorer = self._scorer, None
        installed = Slots(self._directory, site.load_federation(self._directory)).current()
        same = kept is not None and kept.manifest == installed.manifest
        self._scorer = kept if kept is not None and same else ReleaseScorer(installed.manifest, installed.model)
        self._mark, self._checked = mark, now
        return self._scorer


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def main() -> None:
    """Entry point of the process."""
    # The thread that started it lives as long as the agent listens; the pipe tells in any case.
    lifeline.die_with(int(sys.argv[2]))
    memory.limit(int(sys.argv[3]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = worker.answers_apart()
    lifeline.end_with_pipe(0)
    worker.serve(os.fdopen(0, "rb", closefd=False), answers, {"score": Scoring(Path(sys.argv[1])).score})


if __name__ == "__main__":
    main()
