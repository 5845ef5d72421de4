"""Charts hold every figure they are given, and survive hostile labels."""

import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest

from fedsite.simulations.demo import figures
from fedsite.simulations.demo.figures import Bar, Level, Line


def test_ticks_are_round_numbers_inside_the_range() -> None:
    assert figures.ticks(0.0, 10.0) == [0, 2, 4, 6, 8, 10]
    assert figures.ticks(13.2, 14.1) == pytest.approx([13.2, 13.4, 13.6, 13.8, 14.0])


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (13.4349, "13.43"), (0.00012346, "0.0001235"), (12345.6, "12,346"), (5.0, "5")]
)
def test_number_keeps_four_digits(value: float, text: str) -> None:
    assert figures.number(value) == text


def test_curve_is_well_formed_and_labels_every_line() -> None:
    svg = figures.curve(
        [Line(label="a<b", style="global", points=[(1, 2.0), (2, 1.0)])],
        [Level(label="central", style="central", value=0.5)],
        x_label="round",
        y_label="RMSE",
    )
    text = "".join(ElementTree.fromstring(svg).itertext())
    assert "a<b 1" in text
    assert "central 0.5" in text


def test_curve_without_points_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one point"):
        figures.curve([], [], x_label="round", y_label="RMSE")


def test_labels_at_the_same_height_are_pushed_apart() -> None:
    lines = [Line(label=name, style="global", points=[(1, 1.0), (2, 1.0)]) for name in "abc"]
    root = ElementTree.fromstring(figures.curve(lines, [], x_label="x", y_label="y"))
    heights = sorted(float(item.get("y", "0")) for item in root if (item.get("class") or "").startswith("end"))
    assert min(second - first for first, second in pairwise(heights)) >= 14.9


def test_bars_are_in_proportion() -> None:
    root = ElementTree.fromstring(
        figures.bars(
            [("site", [Bar(label="one", style="global", value=1.0), Bar(label="two", style="local", value=2.0)])],
            y_label="m",
        )
    )
    widths = [float(item.get("width", "0")) for item in root if item.tag.endswith("rect")]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.2)  # widths are written with one decimal


def test_bars_leave_out_what_is_not_there() -> None:
    assert "rect" not in figures.bars([("site", [Bar(label="one", style="global", value=None)])], y_label="m")
