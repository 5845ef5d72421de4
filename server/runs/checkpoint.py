"""Checkpoints: the global model after a round, on the disk whole or not at all.

`round-0003.safetensors` holds the model alone (so that `model.init=` takes it), `round-0003.memory.safetensors` what
the strategy remembers, and `round-0003.json` (`fedsite.checkpoint/1`, written last) names both by hash: without it
there is no checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from fedsite.protocol import documents, shape, storage, weights
from fedsite.protocol.errors import IntegrityError, StorageError
from fedsite.server.strategies.strategy import ServerState

SCHEMA: Final = "fedsite.checkpoint/1"
# Older checkpoints go once all together are larger than this; the newest two stay.
KEEP_BYTES = 1 << 30
MAX_BYTES = 4 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What is known about a saved round."""

    schema: Literal["fedsite.checkpoint/1"] = SCHEMA
    run_id: str
    plan_hash: str
    round: int
    model_hash: str  # SHA-256 hex of the canonical weights
    memory_hash: str = ""  # empty: the strategy remembers nothing
    normalisation: dict[str, tuple[float, ...]] = field(default_factory=dict)  # mean, scale: [feature]
    trained: dict[str, int] = field(default_factory=dict)  # site id -> train instructions sent to it so far
    counted: dict[str, int] = field(default_factory=dict)  # site id -> last round its update is in; of control variates


def save(folder: Path, checkpoint: Checkpoint, state: ServerState, model: bytes) -> Path:
    """Write a checkpoint and return the model's path.

    Args:
        folder: the run's checkpoint directory.
        checkpoint: its facts; `model_hash` is that of `model`.
        state: for the strategy's memory.
        model: the encoded `state.params` (they are at hand, as they are sent next).

    Raises:
        StorageError: the disk is full or read-only; an earlier checkpoint stays valid.
    """
    stem = f"round-{checkpoint.round:04d}"
    path = folder / f"{stem}.safetensors"
    storage.write_atomic(path, model)
    if state.memory:
        storage.write_atomic(folder / f"{stem}.memory.safetensors", weights.encode(state.memory))
    storage.write_atomic(folder / f"{stem}.json", documents.canonical(shape.plain(checkpoint)))
    _prune(folder)
    return path


def paths(folder: Path) -> list[Path]:
    """Model files of the whole checkpoints, oldest first."""
    found = sorted(folder.glob("round-[0-9]*.json")) if folder.is_dir() else []
    return [path.with_suffix(".safetensors") for path in found]


def latest(folder: Path) -> tuple[Checkpoint, ServerState] | None:
    """The newest checkpoint whose files are what its document says; a damaged one is passed over."""
    for path in reversed(paths(folder)):
        try:
            return load(path)
        except (IntegrityError, StorageError):
            continue
    return None


def load(path: Path) -> tuple[Checkpoint, ServerState]:
    """Read the checkpoint whose model file is `path`.

    Raises:
        StorageError: a file is missing.
        IntegrityError: a file is not the one its document names.
    """
    value: Any = documents.document(storage.read(path.with_suffix(".json")), SCHEMA)
    checkpoint = shape.read(Checkpoint, value)
    params = weights.decode(storage.read(path, limit=MAX_BYTES), limit=MAX_BYTES)
    _check(path, weights.digest(params), checkpoint.model_hash)
    memory: weights.Arrays = {}
    if checkpoint.memory_hash:
        memory_path = path.with_suffix(".memory.safetensors")
        memory = weights.decode(storage.read(memory_path, limit=MAX_BYTES), limit=MAX_BYTES)
        _check(memory_path, weights.digest(memory), checkpoint.memory_hash)
    return checkpoint, ServerState(params=params, memory=memory)


def _check(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise IntegrityError(f"{path} has hash {found[:12]}…", allowed=f"{expected[:12]}…, as its document says")


def _prune(folder: Path) -> None:
    kept = 0
    for age, path in enumerate(reversed(paths(folder))):
        memory = path.with_suffix(".memory.safetensors")
        kept += sum(file.stat().st_size for file in (path, memory) if file.exists())
        if age >= 2 and kept > KEEP_BYTES:
            # The document goes first: a checkpoint is either whole or none.
            for file in (path.with_suffix(".json"), path, memory):
                file.unlink(missing_ok=True)
