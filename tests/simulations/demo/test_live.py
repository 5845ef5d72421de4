"""Events become a picture, in any order they come."""

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fedsite.simulations.demo.live import Progress, View, draw

EVENTS = [
    {"kind": "launched", "rounds": 2},
    {"kind": "asked", "phase": "train", "round": 1, "sites": ["a", "b"]},
    {"kind": "reply", "phase": "train", "round": 1, "site": "a", "outcome": "ok", "code": None},
    {"kind": "reply", "phase": "train", "round": 1, "site": "b", "outcome": "refused", "code": "budget"},
    {"kind": "round_finished", "round": 1, "outcome": "degraded", "participants": 1, "seconds": 1.5, "bytes_up": 2000},
    {"kind": "evaluated", "round": 1, "metric": 13.25, "sites": 1},
    {"kind": "finished", "outcome": "completed"},
]


def text(progress: Progress) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(draw(progress, "rmse"))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_every_event_shows() -> None:
    progress = Progress()
    for event in EVENTS:
        progress.take(event)
    shown = text(progress)
    for word in ("1/2 rounds", "completed", "degraded", "13.25", "a ok", "b budget", "2 kB"):
        assert word in shown


@given(st.permutations(EVENTS))
def test_no_order_breaks_it(events: list[dict[str, object]]) -> None:
    progress = Progress()
    for event in [*events, {"kind": "of a later version"}]:
        progress.take(event)
        draw(progress, "rmse")


def test_without_a_terminal_a_line_per_round() -> None:
    out = io.StringIO()
    with View(Console(file=out, width=160), "rmse") as view:
        for event in EVENTS:
            view.take(event)
    assert "round 1/2: degraded, 1 sites, 1.50 s" in out.getvalue()
