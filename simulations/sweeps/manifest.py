"""The folder of a simulation or a sweep: `manifest.json` (`fedsite.simulations/1`) and one folder a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from fedsite.protocol import documents, shape, storage
from fedsite.protocol.errors import ConfigError, DocumentError, FedsiteError
from fedsite.simulations.runs import results
from fedsite.simulations.runs.results import Simulation

SCHEMA: Final = "fedsite.simulations/1"
NAME: Final = "manifest.json"
RESULT: Final = "result.json"
_LIMIT: Final = 256 << 20  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a run of a sweep came to nothing."""

    error: str
    found: str
    allowed: str = ""
    next: str = ""
    exit_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run."""

    key: str  # of its settings
    folder: str  # below that of the manifest; "." for a simulation that is no sweep
    overrides: tuple[str, ...]
    state: Literal["waiting", "done", "failed"] = "waiting"
    plan_hash: str | None = None
    data_hash: str | None = None
    digest: str | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All runs of one command."""

    schema: Literal["fedsite.simulations/1"] = SCHEMA
    key: str  # of all runs
    command: str
    swept: tuple[str, ...] = ()  # keys that take more than one value
    cells: tuple[Cell, ...]
    created: str
    versions: dict[str, str] = field(default_factory=dict)


def read(folder: Path) -> Manifest | None:
    """The manifest of a folder; None where there is none.

    Raises:
        ConfigError: a file of that name which is not one.
        StorageError: it cannot be read.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        return shape.read(Manifest, documents.document(storage.read(path, limit=_LIMIT).strip(), SCHEMA, limit=_LIMIT))
    except DocumentError as error:
        raise ConfigError(
            f"{path}: {error.found}",
            allowed="a manifest that fedsite simulate wrote",
            next_step=error.next_step or "another folder: fedsite simulate --out FOLDER",
        ) from None


def write(folder: Path, manifest: Manifest) -> None:
    """Write it, whole or not at all.

    Raises:
        StorageError: the disk is full or read-only.
    """
    with storage.storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    storage.write_atomic(folder / NAME, documents.canonical(shape.plain(manifest)) + b"\n", mode=0o644)


def result(folder: Path, cell: Cell) -> Simulation | None:
    """What a run found; None where it is not there, or damaged."""
    path = folder / cell.folder / RESULT
    try:
        return results.decode(storage.read(path, limit=results.MAX_BYTES).strip())
    except FedsiteError:
        return None


def claim(folder: Path, manifest: Manifest) -> Manifest:
    """What is known of these runs in their folder, or nothing yet.

    Raises:
        ConfigError: the folder holds something else.
    """
    found = read(folder)
    if found is None:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(
                f"{folder} is not empty, and no simulation was kept there",
                allowed="a folder of its own",
                next_step="--out FOLDER",
            )
        return manifest
    if found.key != manifest.key:
        raise ConfigError(
            f"{folder} holds another simulation: {found.command}",
            allowed="the same settings, which go on where they stopped",
            next_step="--out ANOTHER_FOLDER",
        )
    known = {cell.key: cell for cell in found.cells}
    return Manifest(
        key=manifest.key, command=manifest.command, swept=manifest.swept, created=found.created,
        versions=manifest.versions, cells=tuple(known.get(cell.key, cell) for cell in manifest.cells),
    )  # fmt: skip
