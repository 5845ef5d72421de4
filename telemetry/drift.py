"""Whether a site's readings still look as they did: the population stability index against a summary kept at the site.

PSI = Σ (p − q) ln(p / q) over cells: the reference's tenths of a channel, and beside them the readings where it had
none, those below and above the public range, and those that are missing. Below 0.1 is taken for stable, from 0.25 for
shifted. Two samples of one distribution have a PSI near χ² with cells − 1 degrees of freedom, times 1/n + 1/m; a shift
must be beyond that too, with readings in one window counted as one, because neighbours in time are alike.

Source: PSI and its thresholds: Siddiqi, Credit Risk Scorecards (2006), ch. 9; its distribution: Yurdakul and Naranjo,
Statistical properties of the population stability index, Journal of Risk Model Validation 14(4), 2020.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedsite.telemetry import findings
from fedsite.telemetry.balance import classes_of, label_counts
from fedsite.telemetry.dataset import SiteData
from fedsite.telemetry.errors import Code
from fedsite.telemetry.findings import Finding
from fedsite.telemetry.schema import EPOCH, Channel
from fedsite.telemetry.task import Task

if TYPE_CHECKING:
    from fedsite.telemetry.sources_survey import Survey

BINS = 256  # equal parts of a channel's public range that a summary counts
TENTHS = 10  # groups of those that PSI compares, of about equal weight in the reference
NEAR = 8  # bins around a reading of the reference in which another is no news
OUTSIDE = 3  # cells after the bins: below the range, above it, missing
MOST = 1024  # channels in a summary
SHIFTED = 0.25
_Z = 3.09  # of the normal distribution: one chance in a thousand

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Readings of one channel, counted: [BINS + OUTSIDE]."""

    unit: str
    minimum: float
    maximum: float
    counts: Counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a site's data looked like; it is the site's own and never leaves it."""

    rows: int
    until: float | None  # seconds since 1970 of the newest reading; None without a clock
    channels: Mapping[str, Histogram]
    labels: Mapping[str, int] = field(default_factory=dict)  # training windows of each class


def summarise(task: Task, survey: Survey, *, after: float | None = None) -> Summary:
    """Count the readings of a survey, or those newer than `after`; labels are not known from readings."""
    chosen, newest = np.ones(survey.rows, dtype=bool), _newest(task, survey)
    if after is not None and survey.time is not None:
        chosen = survey.time > after
    known = {channel.name: channel for channel in task.single_channels}
    counted = {
        name: _histogram(known[name], values[chosen])
        for name, values in list(survey.values.items())[:MOST]
        if name in known
    }
    return Summary(rows=int(chosen.sum()), until=newest, channels=counted)


def labels(task: Task, data: SiteData) -> dict[str, int]:
    """Training windows of each class; empty where there are no classes."""
    return dict(zip(map(str, classes_of(task)), label_counts(task, data.train).tolist(), strict=True))


def compared(task: Task, survey: Survey, reference: Summary) -> Summary:
    """What to hold against a reference: the readings since then, where there are enough for a window, else all."""
    if reference.until is not None and _newest(task, survey) is not None:
        newer = summarise(task, survey, after=reference.until)
        if newer.rows >= task.window.length:
            return newer
    return summarise(task, survey)


def drift(task: Task, reference: Summary, present: Summary, *, since: str) -> list[Finding]:
    """Channels and labels that have shifted.

    Args:
        since: when the reference was taken, for the text.
    """
    found: list[Finding] = []
    accept = f"if the change is right: fedsite data check {task.name} --accept"
    for name in common(reference, present):
        then, now = reference.channels[name], present.channels[name]
        index, chance = stability(*_cells(then.counts, now.counts), each=task.window.length)
        if index >= max(SHIFTED, chance):
            text = f"channel {name} has shifted since {since}: PSI {index:.2f}, {_moved(then, now)}"
            count, remedy = int(now.counts.sum()), f"look at the sensor and its unit; {accept}"
            found.append(findings.warning(Code.DRIFT, text, _allowed(chance), remedy, channel=name, count=count))
    if reference.labels and reference.labels.keys() == present.labels.keys():
        counts = [np.array([some.labels[name] for name in present.labels]) for some in (reference, present)]
        index, chance = stability(*counts, each=task.overlap)
        if index >= max(SHIFTED, chance):
            name, count = task.label.column or "", int(counts[1].sum())
            text = f"the labels have shifted since {since}: PSI {index:.2f}, {_shares(reference, present)}"
            remedy = f"are the labels complete? {accept}"
            found.append(findings.warning(Code.DRIFT, text, _allowed(chance), remedy, channel=name, count=count))
    return found


def common(reference: Summary, present: Summary) -> list[str]:
    """Channels that both have, with one unit and range: no others can be compared."""
    return [name for name, now in present.channels.items() if _like(reference.channels.get(name), now)]


def stability(reference: Counts, present: Counts, *, each: int = 1) -> tuple[float, float]:
    """PSI of two counts over the same cells, and the value that chance reaches once in a thousand.

    Args:
        reference, present: [cells].
        each: counts that follow each other so closely that they tell no more than one.
    """
    used = (reference + present) > 0
    n, m, cells = int(reference.sum()), int(present.sum()), int(used.sum())
    if not n or not m or cells < 2:
        return 0.0, 0.0
    p = (reference[used] + 0.5) / (n + 0.5 * cells)
    q = (present[used] + 0.5) / (m + 0.5 * cells)
    free = cells - 1
    # χ² quantile: Wilson and Hilferty (1931).
    limit = free * (1 - 2 / (9 * free) + _Z * math.sqrt(2 / (9 * free))) ** 3
    return float(((p - q) * np.log(p / q)).sum()), limit * each * (1 / n + 1 / m)


def _like(then: Histogram | None, now: Histogram) -> bool:
    return then is not None and (then.unit, then.minimum, then.maximum) == (now.unit, now.minimum, now.maximum)


def _cells(reference: Counts, present: Counts) -> tuple[Counts, Counts]:
    """Both counts over the reference's tenths, what it has no reading near, and the cells outside."""
    inside = reference[:BINS]
    before = np.cumsum(inside) - inside
    group = np.minimum(before * TENTHS // max(1, int(inside.sum())), TENTHS - 1)
    group[np.convolve(inside > 0, np.ones(2 * NEAR + 1), mode="same") < 0.5] = TENTHS
    one, other = (
        np.concatenate([np.bincount(group, weights=counts[:BINS], minlength=TENTHS + 1), counts[BINS:]])
        for counts in (reference, present)
    )
    return one.astype(np.int64), other.astype(np.int64)


def _histogram(channel: Channel, values: NDArray[np.float64]) -> Histogram:
    missing = np.isnan(values)
    share = (np.where(missing, channel.minimum, values) - channel.minimum) / (channel.maximum - channel.minimum)
    cell = np.clip(np.floor(np.clip(share, 0, 1) * BINS), 0, BINS - 1).astype(np.int64)
    cell[share < 0] = BINS
    cell[share > 1] = BINS + 1
    cell[missing] = BINS + 2
    counts = np.bincount(cell, minlength=BINS + OUTSIDE)
    return Histogram(unit=channel.unit, minimum=channel.minimum, maximum=channel.maximum, counts=counts)


def _newest(task: Task, survey: Survey) -> float | None:
    """The newest reading's time, where times are the clock's and not a count of their own."""
    if task.data.time is None or task.rate.seconds is None or survey.time is None or not len(survey.time):
        return None
    newest = float(survey.time.max())
    return newest if newest >= EPOCH else None


def _moved(then: Histogram, now: Histogram) -> str:
    words = f"mean {_mean(then)} to {_mean(now)} {now.unit}"
    lost = [float(some.counts[BINS + 2] / max(1, some.counts.sum())) for some in (then, now)]
    return words + (f", missing {lost[0]:.0%} to {lost[1]:.0%}" if abs(lost[1] - lost[0]) >= 0.01 else "")


def _mean(some: Histogram) -> str:
    """The mean of the readings within the range, to the width of a bin."""
    inside = some.counts[:BINS]
    if not inside.sum():
        return "none"
    middle = (np.arange(BINS) + 0.5) / BINS * (some.maximum - some.minimum) + some.minimum
    return f"{float((inside * middle).sum() / inside.sum()):.4g}"


def _shares(then: Summary, now: Summary) -> str:
    """The class that changed most."""
    totals = [max(1, sum(some.labels.values())) for some in (then, now)]
    shares = {name: (then.labels[name] / totals[0], now.labels[name] / totals[1]) for name in now.labels}
    name, (before, after) = max(shares.items(), key=lambda item: abs(item[1][1] - item[1][0]))
    return f"{name} {before:.0%} to {after:.0%} of windows"


def _allowed(chance: float) -> str:
    return f"PSI below {max(SHIFTED, chance):.2f}"
