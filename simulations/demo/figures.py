"""Small SVG charts as text: no library, no script, readable in print and in the dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 720, 56, 164, 16, 44  # pixels; RIGHT holds the labels at the lines' ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve: points (x, y), drawn in the colour of its CSS class."""

    label: str
    style: str  # CSS class that sets the colour: global, central, local, int8
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A horizontal reference."""

    label: str
    style: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar of a group; None where there is nothing to show."""

    label: str
    style: str
    value: float | None


def curve(lines: Sequence[Line], levels: Sequence[Level], *, x_label: str, y_label: str, height: int = 300) -> str:
    """A line chart with labelled ends and reference levels.

    Raises:
        ValueError: no point at all.
    """
    ys = [y for line in lines for _, y in line.points] + [level.value for level in levels]
    xs = [x for line in lines for x, _ in line.points]
    if not xs:
        raise ValueError("a chart needs at least one point")
    low, high = bounds(ys)
    left_x, right_x = min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1

    def at(x: float, y: float) -> tuple[float, float]:
        px = LEFT + (x - left_x) / (right_x - left_x) * (WIDTH - LEFT - RIGHT)
        py = TOP + (high - y) / (high - low) * (height - TOP - BOTTOM)
        return px, py

    parts = [opened(height, f"{y_label} by {x_label}")]
    for tick in ticks(low, high):
        _, py = at(left_x, tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py:.1f}" y2="{py:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{py + 4:.1f}" text-anchor="end">{number(tick)}</text>')
    for tick in _whole_ticks(left_x, right_x):
        px, _ = at(tick, low)
        parts.append(
            f'<text class="tick" x="{px:.1f}" y="{height - BOTTOM + 18}" text-anchor="middle">{number(tick)}</text>'
        )
    ends: list[tuple[float, str, str]] = []
    for level in levels:
        _, py = at(left_x, level.value)
        parts.append(
            f'<line class="level {level.style}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py:.1f}" y2="{py:.1f}"/>'
        )
        ends.append((py, level.style, f"{level.label} {number(level.value)}"))
    for line in lines:
        if not line.points:
            continue
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in (at(x, y) for x, y in line.points))
        parts.append(f'<polyline class="line {line.style}" points="{path}"/>')
        last = line.points[-1]
        px, py = at(*last)
        parts.append(f'<circle class="dot {line.style}" cx="{px:.1f}" cy="{py:.1f}" r="3.5"/>')
        ends.append((py, line.style, f"{line.label} {number(last[1])}"))
    parts += [
        f'<text class="end {style}" x="{WIDTH - RIGHT + 8}" y="{py + 4:.1f}">{escape(text)}</text>'
        for py, style, text in apart(ends, gap=17)
    ]
    parts.append(
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{height - 4}" text-anchor="middle">{escape(x_label)}</text>'
    )
    parts.append("</svg>")
    return "".join(parts)


def bars(groups: Sequence[tuple[str, Sequence[Bar]]], *, y_label: str) -> str:
    """Horizontal grouped bars: one group a row, each bar with its figure at the end."""
    values = [bar.value for _, row in groups for bar in row if bar.value is not None]
    top = max([*values, 0.0]) or 1.0
    thickness, pad = 14, 12
    label_width = 130
    rows = max((len(row) for _, row in groups), default=1)
    group_height = rows * (thickness + 3) + pad
    height = TOP + len(groups) * group_height
    parts = [opened(height, f"{y_label} per site")]
    for index, (name, row) in enumerate(groups):
        y0 = TOP / 2 + index * group_height
        middle = y0 + (group_height - pad) / 2 + 4
        parts.append(
            f'<text class="row" x="{label_width - 10}" y="{middle:.1f}" text-anchor="end">{escape(name)}</text>'
        )
        for position, bar in enumerate(row):
            y = y0 + position * (thickness + 3)
            if bar.value is None:
                continue
            width = max(1.0, bar.value / top * (WIDTH - label_width - 80))
            parts.append(
                f'<rect class="bar {bar.style}" x="{label_width}" y="{y:.1f}" width="{width:.1f}" height="{thickness}" rx="2"><title>{escape(bar.label)}: {number(bar.value)}</title></rect>'
            )
            parts.append(
                f'<text class="value" x="{label_width + width + 6:.1f}" y="{y + thickness - 3:.1f}">{number(bar.value)}</text>'
            )
    parts.append("</svg>")
    return "".join(parts)


def proportions(parts_of: Sequence[tuple[str, float, str]]) -> str:
    """One bar cut in proportion: (label, amount, figure to print). Empty amounts are left out."""
    # The colour follows the position in the full list, so that two bars of the same parts share their colours.
    shown = [(index % 8, *part) for index, part in enumerate(parts_of) if part[1] > 0]
    total = sum(amount for _, _, amount, _ in shown) or 1.0
    cells = [
        f'<div class="cell shade{shade}" style="flex:{amount / total:.5f} 1 0" title="{escape(label)}: {escape(text)}"></div>'
        for shade, label, amount, text in shown
    ]
    legend = "".join(
        f'<li><span class="swatch shade{shade}"></span>{escape(label)} <b>{escape(text)}</b></li>'
        for shade, label, _, text in shown
    )
    return f'<div class="proportions">{"".join(cells)}</div><ul class="legend">{legend}</ul>'


def ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) from `low` to `high`."""
    span = high - low
    if span <= 0:
        return [low]
    raw = span / about
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first = math.ceil(low / step)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def number(value: float) -> str:
    """At most four significant digits, no trailing zeros."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    text = f"{value:.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _whole_ticks(low: float, high: float) -> list[float]:
    return [tick for tick in ticks(low, high, about=8) if tick == int(tick)] or [low]


def bounds(values: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis that holds these values with a little room."""
    low, high = min(values), max(values)
    margin = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return low - margin, high + margin


def apart(ends: Sequence[tuple[float, str, str]], gap: float = 17) -> list[tuple[float, str, str]]:
    """Push labels apart so that no two overlap; order is kept."""
    placed: list[tuple[float, str, str]] = []
    for y, style, text in sorted(ends):
        placed.append((max(y, placed[-1][0] + gap) if placed else y, style, text))
    return placed


def opened(height: float, title: str) -> str:
    """The beginning of a chart, with its name for who cannot see it."""
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>'
