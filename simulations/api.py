"""Simulations in a few lines, for a notebook.

result = simulate("digits", "strategy=fedavg,scaffold", "privacy=none", rounds=20, seeds=5)
result                      # the learning curves, in a notebook
result.curves["metric"]     # NumPy columns; result.curves.frame() is a polars DataFrame
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsite.models import catalog
from fedsite.protocol.errors import ConfigError
from fedsite.server.strategies.strategy import Strategy
from fedsite.simulations.pages import charts
from fedsite.simulations.pages.charts import Point, Series
from fedsite.simulations.runs import results, settings, study, words
from fedsite.simulations.runs.results import Simulation
from fedsite.simulations.runs.study import Watch
from fedsite.simulations.sweeps import seeds as over_seeds
from fedsite.simulations.sweeps import sweep, tables
from fedsite.simulations.sweeps.manifest import Cell
from fedsite.simulations.sweeps.seeds import Estimate, Group

OWN_MODEL = "own"
Weights = Mapping[str, NDArray[np.generic]]


class Columns(Mapping[str, NDArray[np.generic]]):
    """A table as NumPy columns by name."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        names = dict.fromkeys(key for row in rows for key in row)
        self._columns = {name: _array([row.get(name) for row in rows]) for name in names}

    def __getitem__(self, name: str) -> NDArray[np.generic]:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def frame(self) -> Any:
        """The same as a polars DataFrame."""
        return tables.frame(self._columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Finished runs: one for each setting and seed."""

    runs: tuple[Simulation, ...]
    groups: tuple[Group, ...]  # runs that differ in their seed alone
    params: tuple[Weights, ...]  # final weights of each run
    curves: Columns  # one row a round: group, seed, round, metric, seconds, bytes …
    sites: Columns  # one row a site: group, seed, site, windows, rounds, metric, local_only

    @property
    def metric(self) -> dict[str, Estimate | None]:
        """Of the final models, by group: mean and 95 % confidence interval over seeds."""
        return {group.label: group.metric() for group in self.groups}

    def __repr__(self) -> str:
        first = self.runs[0]
        found = "; ".join(f"{label or first.task} {words.interval(value)}" for label, value in self.metric.items())
        return f"{first.metric.name} after {first.rounds} rounds: {found}"

    def _repr_html_(self) -> str:
        """The learning curves, with bands over seeds."""
        lines = []
        for group in self.groups:
            points = [Point(x=at, mean=each.mean, low=each.low, high=each.high) for at, each in group.curve()]
            lines.append(Series(label=group.label, points=points))
        if not any(line.points for line in lines):
            return f"<p>{escape(repr(self))}</p>"
        style = files("fedsite.simulations.pages").joinpath("chart.css").read_text(encoding="utf-8")
        names = [
            f'<span class="c{place % charts.COLOURS}">■ {escape(line.label)}</span>' for place, line in enumerate(lines)
        ]
        legend = " &nbsp; ".join(names) if len(lines) > 1 else ""
        chart = charts.bands(lines, x_label="round", y_label=self.runs[0].metric.name)
        return f'<div class="fedsite"><style>{style}</style>{legend}{chart}</div>'


def simulate(
    task: str,
    *overrides: str,
    rounds: int | None = None,
    seeds: int | Sequence[int] = 1,
    strategy: Strategy | None = None,
    model: Callable[..., Any] | None = None,
    baselines: bool = False,
    watch: Watch | None = None,
) -> Result:
    """Run a simulation for every combination of values and every seed.

    Args:
        task: a shipped task's name, or a YAML file.
        overrides: as of `fedsite simulate`; `key=a,b` and `key=range(0,5)` are several values.
        rounds: instead of the task's.
        seeds: how many, from 0, or which.
        strategy: an object of your own (`fedsite.server.strategies.strategy.Strategy`) instead of a named one.
        model: makes a `torch.nn.Module` from `time`, `features` and `outputs`; instead of the task's.
        baselines: also train the central model and those of single sites.
        watch: looks on (`fedsite.simulations.runs.study.Watch`).

    Raises:
        ConfigError: an unknown key or value, or a plan that cannot be.
        TelemetryError: data is missing or unreadable.
    """
    chosen = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not chosen:
        raise ConfigError("a simulation of no seeds", allowed="at least 1")
    typed = [f"task_file={Path(task).absolute()}" if task.endswith((".yaml", ".yml")) else f"task={task}", *overrides]
    typed += [f"rounds.count={rounds}"] if rounds is not None else []
    hidden = [] if baselines else ["simulation.baselines.central=false", "simulation.baselines.local_only=0"]
    with ExitStack() as stack:
        if model is not None:
            stack.enter_context(catalog.lent(OWN_MODEL, _Made(model)))
            hidden += [f"model.name={OWN_MODEL}"]
        return _run(typed, hidden, chosen, strategy, watch)


def _run(
    typed: list[str], hidden: list[str], chosen: Sequence[int], strategy: Strategy | None, watch: Watch | None
) -> Result:
    swept, found, params, curves, sites = sweep.swept(typed), [], [], [], []
    for number, values in enumerate(sweep.cells(typed)):
        for seed in chosen:
            each = (*values, f"seed={seed}")
            asked = settings.compose([*each, *hidden])
            if f"model.name={OWN_MODEL}" in hidden and asked.simulation.workers > 1:
                raise ConfigError(
                    f"simulation.workers is {asked.simulation.workers} with a model of your own",
                    allowed="1: other processes do not know the model",
                    next_step="a package with an entry point in group fedsite.models",
                )
            done = study.study(asked, each, strategy=strategy, watch=watch)
            found.append((Cell(key=f"{number}-{seed}", folder=".", overrides=each), done.simulation))
            params.append(done.params)
            group = over_seeds.groups([found[-1]], swept)[0].label
            plain = results.value(done.simulation)
            curves += [{"group": group, "seed": seed, **_round(row)} for row in plain["curve"]]
            sites += [{"group": group, "seed": seed, **row} for row in done.sites]
    return Result(
        runs=tuple(result for _, result in found),
        groups=tuple(over_seeds.groups(found, swept)),
        params=tuple(params),
        curves=Columns(curves),
        sites=Columns(sites),
    )


class _Made:
    """An architecture out of a function."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Options:
        """None: the function knows them."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, options: Any, *, time: int, features: int, outputs: int) -> Any:
        return self._make(time=time, features=features, outputs=outputs)


def _round(row: dict[str, Any]) -> dict[str, Any]:
    return {"round": row["number"], **{key: item for key, item in row.items() if key != "number"}}


def _array(values: list[Any]) -> NDArray[np.generic]:
    """Numbers with NaN where there is none; text as it is."""
    if any(isinstance(value, str) for value in values):
        return np.array([value if value is not None else "" for value in values])
    if any(value is None for value in values):
        return np.array([np.nan if value is None else value for value in values], np.float64)
    return np.array(values)
