"""Checkpoints of a simulated run: the model, what the strategy and SCAFFOLD's sites remember, and the rounds so far.

Each is whole or none: the document of `server.runs.checkpoint` is written last. Only the newest is kept.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fedsite.protocol import documents, shape, storage, weights
from fedsite.protocol.errors import FedsiteError
from fedsite.server.runs import checkpoint
from fedsite.server.runs.checkpoint import Checkpoint
from fedsite.server.strategies.strategy import ServerState
from fedsite.simulations.engine import Round
from fedsite.simulations.vectorised.controls import Controls

SCHEMA: Final = "fedsite.simulated-rounds/1"
_LIMIT: Final = 256 << 20  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """The rounds that a checkpoint stands after, and how they were computed."""

    schema: str = SCHEMA
    rounds: tuple[Round, ...]
    executor: str = ""
    passed_over: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Keeper:
    """Writes checkpoints of one run and finds the last one."""

    folder: Path
    key: str  # of everything the result depends on: a checkpoint of another key counts for nothing
    every_s: float
    controls: Controls | None = None
    _last: float = field(default_factory=time.monotonic)

    def find(self) -> tuple[ServerState, Log] | None:
        """The state to go on from; None where there is none, or it is of something else."""
        try:
            found = checkpoint.latest(self.folder)
            if found is None or found[0].run_id != self.key:
                return None
            number = found[0].round
            value: Any = documents.document(storage.read(self._log(number), limit=_LIMIT), SCHEMA, limit=_LIMIT)
            log = shape.read(Log, value)
        except FedsiteError:
            return None
        return (found[1], log) if len(log.rounds) == number else None

    def restore(self, number: int, sites: int, numbers: int) -> Controls:
        """The control variates after round `number`, as a file that further rounds may change.

        Raises:
            ConfigError: the folder cannot be written.
        """
        live = self.folder / "controls"
        live.unlink(missing_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        if number and (kept := self._kept(number)).exists():
            shutil.copyfile(kept, live)
            self.controls = Controls(path=live, sites=sites, numbers=numbers)
        else:
            self.controls = Controls.create(live, sites, numbers)
        return self.controls

    def has(self, number: int) -> bool:
        """Whether control variates of that round were kept."""
        return self._kept(number).exists()

    def due(self, state: ServerState, log: Log) -> None:
        """Save, where the last time is long enough ago; called between rounds.

        Raises:
            StorageError: the disk is full or read-only; the checkpoint before stays valid.
        """
        if time.monotonic() - self._last >= self.every_s:
            self.save(state, log)

    def save(self, state: ServerState, log: Log) -> None:
        """Write a checkpoint and forget the ones before.

        Raises:
            StorageError: the disk is full or read-only; the checkpoint before stays valid.
        """
        with storage.storage_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            number = len(log.rounds)
            if self.controls is not None:
                shutil.copyfile(self.controls.path, self._kept(number))
        storage.write_atomic(self._log(number), documents.canonical(shape.plain(log)), mode=0o644)
        model = weights.encode(dict(state.params))
        known = Checkpoint(
            run_id=self.key,
            plan_hash=self.key,
            round=number,
            model_hash=weights.digest(dict(state.params)),
            memory_hash=weights.digest(dict(state.memory)) if state.memory else "",
        )
        kept = checkpoint.save(self.folder, known, state, model)
        self._forget(kept.stem)
        self._last = time.monotonic()

    def _forget(self, stem: str) -> None:
        kept = stem.removeprefix("round-")
        # Documents first: a checkpoint is either whole or none.
        for path in sorted(self.folder.iterdir(), key=lambda path: path.suffix != ".json"):
            if path.name != "controls" and kept not in path.name:
                path.unlink(missing_ok=True)

    def _log(self, number: int) -> Path:
        return self.folder / f"rounds-{number:04d}.json"

    def _kept(self, number: int) -> Path:
        return self.folder / f"controls-{number:04d}"
