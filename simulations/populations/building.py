"""From loaded sites and a spec to simulated sites: pooled, dealt out again, with sensors and drift of their own.

The same data, spec and seed make the same sites. Where windows are dealt, those of the holdout are used once each,
whatever the number of sites: those of a class in proportion to the sites' training windows of that class. Natural sites
keep their own; where more are asked for, all of them come again and again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from fedsite.protocol.errors import ConfigError, DataError
from fedsite.simulations.populations import classes as labelling
from fedsite.simulations.populations import dealing
from fedsite.simulations.populations.classes import Classes
from fedsite.simulations.populations.places import Ints, Places
from fedsite.simulations.populations.sensors import Sensors
from fedsite.simulations.populations.sites import Sites
from fedsite.simulations.populations.spec import DriftSpec, PartitionSpec, ShiftSpec, check_sites
from fedsite.simulations.runs import baselines
from fedsite.simulations.runs.draws import Draw
from fedsite.telemetry.dataset import SiteData
from fedsite.telemetry.task import Task

MOST_CELLS = 50_000_000  # sites times classes


def build(
    task: Task,
    data: Mapping[str, SiteData],
    *,
    partition: PartitionSpec | None = None,
    shift: ShiftSpec | None = None,
    drift: DriftSpec | None = None,
    sites: int | None = None,
    seed: int = 0,
    unit: Literal["window", "entity"] = "window",
) -> Sites:
    """Simulated sites.

    Args:
        task: whose loss says whether there are labels to go by.
        data: the sites as loaded, by name; pooled in this order.
        partition, shift, drift: as loaded, without shift, without drift, where not given.
        sites: how many; as many as were loaded, where not given.
        seed: of everything that is drawn.
        unit: what privacy is of, for a partition whose own unit is `auto`.

    Raises:
        ConfigError: too many sites or classes, or not enough units for every site's minimum.
        DataError: nothing was loaded.
    """
    partition, shift, drift = partition or PartitionSpec(), shift or ShiftSpec(), drift or DriftSpec()
    if not data:
        raise DataError("a population of no sites", allowed="at least 1")
    if partition.unit == "auto":
        partition = dataclasses.replace(partition, unit=unit)
    count = check_sites(len(data) if sites is None else sites)
    rng = np.random.default_rng([seed, Draw.PARTITION])
    loaded = list(data.values())
    pooled = baselines.pool(loaded)
    found = labelling.classify(partition, pooled, supervised=task.loss != "reconstruction", rng=rng)
    if count * found.count > MOST_CELLS:
        raise ConfigError(
            f"{count} sites and {found.count} classes by {found.by}",
            allowed=f"{MOST_CELLS // count} classes for so many sites",
            next_step="simulation.partition.by=label, or fewer bins",
        )
    if partition.kind == "natural":
        train, holdout = (
            Places.joined([len(part.train) for part in loaded]), Places.joined([len(part.holdout) for part in loaded])
        )  # fmt: skip
        train, holdout = train.repeated(count), holdout.repeated(count)
        deals = -(-count // len(loaded))
    else:
        train = _dealt(partition, pooled, found, count, rng)
        holdout = _holdout(partition, pooled, found, train, rng)
        deals = int(np.bincount(train.rows, minlength=1).max())
    return Sites(
        pooled=pooled,
        train=train,
        holdout=holdout,
        first=(train, holdout),
        numbers=_named(partition, list(data), count),
        classes=found,
        sensors=Sensors.of(task, pooled, shift, drift, seed),
        drift=drift,
        seed=seed,
        deals=deals,
        unit=partition.unit,
    )


def _dealt(spec: PartitionSpec, pooled: SiteData, found: Classes, sites: int, rng: np.random.Generator) -> Places:
    if spec.unit == "window":
        return dealing.deal(spec, found.train, found.count, sites, rng)
    _, unit = np.unique(pooled.train.entity, return_inverse=True)
    units = _members(unit)
    kinds = labelling.of_units(found.train, found.count, unit, len(units))
    return dealing.deal(spec, kinds, found.count, sites, rng).spread(units)


def _holdout(spec: PartitionSpec, pooled: SiteData, found: Classes, train: Places, rng: np.random.Generator) -> Places:
    """Every holdout window at one site; with its entity where that stays at one site and trains there."""
    sites, held = len(train), pooled.holdout
    if not len(held):
        return Places.joined([0] * sites)
    mixes = train.histogram(found.train, found.count)
    if spec.unit == "window":
        return dealing.shared_out(mixes, found.holdout, rng)
    known, unit = np.unique(held.entity, return_inverse=True)
    kinds = labelling.of_units(found.holdout, found.count, unit, len(known))
    home = np.full(int(max(held.entity.max(), pooled.train.entity.max())) + 1, -1)
    # Dealt to several sites, an entity's holdout lies at the first of them.
    home[pooled.train.entity[train.rows[::-1]]] = train.site[::-1]
    site = home[known]
    free = np.flatnonzero(site < 0)
    if len(free):
        extra = dealing.shared_out(mixes, kinds[free], rng)
        site[free[extra.rows]] = extra.site
    order = np.argsort(site, kind="stable")
    return Places.of(order, np.bincount(site, minlength=sites)).spread(_members(unit))


def _members(unit: Ints) -> Places:
    """The windows of each unit; `unit` [window] numbered from 0."""
    return Places.of(np.argsort(unit, kind="stable"), np.bincount(unit))


def _named(spec: PartitionSpec, loaded: Sequence[str], sites: int) -> dict[str, int]:
    if spec.kind == "natural" and sites <= len(loaded):
        return {name: number for number, name in enumerate(loaded[:sites])}
    width = len(str(sites - 1))
    return {f"site-{number:0{width}d}": number for number in range(sites)}
