"""A run as it happens: events folded into a picture, and the picture drawn in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_STYLES = {"completed": "green", "ok": "green", "degraded": "yellow", "working": "cyan"}
_SHOWN_ROUNDS = 6
_SHOWN_SITES = 12
_BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(slots=True, kw_only=True)
class Progress:
    """Where a run stands, from its events (`fedsite.event/1`) alone."""

    rounds: int = 0
    phase: str = "starting"
    outcome: str = ""
    sites: dict[str, str] = field(default_factory=dict)  # name -> what it last did
    finished: list[Mapping[str, Any]] = field(default_factory=list)
    metrics: dict[int, float | None] = field(default_factory=dict)  # round -> federated evaluation

    def take(self, event: Mapping[str, Any]) -> None:
        """Fold one event in; kinds it does not know are passed over."""
        kind = event.get("kind")
        if kind == "launched":
            self.rounds = int(event.get("rounds", 0))
        elif kind == "asked":
            self.phase = _phase(str(event.get("phase")), event.get("round"), self.rounds)
            for name in event.get("sites", ()):
                self.sites[name] = "working"
        elif kind == "reply":
            self.sites[str(event.get("site"))] = str(event.get("code") or event.get("outcome"))
        elif kind == "round_finished":
            self.finished.append(event)
        elif kind == "evaluated":
            self.metrics[int(event.get("round", 0))] = event.get("metric")
        elif kind == "finished":
            self.outcome = str(event.get("outcome"))
            self.phase = self.outcome


def draw(progress: Progress, metric: str) -> RenderableType:
    """The picture: a bar, the last rounds, the sites."""
    done = len(progress.finished)
    head = Table.grid(padding=(0, 2))
    head.add_row(
        ProgressBar(total=max(1, progress.rounds), completed=done, width=32),
        Text(f"{done}/{progress.rounds} rounds"),
        Text(progress.phase, style="bold"),
        Text(_spark([value for _, value in sorted(progress.metrics.items()) if value is not None]), style="blue"),
    )
    rounds = Table(box=None, padding=(0, 2), header_style="dim")
    for name, justify in (("round", "right"), ("outcome", "left"), ("sites", "right"), ("seconds", "right")):
        rounds.add_column(name, justify=justify)  # type: ignore[arg-type]
    rounds.add_column("up", justify="right")
    rounds.add_column(metric, justify="right")
    for event in progress.finished[-_SHOWN_ROUNDS:]:
        value = progress.metrics.get(int(event["round"]))
        outcome = str(event["outcome"])
        rounds.add_row(
            str(event["round"]),
            Text(outcome, style=_STYLES.get(outcome, "red")),
            str(event["participants"]),
            f"{event['seconds']:.2f}",
            f"{event['bytes_up'] / 1000:.0f} kB",
            "" if value is None else f"{value:.4g}",
        )
    names = sorted(progress.sites)
    line = Text()
    for name in names[:_SHOWN_SITES]:
        state = progress.sites[name]
        line.append(f"{name} ", style="dim").append(f"{state}   ", style=_STYLES.get(state, "red"))
    if len(names) > _SHOWN_SITES:
        line.append(f"and {len(names) - _SHOWN_SITES} more", style="dim")
    return Group(head, rounds, line)


class View:
    """Draws a run in a terminal; without one it prints a line per finished round."""

    def __init__(self, console: Console, metric: str) -> None:
        self._console = console
        self._metric = metric
        self._live = Live(console=console, refresh_per_second=8, transient=False) if console.is_terminal else None
        self.progress = Progress()

    def __enter__(self) -> View:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def take(self, event: Mapping[str, Any]) -> None:
        """Show one event."""
        self.progress.take(event)
        if self._live is not None:
            self._live.update(draw(self.progress, self._metric))
        elif event.get("kind") == "round_finished":
            self._console.print(
                f"round {event['round']}/{self.progress.rounds}: {event['outcome']}, "
                f"{event['participants']} sites, {event['seconds']:.2f} s"
            )
        elif event.get("kind") == "evaluated" and event.get("metric") is not None:
            self._console.print(f"{self._metric} of round {event['round']}: {event['metric']:.4g}")


def _phase(kind: str, number: Any, rounds: int) -> str:
    words = {
        "prepare": "asking the sites",
        "statistics": "adding up statistics",
        "train": f"training round {number} of {rounds}",
        "advertise": "making keys for a sum",
        "share": "sharing keys for a sum",
        "confirm": "confirming who is in the sum",
        "unmask": "opening the sum",
        "evaluate": "evaluating",
        "calibrate": "calibrating int8",
        "install": "delivering",
        "finish": "finishing",
    }
    return words.get(kind, kind)


def _spark(values: list[float]) -> str:
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(_BLOCKS[round((value - low) / span * (len(_BLOCKS) - 1))] for value in values[-40:])
