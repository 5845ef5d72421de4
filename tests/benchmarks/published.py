"""What the engine's results are beside published ones, and which strategy helps where: the tables of docs/research.md.

`references`: FedAvg on MNIST in 20 sites and on engine_rul, beside the figures that their data sets came with.
`strategies`: FedAvg, FedProx, FedAdam, SCAFFOLD on every shipped real task, all with plain SGD at the sites; digits and
MNIST split by Dirichlet(0.1) over labels. Each strategy's rate, FedProx's μ and FedAdam's server rate are chosen by one
run of each combination with a seed that is not reported.
`privacy`: engine_rul against ε, per window and per entity.

    python tests/benchmarks/published.py [references strategies privacy] [--seeds 3] [--task digits …] [--json]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from fedsite.protocol.errors import ConfigError
from fedsite.simulations.api import Result, simulate
from fedsite.simulations.runs import words
from fedsite.simulations.sweeps.seeds import Estimate
from fedsite.telemetry.task import load_task

CHOOSING_SEED = 1000
SPLIT = ("simulation.partition.kind=dirichlet", "simulation.partition.alpha=0.1")
TASKS: dict[str, tuple[str, ...]] = {
    "digits": (*SPLIT, "simulation.sites=10"),
    "mnist": (),  # its sites are a Dirichlet(0.1) already
    "engine_rul": (),
    "activity": (),
    "air_forecast": (),
    "pump_anomaly": (),
    "server_anomaly": (),
}
SGD = ("privacy=none", "local.optimizer=sgd", "local.momentum=0", "simulation.evaluate_every=1000")
RATES = (0.03, 0.1, 0.2)
OPTIONS: dict[str, tuple[tuple[str, ...], ...]] = {
    "fedavg": (("strategy=fedavg",),),
    "fedprox": tuple(("strategy=fedprox", f"local.proximal={mu}") for mu in (0.01, 0.1)),
    "fedadam": tuple(("strategy=fedadam", f"strategy.options.server_learning_rate={eta}") for eta in (0.01, 0.03)),
    "scaffold": (("strategy=scaffold",),),
}
REFERENCES = {"mnist": "0.836 (FedAvg, 12 rounds)", "engine_rul": "13.73 ± 0.31 (FedAvg); LSTM 14.93, 1D-CNN 16.97"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a table."""

    table: str
    task: str
    what: str
    settings: tuple[str, ...]
    metric: str
    better: str
    mean: float
    half: float | None  # of the 95 % interval over seeds
    seeds: int
    note: str = ""


def row(table: str, task: str, what: str, found: Result, settings: Sequence[str], note: str = "") -> Row:
    """Of a result with one group."""
    (estimate,) = found.metric.values()
    assert estimate is not None
    metric = found.runs[0].metric
    return Row(
        table=table,
        task=task,
        what=what,
        settings=tuple(settings),
        metric=metric.name,
        better=metric.better,
        mean=estimate.mean,
        half=estimate.half,
        seeds=estimate.seeds,
        note=note,
    )


def references(seeds: int) -> list[Row]:
    """As the tasks recommend."""
    found = []
    for task, published in REFERENCES.items():
        result = simulate(task, "privacy=none", "simulation.evaluate_every=1000", seeds=seeds)
        found.append(say(row("references", task, "fedavg", result, (), f"published: {published}")))
    return found


def chosen(task: str, given: Sequence[str], name: str) -> tuple[str, ...]:
    """The best of a strategy's settings, by one run each with a seed that is not reported."""
    better = load_task(task).metric.better
    worst = float("inf" if better == "lower" else "-inf")
    values = {}
    for rate, option in itertools.product(RATES, OPTIONS[name]):
        settings = (f"local.learning_rate={rate}", *option)
        try:
            (estimate,) = simulate(task, *given, *settings, seeds=[CHOOSING_SEED]).metric.values()
            values[settings] = worst if estimate is None else estimate.mean
        except ConfigError as error:  # diverged
            print(f"  {error.found}", file=sys.stderr)
            values[settings] = worst
        print(f"  choosing {task} {' '.join(settings)}: {values[settings]:.4g}", file=sys.stderr)
    return (min if better == "lower" else max)(values, key=values.__getitem__)


def strategies(tasks: Sequence[str], seeds: int) -> list[Row]:
    """Each at its best rate and option."""
    found = []
    for task in tasks:
        given = (*TASKS[task], *SGD)
        for name in OPTIONS:
            settings = chosen(task, given, name)
            result, lost = converged(task, (*given, *settings), seeds)
            if result is None:
                print(f"{task} {name}: every seed diverged", file=sys.stderr)
                continue
            note = f"{lost} of {seeds} seeds diverged" if lost else ""
            found.append(say(row("strategies", task, name, result, settings, note)))
    return found


def converged(task: str, settings: Sequence[str], seeds: int) -> tuple[Result | None, int]:
    """The runs that did not diverge, and how many did."""
    good = list(range(seeds))
    while good:
        try:
            return simulate(task, *settings, seeds=good), seeds - len(good)
        except ConfigError as error:
            print(f"  {task}: {error.found}", file=sys.stderr)
            good = [seed for seed in good if _ends(task, settings, seed)]
    return None, seeds


def _ends(task: str, settings: Sequence[str], seed: int) -> bool:
    try:
        simulate(task, *settings, seeds=[seed])
    except ConfigError:
        return False
    return True


def privacy(seeds: int) -> list[Row]:
    """engine_rul, a window or a whole engine as the unit."""
    found = []
    for experiment, epsilons in (("engine_rul_private", (1.0, 2.0, 4.0, 8.0)), ("engine_rul_entity", (2.0, 8.0))):
        for epsilon in epsilons:
            settings = (f"experiment={experiment}", f"privacy.epsilon={epsilon}")
            result = simulate("engine_rul", *settings, "simulation.evaluate_every=1000", seeds=seeds)
            spent = max(run.epsilon_max or 0.0 for run in result.runs)
            unit = "entity" if "entity" in experiment else "window"
            found.append(
                say(row("privacy", "engine_rul", f"ε {epsilon:g} per {unit}", result, settings, f"spent {spent:.3f}"))
            )
    return found


def say(one: Row) -> Row:
    """Print a line as soon as it is known."""
    value = words.interval(Estimate(mean=one.mean, half=one.half, seeds=one.seeds))
    better = f"{one.metric}, {one.better} is better"
    print(f"| {one.task} | {one.what} | {value} | {better} | {' '.join(one.settings)} | {one.note} |", flush=True)
    return one


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = ["references", "strategies", "privacy"]
    parser.add_argument("tables", nargs="*", default=tables, metavar="TABLE", help=", ".join(tables))
    parser.add_argument("--task", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    print("| task | what | metric | | settings | |\n|---|---|---|---|---|---|", flush=True)
    found: list[Row] = []
    if "references" in options.tables:
        found += references(options.seeds)
    if "strategies" in options.tables:
        found += strategies(options.task, options.seeds)
    if "privacy" in options.tables:
        found += privacy(options.seeds)
    if options.json:
        rows: list[dict[str, Any]] = [{name: getattr(one, name) for name in Row.__slots__} for one in found]
        print(json.dumps({"schema": "fedsite.benchmark/1", "benchmark": "published", "rows": rows}))


if __name__ == "__main__":
    main()
