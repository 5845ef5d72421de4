"""`fedsite score`: windows of a file through the installed release, on one thread and without torch."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedsite.protocol import output
from fedsite.protocol.errors import ConfigError, UnreachableError

if TYPE_CHECKING:
    from fedsite.client.device.scoring import Scores
    from fedsite.client.identity.site import Site
    from fedsite.protocol.release import Manifest
    from fedsite.telemetry.location import DataLocation

SCHEMA = "fedsite.score/1"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("score", rich_help_panel="Site operator")(score)


def score(
    data: Annotated[Path | None, typer.Option(help="File or folder; by default where site.yaml says.")] = None,
    task: Annotated[str | None, typer.Option(help="Refuse a release of any other task.")] = None,
    release: Annotated[Path | None, typer.Option(help="Folder with manifest.json and model.onnx instead.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All windows, not only those held out.")] = False,
    write: Annotated[Path | None, typer.Option(help="Write one line per window to this CSV file.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings, such as data.site=3.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Score windows with the installed release, in the agent when one runs: metric where there are labels, latency."""
    import dataclasses

    from fedsite.client import data as site_data
    from fedsite.client import settings
    from fedsite.client.device import scoring
    from fedsite.client.identity import site
    from fedsite.telemetry.task import read_task

    directory = settings.state_directory()
    who = site.load(directory)
    manifest, model = _release(directory, who, release)
    parsed = read_task(manifest.task)
    if task is not None and task != parsed.name:
        raise ConfigError(f"the release is for task {parsed.name}", allowed=task, next_step="fedsite model status")
    where = site_data.location(settings.load(directory, overrides or []), parsed)
    if data is not None:
        where = dataclasses.replace(where, path=settings.absolute(str(data)))
    found = None if release is not None else _by_agent(directory, manifest, model, where, everything)
    if found is None:
        found = scoring.score(manifest, model, where, everything=everything)
    if write is not None:
        _write(write, found)
    value = _value(manifest, found)
    if not json:
        del value["sums"]
    output.emit(value, json)


def _by_agent(
    directory: Path, manifest: Manifest, model: bytes, where: DataLocation, everything: bool
) -> Scores | None:
    """The windows through the release that the agent holds; None where no agent can, or it holds another by now."""
    from fedsite.client.device import scoring
    from fedsite.client.local import local_client

    with local_client.connect(directory) as agent, contextlib.suppress(UnreachableError):
        if agent is not None:
            scorer = agent.scoring(task=str(manifest.task.get("name") or ""))
            found = scoring.score(manifest, model, where, everything=everything, scorer=scorer)
            if scorer.version == manifest.version:
                return found
    return None


def _release(directory: Path, who: Site, folder: Path | None) -> tuple[Manifest, bytes]:
    """The installed release, or the one in `folder`; verified either way."""
    from fedsite.client.device.slots import Slots, read_slot
    from fedsite.protocol import instants

    if folder is not None:
        return read_slot(folder, who.federation, instants.now())
    installed = Slots(directory, who.federation).current()
    return installed.manifest, installed.model


def _value(manifest: Manifest, found: Scores) -> dict[str, Any]:
    metric = manifest.task.get("metric") or {}
    return {
        "schema": SCHEMA,
        "version": manifest.version,
        "task": manifest.task.get("name"),
        "windows": found.windows,
        "part": found.part,
        "labelled": found.labelled,
        "metric": {"name": metric.get("name"), "better": metric.get("better"), "value": found.metric},
        "sums": None if found.sums is None else {name: array.tolist() for name, array in found.sums.items()},
        "latency_ms": {"p50": found.latency_ms[0], "p95": found.latency_ms[1]},
        "threshold": manifest.threshold,
        "alarms": found.alarms,
    }


def _write(path: Path, found: Scores) -> None:
    """One line per window: entity, time, values."""
    import csv
    import io

    from fedsite.protocol.storage import write_atomic

    text = io.StringIO()
    lines = csv.writer(text)
    values = found.values.reshape(len(found.values), -1)
    lines.writerow(["entity", "time", *(f"value{index}" for index in range(values.shape[1]))])
    for entity, moment, row in zip(found.scored.entity, found.scored.time, values, strict=True):
        lines.writerow([found.scored.entities[entity], moment, *(float(item) for item in row)])
    write_atomic(path, text.getvalue().encode("utf-8"))
