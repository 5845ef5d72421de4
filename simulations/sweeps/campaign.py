"""All runs of one `fedsite simulate`, one after the other or several at a time: what is finished is not run again.

A run that fails is named in the manifest, and the others go on; a run that was interrupted goes on from its checkpoint.
"""

from __future__ import annotations

import dataclasses
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from fedsite.protocol import documents, instants, output, storage, weights
from fedsite.protocol.errors import ConfigError
from fedsite.simulations.demo import story as demo
from fedsite.simulations.runs import results, settings, study
from fedsite.simulations.runs.results import Simulation
from fedsite.simulations.runs.settings import SimulateSettings
from fedsite.simulations.runs.study import Watch
from fedsite.simulations.sweeps import manifest, sweep, tables
from fedsite.simulations.sweeps.manifest import RESULT, Cell, Failure, Manifest

ROOT: Final = Path("runs/simulate")
CHECKPOINTS: Final = "checkpoints"
MODEL: Final = "model.safetensors"


class Board(Watch, Protocol):
    """Who looks on at all runs."""

    def cell(self, number: int, of: int, name: str, state: str) -> None:
        """A run begins (`running`), or has ended (`done`, `kept` from before, `failed`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """What a command line asks for."""

    folder: Path
    manifest: Manifest
    settings: tuple[SimulateSettings, ...]  # of each cell


def read(overrides: Sequence[str], *, many: bool, out: Path | None) -> Campaign:
    """Expand and check every run before any begins.

    Args:
        overrides: as typed.
        many: a sweep.
        out: where to keep it all; None: a folder below runs/simulate that is named by the settings.

    Raises:
        ConfigError: an unknown key or value, several values without a sweep, or a folder that holds something else.
    """
    if not many and (several := sweep.swept(overrides)):
        raise ConfigError(
            f"several values of {', '.join(several)} without -m",
            allowed="one value each",
            next_step=shlex.join(["fedsite", "simulate", *overrides, "-m"]),
        )
    listed = sweep.cells(overrides) if many else [tuple(overrides)]
    asked = _composed(listed)
    keys = [study.key(each) for each in asked]
    whole = documents.digest(keys)
    folder = out or ROOT / f"{_short(asked)}-{whole[:8]}"
    found = Manifest(
        key=whole,
        command=shlex.join(["fedsite", "simulate", *overrides, *(["-m"] if many else [])]),
        swept=tuple(sweep.swept(overrides)) if many else (),
        created=instants.text(instants.now()),
        versions=demo.versions(),
        cells=tuple(
            Cell(key=key, folder=f"cells/{number:04d}-{key[:8]}" if many else ".", overrides=each)
            for number, (key, each) in enumerate(zip(keys, listed, strict=True))
        ),
    )
    return Campaign(folder=folder, manifest=manifest.claim(folder, found), settings=tuple(asked))


def run(campaign: Campaign, board: Board) -> Manifest:
    """Run what is not finished, and write the tables of all that is.

    Raises:
        KeyboardInterrupt: after everything that is finished was kept.
        FedsiteError: of the only run, where it is no sweep.
        StorageError: the disk is full or read-only.
    """
    known = campaign.manifest
    manifest.write(campaign.folder, known)
    total = len(known.cells)
    try:
        for number, (cell, asked) in enumerate(zip(known.cells, campaign.settings, strict=True)):
            if manifest.result(campaign.folder, cell) is not None and cell.state == "done":
                board.cell(number, total, name(known, cell), "kept")
                continue
            board.cell(number, total, name(known, cell), "running")
            ended = _run(campaign.folder, cell, asked, board, alone=not known.swept and total == 1)
            board.cell(number, total, name(known, cell), ended.state)
            cells = tuple(ended if each.key == cell.key else each for each in known.cells)
            known = dataclasses.replace(known, cells=cells)
            manifest.write(campaign.folder, known)
    finally:
        _tables(campaign.folder, known)
    return known


def name(known: Manifest, cell: Cell) -> str:
    """What sets this run apart from the others."""
    return " ".join(item for item in cell.overrides if item.partition("=")[0] in known.swept)


def found(folder: Path, known: Manifest) -> Iterator[tuple[Cell, Simulation]]:
    """The finished runs."""
    for cell in known.cells:
        result = manifest.result(folder, cell)
        if result is not None:
            yield cell, result


def _run(folder: Path, cell: Cell, asked: SimulateSettings, board: Board, *, alone: bool) -> Cell:
    place = folder / cell.folder
    try:
        done = study.study(
            asked, cell.overrides, checkpoints=place / CHECKPOINTS, baselines=folder / "baselines", watch=board
        )
    except KeyboardInterrupt:
        raise
    except Exception as error:
        if alone or not hasattr(error, "found"):
            raise
        said: Any = error
        failure = Failure(
            error=type(error).__name__,
            found=str(said.found),
            allowed=str(getattr(said, "allowed", "")),
            next=str(getattr(said, "next_step", "")),
            exit_code=output.exit_code(error),
        )
        return dataclasses.replace(cell, state="failed", failure=failure)
    with storage.storage_errors(place):
        place.mkdir(parents=True, exist_ok=True)
    tables.write(place, "sites", done.sites)
    storage.write_atomic(place / MODEL, weights.encode(dict(done.params)), mode=0o644)
    storage.write_atomic(place / RESULT, results.encode(done.simulation) + b"\n", mode=0o644)
    shutil.rmtree(place / CHECKPOINTS, ignore_errors=True)  # the model and its rounds are in the result
    return dataclasses.replace(
        cell, state="done", failure=None, plan_hash=done.simulation.plan_hash,
        data_hash=done.simulation.data_hash, digest=done.simulation.digest,
    )  # fmt: skip


def _tables(folder: Path, known: Manifest) -> None:
    """One row a run, and one row a round of every run."""
    runs, rounds = [], []
    for number, (cell, result) in enumerate(found(folder, known)):
        plain = results.value(result)
        settings_of = {item.partition("=")[0]: item.partition("=")[2] for item in cell.overrides}
        row = {"run": number, **settings_of}
        curve = plain.pop("curve")
        runs.append(
            {**row, **_flat({key: item for key, item in plain.items() if key not in ("overrides", "versions")})}
        )
        rounds += [{**row, **each} for each in curve]
    if runs:
        tables.write(folder, "runs", runs)
        tables.write(folder, "rounds", rounds)


def _flat(value: dict[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            found |= _flat(item, f"{before}{key}.")
        else:
            found[before + key] = ", ".join(map(str, item)) if isinstance(item, list) else item
    return found


def _composed(listed: Sequence[tuple[str, ...]]) -> list[SimulateSettings]:
    return [settings.compose(each) for each in listed]


def _short(asked: Sequence[SimulateSettings]) -> str:
    names = sorted({each.task if each.task_file is None else Path(each.task_file).stem for each in asked})
    return "-".join(names)[:40]
