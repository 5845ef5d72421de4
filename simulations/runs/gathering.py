"""The data of a simulated population: each natural site loaded once, then dealt out as the settings say."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import numpy as np

from fedsite.simulations.populations import building
from fedsite.simulations.populations.sites import Sites
from fedsite.simulations.runs.settings import SimulateSettings
from fedsite.telemetry import loading
from fedsite.telemetry.location import DataLocation
from fedsite.telemetry.task import Task

MADE: Final = 64  # natural sites that are generated at most; where more are asked for, they come again


def loaded(settings: SimulateSettings, task: Task) -> list[str]:
    """The natural sites that are read: all that a partition pools, or those that take part as they are.

    Raises:
        TelemetryError: the data is missing or cannot be read.
    """
    where, wanted = _place(settings, None), settings.simulation.sites
    natural = settings.simulation.partition.kind == "natural"
    if _made(settings, task):
        number = min(wanted, MADE) if natural and wanted else task.data.sites or len(loading.site_names(task, where))
        return [f"{task.data.generator}-{index}" for index in range(number)]
    found = loading.site_names(task, where)
    return found[: wanted or task.data.sites] if natural else found


def count(settings: SimulateSettings, task: Task) -> int:
    """How many sites there will be, without reading their data.

    Raises:
        TelemetryError: the data is missing or cannot be read.
    """
    return settings.simulation.sites or task.data.sites or len(loaded(settings, task))


def gather(
    settings: SimulateSettings,
    task: Task,
    tell: Callable[[int, int], None] = lambda done, total: None,
    *,
    unit: Literal["window", "entity"] = "window",
) -> Sites:
    """Read the data and deal it out.

    Args:
        settings: the run's.
        task: its task.
        tell: called with natural sites read, of how many.
        unit: what the run's privacy is of, at each site.

    Raises:
        TelemetryError: data is missing, unreadable or outside the task's schema.
        ConfigError: a partition that this data cannot have.
    """
    wanted, found = loaded(settings, task), {}
    for done, name in enumerate(wanted):
        tell(done, len(wanted))
        found[name] = loading.load_site(task, _place(settings, name))
    tell(len(wanted), len(wanted))
    asked = settings.simulation
    return building.build(
        task,
        found,
        partition=asked.partition,
        shift=asked.shift,
        drift=asked.drift,
        sites=count(settings, task),
        seed=settings.seed,
        unit=unit,
    )


def fingerprint(sites: Sites) -> str:
    """SHA-256, hex, of all windows and labels as the sites have them at first, in order of sites."""
    digest, together = hashlib.sha256(), sites.joined()
    for part, places in ((together.train, sites.train), (together.holdout, sites.holdout)):
        for array in (part.x, part.y, places.offsets):
            digest.update(f"{array.shape}{array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _made(settings: SimulateSettings, task: Task) -> bool:
    return task.data.source == "synthetic" and settings.data.path is None


def _place(settings: SimulateSettings, site: str | None) -> DataLocation:
    path = settings.data.path
    return DataLocation(path=None if path is None else Path(path), site=site, seed=0)
