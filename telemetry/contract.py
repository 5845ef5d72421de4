"""The data contract: does a site's telemetry hold what a task asks for? Every problem at once, each with its remedy.

What is found stays at the site, for its operator. Only `codes` may leave it: which kinds of problem there are, without
a value, a count or a name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from fedsite.telemetry.dataset import SiteData
from fedsite.telemetry.errors import CHECK, Code, TaskError, TelemetryError
from fedsite.telemetry.location import DataLocation
from fedsite.telemetry.schema import Channel
from fedsite.telemetry.task import Task
from fedsite.telemetry.units import conversion, convertible

if TYPE_CHECKING:
    from fedsite.telemetry.sources_survey import Problem, Survey

Severity = Literal["error", "warning"]  # error: the site cannot take part; warning: it can, but look
Numbers = NDArray[np.float64]

SPARSE = 0.2  # share of a channel's values missing that is worth a warning
LOST = 0.2  # share of readings in runs too short for a window that is worth a warning
OFF = 0.2  # relative distance of the median sampling step from the task's that is an error
AHEAD = 300.0  # seconds that a reading may lie in the future before clocks are doubted
EPOCH = 1e8  # a time below that is a count of its own, not seconds since 1970


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One problem: `text` says what was found, `allowed` what was expected, `remedy` what to do next."""

    code: Code
    channel: str  # "" where it is no channel's
    count: int  # rows, windows or places concerned
    severity: Severity
    text: str
    allowed: str
    remedy: str


def check(
    task: Task, location: DataLocation, *, now: float | None = None, oldest_s: float | None = None
) -> list[Finding]:
    """Everything that is wrong with a site's data for a task, errors first; empty: it may take part.

    Args:
        now: seconds since 1970; None: freshness is not judged.
        oldest_s: age in seconds from which the newest reading counts as stale; None: any age will do.

    Raises:
        TaskError: the task itself is wrong.
    """
    from fedsite.telemetry import loading, sources_survey

    try:
        survey = sources_survey.read(task, location)
        found = examine(task, survey)
        generated = task.data.source == "synthetic" and location.path is None
        if now is not None and not generated:
            found += freshness(task, survey, now=now, oldest_s=oldest_s)
        if not any(finding.severity == "error" for finding in found):
            found += examine_windows(task, loading.load_site(task, location))
    except TaskError:
        raise
    except TelemetryError as error:
        return [_error(error)]
    return sorted(found, key=lambda finding: finding.severity != "error")


def codes(findings: Sequence[Finding]) -> tuple[str, ...]:
    """All that may leave the site: the kinds of error, sorted, each once; empty: the contract holds."""
    return tuple(sorted({str(finding.code) for finding in findings if finding.severity == "error"}))


def examine(task: Task, survey: Survey) -> list[Finding]:
    """What readings alone tell: columns, numbers, ranges, missing values, sampling step and gaps."""
    found = [_problem(problem) for problem in survey.problems]
    constant = []
    for channel in task.single_channels:
        values = survey.values.get(channel.name)
        if values is None or not len(values):
            continue
        found += _range(task, channel, values, survey.origin)
        if len(values) > 1 and np.nanmin(values, initial=np.inf) == np.nanmax(values, initial=-np.inf):
            constant.append(channel.name)
    # Without time a row is an image or the like, whose corners may well be empty.
    if constant and task.data.time is not None:
        names = ", ".join(constant[:8]) + (f" and {len(constant) - 8} more" if len(constant) > 8 else "")
        text = f"{survey.origin}: {names} never changes"
        found.append(_warning(Code.CONSTANT, text, "readings that move", "is the sensor stuck?", count=len(constant)))
    if not survey.rows and not found:
        text = f"{survey.origin}: no rows of this site"
        found.append(_finding(Code.TOO_FEW, "", 0, "error", text, "at least one window", "data.path=FILE_OR_FOLDER"))
    return found + _sampling(task, survey)


def examine_windows(task: Task, data: SiteData) -> list[Finding]:
    """What windows tell: whether there are any to evaluate on, and whether each class is there."""
    found = []
    if task.split.kind != "none" and not len(data.holdout):
        text, remedy = (
            "no window is held out: the model cannot be judged at this site",
            "give more data, or another split",
        )
        found.append(_warning(Code.TOO_FEW, text, "at least 1", remedy))
    known: tuple[str | int, ...] = task.label.classes
    if task.loss == "binary_cross_entropy":
        known = (0, 1)
    counts = np.bincount(data.train.y.astype(np.int64), minlength=len(known)) if known else np.zeros(0, dtype=np.int64)
    absent = [str(known[index]) for index in np.flatnonzero(counts == 0)]
    if absent:
        text = f"no training window is labelled {', '.join(absent)} (of {len(data.train)} windows)"
        remedy = "other sites may know them; alone, this site cannot learn them"
        found.append(_warning(Code.BALANCE, text, "windows of each class", remedy, count=len(absent)))
    return found


def freshness(task: Task, survey: Survey, *, now: float, oldest_s: float | None) -> list[Finding]:
    """Whether the newest reading is recent, and not in the future."""
    if task.rate.seconds is None or survey.time is None or not len(survey.time) or survey.time.max() < EPOCH:
        return []
    age = now - float(survey.time.max())
    if age < -AHEAD:
        text, allowed = f"{survey.origin}: the newest reading is {-age:.0f} s in the future", "times in UTC, up to now"
        return [_warning(Code.TIME, text, allowed, "check the logger's clock and time zone")]
    if oldest_s is not None and age > oldest_s:
        text = f"{survey.origin}: the newest reading is {age / 3600:.1f} hours old"
        return [_warning(Code.STALE, text, f"at most {oldest_s / 3600:.1f} hours", "is the logger still writing?")]
    return []


def _range(task: Task, channel: Channel, values: Numbers, origin: str) -> list[Finding]:
    missing = int(np.isnan(values).sum())
    name, bounds = channel.name, f"{channel.minimum:g} to {channel.maximum:g} {channel.unit}"
    if missing == len(values):
        text = f"{origin}: channel {name} has no value in any of {len(values)} rows"
        remedy = f"data.columns.{name}=ITS_NAME_IN_THE_FILE, if another column holds it"
        return [_finding(Code.ALL_MISSING, name, missing, "error", text, bounds, remedy)]
    found = []
    policy = channel.missing or task.window.missing.policy
    if missing > SPARSE * len(values) and policy == "drop":
        text = f"{origin}: channel {name} has no value in {missing} of {len(values)} rows"
        found.append(_finding(Code.SPARSE, name, missing, "warning", text, f"at most {SPARSE:.0%}", "check its sensor"))
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
        return [*found, _finding(Code.UNIT, name, count, "error", text, bounds, remedy)]
    severity: Severity = "error" if channel.outside == "refuse" else "warning"
    remedy = f"correct these rows, or set outside: clip for {name} in a task of your own"
    return [*found, _finding(Code.RANGE, name, count, severity, text, bounds, remedy)]


def _other_unit(channel: Channel, values: Numbers) -> str | None:
    """The unit in which nearly all readings would lie within the range, where as they stand most do not."""

    def share(numbers: Numbers) -> float:
        inside = (numbers >= channel.minimum) & (numbers <= channel.maximum)
        return float(inside.sum() / max(1, int((~np.isnan(numbers)).sum())))

    if share(values) > 0.5:
        return None
    for unit in convertible(channel.unit)[1:]:
        rule = conversion(unit, channel.unit)
        if rule is not None and share(values * rule[0] + rule[1]) > 0.99:
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
        return [_finding(Code.RATE, "", len(steps), "error", text, f"{step:g} {task.rate.unit}", remedy)]
    breaks = ~same | (apart > (task.window.gap.longest + 0.5) * step)
    run = np.concatenate([[0], np.cumsum(breaks)])
    lost = int((np.bincount(run)[run] < task.window.length).sum())
    if task.window.pad == "edge" or task.window.gap.policy != "drop" or lost <= LOST * len(time):
        return []
    text = f"{survey.origin}: {lost} of {len(time)} readings lie in runs shorter than a window of {task.window.length}"
    return [
        _warning(Code.GAPS, text, f"at most {LOST:.0%}", "close the gaps, or allow longer ones in window.gap", lost)
    ]


def _problem(problem: Problem) -> Finding:
    error = problem.error
    return _finding(error.code, problem.channel, problem.count, "error", error.found, error.allowed, error.next_step)


def _error(error: TelemetryError) -> Finding:
    return _finding(error.code, "", 1, "error", error.found, error.allowed, error.next_step)


def _warning(code: Code, text: str, allowed: str, remedy: str, count: int = 1) -> Finding:
    return _finding(code, "", count, "warning", text, allowed, remedy)


def _finding(code: Code, channel: str, count: int, severity: Severity, text: str, allowed: str, remedy: str) -> Finding:
    # An error that was met while reading tells to run the check: that is what is running.
    remedy = remedy.removesuffix(f", or {CHECK}").replace(CHECK, "").strip("; ") if CHECK in remedy else remedy
    remedy = remedy or "correct the file, then check again"
    return Finding(
        code=code, channel=channel, count=count, severity=severity, text=text, allowed=allowed, remedy=remedy
    )
