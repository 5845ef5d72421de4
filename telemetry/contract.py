"""The data contract: does a site's telemetry hold what a task asks for? Every problem at once, each with its remedy.

What is found stays at the site, for its operator. Only `codes` may leave it: which kinds of problem there are, without
a value, a count or a name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedsite.telemetry import drift, findings
from fedsite.telemetry.balance import balance
from fedsite.telemetry.dataset import SiteData
from fedsite.telemetry.errors import Code, TaskError, TelemetryError
from fedsite.telemetry.findings import Finding, Severity, codes
from fedsite.telemetry.location import DataLocation
from fedsite.telemetry.schema import EPOCH, Channel
from fedsite.telemetry.task import Task
from fedsite.telemetry.units import conversion, convertible

if TYPE_CHECKING:
    from fedsite.telemetry.sources_survey import Survey

__all__ = ["Checked", "Finding", "Reference", "check", "codes", "inspect"]

Numbers = NDArray[np.float64]

SPARSE = 0.2  # share of a channel's values missing that is worth a warning
LOST = 0.2  # share of readings in runs too short for a window that is worth a warning
OFF = 0.2  # relative distance of the median sampling step from the task's that is an error
AHEAD = 300.0  # seconds that a reading may lie in the future before clocks are doubted


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What the site's data looked like when its operator last called it right."""

    summary: drift.Summary
    taken: str  # when, for people


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A check's outcome; `data` and `summary` are there when nothing keeps the site out."""

    findings: tuple[Finding, ...]
    data: SiteData | None = None
    summary: drift.Summary | None = None

    @property
    def ok(self) -> bool:
        """Whether the site may take part."""
        return self.data is not None


def check(task: Task, location: DataLocation, *, now: float | None = None) -> list[Finding]:
    """Everything that is wrong with a site's data for a task, errors first; empty: it may take part.

    Raises:
        TaskError: the task itself is wrong.
    """
    return list(inspect(task, location, now=now).findings)


def inspect(
    task: Task, location: DataLocation, *, now: float | None = None, reference: Reference | None = None
) -> Checked:
    """Read a site's data once, and say all that is wrong with it.

    Args:
        now: seconds since 1970; None: freshness is not judged.
        reference: what readings and labels are held against; None: drift is not judged.

    Raises:
        TaskError: the task itself is wrong.
    """
    from fedsite.telemetry import loading, sources_survey

    found: list[Finding] = []
    try:
        survey = sources_survey.read(task, location)
        found += examine(task, survey)
        generated = task.data.source == "synthetic" and location.path is None
        if now is not None and not generated:
            found += freshness(task, survey, now=now, oldest_s=location.oldest_s)
        summary, present = drift.summarise(task, survey), None
        if reference is not None:
            present = drift.compared(task, survey, reference.summary)
        del survey  # the readings go before the windows come
        if codes(found):
            return Checked(findings=tuple(findings.ordered(found)))
        data = loading.load_site(task, location)
    except TaskError:
        raise
    except TelemetryError as error:
        return Checked(findings=tuple(findings.ordered([*found, findings.of_error(error)])))
    labels = drift.labels(task, data)
    found += _held_out(task, data) + balance(task, data)
    if reference is not None and present is not None:
        present = replace(present, labels=labels)
        found += drift.drift(task, reference.summary, present, since=reference.taken)
    return Checked(findings=tuple(findings.ordered(found)), data=data, summary=replace(summary, labels=labels))


def examine(task: Task, survey: Survey) -> list[Finding]:
    """What readings alone tell: columns, numbers, ranges, missing values, sampling step and gaps."""
    found = [findings.of_error(problem) for problem in survey.problems]
    for channel in task.single_channels:
        values = survey.values.get(channel.name)
        if values is None or not len(values):
            continue
        found += _range(task, channel, values, survey.origin)
        # Without time a row is an image or the like, whose corners may well be empty.
        if task.data.time is not None and len(values) > 1 and _constant(values):
            text = f"{survey.origin}: channel {channel.name} is {np.nanmax(values):g} in all {len(values)} rows"
            remedy, count = "is the sensor stuck?", len(values)
            found.append(
                findings.warning(Code.CONSTANT, text, "readings that move", remedy, channel=channel.name, count=count)
            )
    if not survey.rows and not found:
        text = f"{survey.origin}: no rows of this site"
        found.append(findings.error(Code.TOO_FEW, text, "at least one window", "data.path=FILE_OR_FOLDER", count=0))
    return found + _sampling(task, survey)


def _held_out(task: Task, data: SiteData) -> list[Finding]:
    if task.split.kind == "none" or len(data.holdout):
        return []
    text, remedy = "no window is held out: the model cannot be judged at this site", "give more data, or another split"
    return [findings.warning(Code.TOO_FEW, text, "at least 1", remedy, count=0)]


def freshness(task: Task, survey: Survey, *, now: float, oldest_s: float | None) -> list[Finding]:
    """Whether the newest reading is recent, and not in the future."""
    if task.rate.seconds is None or survey.time is None or not len(survey.time) or survey.time.max() < EPOCH:
        return []
    time, column = survey.time, task.data.time or ""
    age = now - float(time.max())
    if age < -AHEAD:
        count = int((time > now + AHEAD).sum())
        text = f"{survey.origin}: {count} readings lie in the future, the newest by {-age:.0f} s"
        remedy = "check the logger's clock and time zone"
        return [findings.warning(Code.TIME, text, "times in UTC, up to now", remedy, channel=column, count=count)]
    if oldest_s is not None and age > oldest_s:
        text = f"{survey.origin}: the newest of {len(time)} readings is {age / 3600:.1f} hours old"
        remedy = "is the logger still writing? the bound is the site's own: data.oldest"
        allowed = f"at most {oldest_s / 3600:.1f} hours"
        return [findings.error(Code.STALE, text, allowed, remedy, channel=column, count=len(time))]
    return []


def _range(task: Task, channel: Channel, values: Numbers, origin: str) -> list[Finding]:
    missing = int(np.isnan(values).sum())
    name, bounds = channel.name, f"{channel.minimum:g} to {channel.maximum:g} {channel.unit}"
    if missing == len(values):
        text = f"{origin}: channel {name} has no value in any of {len(values)} rows"
        remedy = f"data.columns.{name}=ITS_NAME_IN_THE_FILE, if another column holds it"
        return [findings.error(Code.ALL_MISSING, text, bounds, remedy, channel=name, count=missing)]
    found = []
    policy = channel.missing or task.window.missing.policy
    if missing > SPARSE * len(values) and policy == "drop":
        text = f"{origin}: channel {name} has no value in {missing} of {len(values)} rows"
        allowed = f"at most {SPARSE:.0%}"
        found.append(findings.warning(Code.SPARSE, text, allowed, "check its sensor", channel=name, count=missing))
    slack = (channel.maximum - channel.minimum) * 1e-6
    outside = (values < channel.minimum - slack) | (values > channel.maximum + slack)
    count = int(outside.sum())
    if not count or (channel.outside != "refuse" and count < len(values) / 2):
        return found
    unit = _other_unit(channel, values)
    example = values[int(np.argmax(outside))]
    text = f"{origin}: channel {name} is {example:g} in the first of {count} rows outside its range"
    if unit is not None:
        remedy = f'it looks like {unit}: data.columns.{name}="COLUMN [{unit}]"'
        return [*found, findings.error(Code.UNIT, text, bounds, remedy, channel=name, count=count)]
    severity: Severity = "error" if channel.outside == "refuse" else "warning"
    remedy = f"correct these rows, or set outside: clip for {name} in a task of your own"
    return [*found, findings.error(Code.RANGE, text, bounds, remedy, channel=name, count=count, severity=severity)]


def _other_unit(channel: Channel, values: Numbers) -> str | None:
    """The unit in which nearly all readings would lie within the range, where as they stand most do not."""

    def share(numbers: Numbers) -> float:
        inside = (numbers >= channel.minimum) & (numbers <= channel.maximum)
        return float(inside.sum() / max(1, int((~np.isnan(numbers)).sum())))

    if share(values) > 0.5:
        return None
    for unit in convertible(channel.unit)[1:]:
        rule = conversion(unit, channel.unit)
        with np.errstate(over="ignore"):
            fits = rule is not None and share(values * rule[0] + rule[1]) > 0.99
        if fits:
            return unit
    return None


def _sampling(task: Task, survey: Survey) -> list[Finding]:
    """The median step against the task's, and the readings that gaps cut off from any window."""
    time, entity, step = survey.time, survey.entity, task.rate.step
    if task.data.time is None or time is None or entity is None or len(time) < 2 or task.window.length < 2:
        return []
    order = np.lexsort((time, entity))
    apart = np.diff(time[order])
    same = np.diff(entity[order]) == 0
    steps = apart[same & (apart > 0)]
    if not len(steps):
        return []
    median = float(np.median(steps))
    if abs(median - step) > OFF * step:
        text = f"{survey.origin}: readings are {median:g} {task.rate.unit} apart (median)"
        remedy = "resample the file, or change rate in a task of your own"
        allowed, column = f"{step:g} {task.rate.unit}", task.data.time
        return [findings.error(Code.RATE, text, allowed, remedy, channel=column, count=len(steps))]
    breaks = ~same | (apart > (task.window.gap.longest + 0.5) * step)
    run = np.concatenate([[0], np.cumsum(breaks)])
    lost = int((np.bincount(run)[run] < task.window.length).sum())
    if task.window.pad == "edge" or task.window.gap.policy != "drop" or lost <= LOST * len(time):
        return []
    text = f"{survey.origin}: {lost} of {len(time)} readings lie in runs shorter than a window of {task.window.length}"
    remedy = "close the gaps, or allow longer ones in window.gap"
    return [findings.warning(Code.GAPS, text, f"at most {LOST:.0%}", remedy, channel=task.data.time, count=lost)]


def _constant(values: Numbers) -> bool:
    """Whether all readings that are there are one number."""
    return bool(np.nanmin(values, initial=np.inf) == np.nanmax(values, initial=-np.inf))
