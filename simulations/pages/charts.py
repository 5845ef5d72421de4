"""Charts of sweeps as SVG text, like figures.py: curves with bands, points with intervals, boxes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from fedsite.simulations.demo.figures import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Level,
    apart,
    bounds,
    number,
    opened,
    ticks,
)

COLOURS = 8  # classes c0 to c7; what comes after them is dashed


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A mean, and the ends of its interval where there is one."""

    x: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One group's points in order of x; its colour follows its place."""

    label: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Five marks of one group's sites, and the tenth percentile from the worst."""

    label: str
    worst: float
    p10: float
    lower: float
    median: float
    upper: float
    best: float


def style(place: int) -> str:
    """CSS classes of the series at a place."""
    return f"c{place % COLOURS}" + (" dashed" if place >= COLOURS else "")


def bands(series: Sequence[Series], levels: Sequence[Level] = (), *, x_label: str, y_label: str) -> str:
    """Curves with their intervals as bands, and horizontal references.

    Raises:
        ValueError: no point at all.
    """
    plane = _Plane.of(series, levels, height=320)
    parts = [plane.opened(f"{y_label} by {x_label}"), plane.across(), plane.along()]
    for place, line in enumerate(series):
        if not line.points:
            continue
        up = [plane.at(point.x, point.high) for point in line.points]
        down = [plane.at(point.x, point.low) for point in reversed(line.points)]
        if any(point.high > point.low for point in line.points):
            parts.append(f'<polygon class="band {style(place)}" points="{_path(up + down)}"/>')
    ends: list[tuple[float, str, str]] = []
    for level in levels:
        _, y = plane.at(plane.left, level.value)
        x2 = WIDTH - RIGHT
        parts.append(f'<line class="level {level.style}" x1="{LEFT}" x2="{x2}" y1="{y:.1f}" y2="{y:.1f}"/>')
        ends.append((y, level.style, f"{level.label} {number(level.value)}"))
    for place, line in enumerate(series):
        if not line.points:
            continue
        path = [plane.at(point.x, point.mean) for point in line.points]
        last = line.points[-1]
        parts.append(
            f'<polyline class="line {style(place)}" points="{_path(path)}"/>'
            f'<circle class="dot {style(place)}" cx="{path[-1][0]:.1f}" cy="{path[-1][1]:.1f}" r="3.5"/>'
        )
        if len(series) + len(levels) <= COLOURS:
            # A legend names the curves where there are several.
            name = "" if len(series) > 1 else f"{line.label or 'federated'} "
            ends.append((path[-1][1], style(place), name + number(last.mean)))
    parts += [_end(y, kind, text) for y, kind, text in apart(ends)]
    return "".join([*parts, plane.named(x_label), "</svg>"])


def points(series: Sequence[Series], *, x_label: str, y_label: str, words: Sequence[tuple[float, str]] = ()) -> str:
    """Points with intervals on a logarithmic x axis, joined by thin lines.

    Args:
        series: every x above 0.
        x_label, y_label: of the axes.
        words: places on the x axis that are named instead of numbered.

    Raises:
        ValueError: no point at all.
    """
    plane = _Plane.of(series, (), height=300, log=True)
    marks = sorted({point.x for line in series for point in line.points})
    named = dict(words)
    parts = [plane.opened(f"{y_label} against {x_label}"), plane.across()]
    for x in marks:
        px, _ = plane.at(x, plane.low)
        text = named.get(x, number(x))
        parts.append(
            f'<text class="tick" x="{px:.1f}" y="{plane.height - BOTTOM + 18}" text-anchor="middle">{escape(text)}</text>'
        )
    ends: list[tuple[float, str, str]] = []
    for place, line in enumerate(series):
        kind = style(place)
        path = [plane.at(point.x, point.mean) for point in line.points]
        parts.append(f'<polyline class="line thin {kind}" points="{_path(path)}"/>')
        for point, (x, y) in zip(line.points, path, strict=True):
            top, bottom = plane.at(point.x, point.high)[1], plane.at(point.x, point.low)[1]
            parts.append(
                f'<line class="whisker {kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>'
                f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>'
                f"{escape(line.label)} {number(point.mean)}</title></circle>"
            )
        if path:
            ends.append((path[-1][1], kind, line.label))
    parts += [_end(y, kind, text) for y, kind, text in apart(ends)]
    return "".join([*parts, plane.named(x_label), "</svg>"])


def boxes(rows: Sequence[Box], *, x_label: str) -> str:
    """Horizontal boxes: whiskers from the worst to the best site, a mark at the tenth percentile.

    Raises:
        ValueError: no row.
    """
    ends = [value for row in rows for value in (row.worst, row.best)]
    low, high = bounds(ends)
    wide, step = 190, 34
    height = TOP + len(rows) * step + BOTTOM

    def at(value: float) -> float:
        return wide + (value - low) / (high - low) * (WIDTH - wide - 20)

    parts = [opened(height, f"{x_label} over sites")]
    for tick in ticks(low, high):
        parts.append(f'<line class="grid" x1="{at(tick):.1f}" x2="{at(tick):.1f}" y1="{TOP}" y2="{height - BOTTOM}"/>')
        parts.append(
            f'<text class="tick" x="{at(tick):.1f}" y="{height - BOTTOM + 18}" text-anchor="middle">{number(tick)}</text>'
        )
    for place, row in enumerate(rows):
        y, kind = TOP + place * step + step / 2, style(place)
        left, right = sorted((at(row.lower), at(row.upper)))
        parts.append(
            f'<text class="row" x="{wide - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(row.label)}</text>'
            f'<line class="whisker {kind}" x1="{at(row.worst):.1f}" x2="{at(row.best):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<rect class="box {kind}" x="{left:.1f}" y="{y - 9:.1f}" width="{max(right - left, 1):.1f}" height="18" rx="3"/>'
            f'<line class="median {kind}" x1="{at(row.median):.1f}" x2="{at(row.median):.1f}" y1="{y - 9:.1f}" y2="{y + 9:.1f}"/>'
            f'<line class="whisker {kind}" x1="{at(row.p10):.1f}" x2="{at(row.p10):.1f}" y1="{y - 6:.1f}" y2="{y + 6:.1f}"/>'
            f'<circle class="dot {kind}" cx="{at(row.worst):.1f}" cy="{y:.1f}" r="4"><title>worst {number(row.worst)}</title></circle>'
        )
    parts.append(
        f'<text class="axis" x="{(wide + WIDTH) / 2}" y="{height - 4}" text-anchor="middle">{escape(x_label)}</text>'
    )
    return "".join([*parts, "</svg>"])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plane:
    """Data coordinates to pixels."""

    left: float
    right: float
    low: float
    high: float
    height: int
    log: bool

    @classmethod
    def of(cls, series: Sequence[Series], levels: Sequence[Level], *, height: int, log: bool = False) -> _Plane:
        found = [point for line in series for point in line.points]
        if not found:
            raise ValueError("a chart needs at least one point")
        low, high = bounds(
            [end for point in found for end in (point.low, point.high)] + [level.value for level in levels]
        )
        left, right = min(point.x for point in found), max(point.x for point in found)
        if log:
            left, right = left / 1.3, right * 1.3
        return cls(left=left, right=right if right > left else left + 1, low=low, high=high, height=height, log=log)

    def at(self, x: float, y: float) -> tuple[float, float]:
        scale: Callable[[float], float] = math.log if self.log else float
        along = (scale(x) - scale(self.left)) / (scale(self.right) - scale(self.left))
        up = (self.high - y) / (self.high - self.low)
        return LEFT + along * (WIDTH - LEFT - RIGHT), TOP + up * (self.height - TOP - BOTTOM)

    def opened(self, title: str) -> str:
        return opened(self.height, title)

    def across(self) -> str:
        parts = []
        for tick in ticks(self.low, self.high):
            _, y = self.at(self.left, tick)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>')
        return "".join(parts)

    def along(self) -> str:
        found = [tick for tick in ticks(self.left, self.right, about=8) if tick == int(tick)] or [self.left]
        return "".join(
            f'<text class="tick" x="{self.at(tick, self.low)[0]:.1f}" y="{self.height - BOTTOM + 18}" '
            f'text-anchor="middle">{number(tick)}</text>'
            for tick in found
        )

    def named(self, label: str) -> str:
        x, y = (LEFT + WIDTH - RIGHT) / 2, self.height - 4
        return f'<text class="axis" x="{x}" y="{y}" text-anchor="middle">{escape(label)}</text>'


def _path(found: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in found)


def _end(y: float, kind: str, text: str) -> str:
    return f'<text class="end {kind}" x="{WIDTH - RIGHT + 8}" y="{y + 4:.1f}">{escape(text)}</text>'
