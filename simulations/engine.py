"""The vectorised engine's rounds: draw a cohort, train it, let the plan's strategy make the next model, judge it.

The same strategies as on the central host: a cohort's sum reaches them as one group's weighted mean, which is what
secure aggregation hands over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fedsite.protocol import weights as encoding
from fedsite.protocol.errors import ConfigError
from fedsite.server.strategies.collected import Collected
from fedsite.server.strategies.strategy import ServerState, Strategy, Update
from fedsite.simulations.vectorised import randomness, schedule, workers
from fedsite.simulations.vectorised.choice import AUTO
from fedsite.simulations.vectorised.job import Job, Layout, Weights
from fedsite.simulations.vectorised.population import Population
from fedsite.simulations.vectorised.sums import Sum

Judge = Callable[[Weights], float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is simulated, and on what."""

    rounds: int
    cohort: int  # sites drawn in each round; all of them where there are fewer
    workers: int = 1  # processes; 1 is this one
    executor: str = AUTO  # a name of vectorised.choice
    device: str = "cpu"
    evaluate_every: int = 1  # rounds; the last model is always judged

    def __post_init__(self) -> None:
        for name in ("rounds", "cohort", "evaluate_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"simulation.{name} is {getattr(self, name)}", allowed="at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one round did."""

    number: int
    sites: int
    weight: int  # windows of these sites, or their number where windows are private
    seconds: float  # wall, of training and aggregation
    metric: float | None  # of the model that came out; None where it was not judged


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """A run, and how it was computed."""

    executor: str
    passed_over: Mapping[str, str]  # faster executors and why they could not do it
    workers: int
    rounds: tuple[Round, ...]
    params: Weights

    @property
    def digest(self) -> str:
        """SHA-256 of the final weights, hex: equal for equal seeds, whatever the number of workers."""
        return encoding.digest(dict(self.params))

    @property
    def seconds_per_round(self) -> float:
        """Median wall seconds."""
        return float(np.median([done.seconds for done in self.rounds]))


def simulate(
    job: Job,
    population: Population,
    strategy: Strategy,
    scale: Scale,
    *,
    judge: Judge | None = None,
    initial: Weights | None = None,
    tell: Callable[[Round], None] = lambda done: None,
) -> Simulated:
    """Run `scale.rounds` rounds.

    Args:
        job: what every site does.
        population: every site's data.
        strategy: how updates become the next model.
        scale: how much, and on what.
        judge: the metric of a model.
        initial: weights to start from; the job's own where there are none.
        tell: called after each round.

    Raises:
        ConfigError: the strategy compares single updates, no executor can do the job, or training diverged.
        DataError: a site has no windows.
    """
    if initial is None:
        initial = {name: value.detach().numpy() for name, value in job.module().state_dict().items()}
    layout = Layout.of(job.module())
    state, done = strategy.init(initial), []
    if isinstance(strategy.aggregator(state, layout.names), Collected):
        raise ConfigError(
            "a strategy that compares updates in the vectorised engine",
            allowed="strategies over one streamed sum",
            next_step="strategy=fedavg",
        )
    with workers.started(job, population, scale.workers, scale.executor, scale.device) as crew:
        for number in range(1, scale.rounds + 1):
            started = time.perf_counter()
            sites = randomness.cohort(job.seed, number, len(population), scale.cohort)
            total = crew.train(state.params, schedule.chunks(population, sites, number))
            state = _next(strategy, state, layout, total)
            seconds = time.perf_counter() - started
            due = number % scale.evaluate_every == 0 or number == scale.rounds
            metric = judge(state.params) if judge and due else None
            done.append(Round(number=number, sites=total.sites, weight=total.weight, seconds=seconds, metric=metric))
            tell(done[-1])
        return Simulated(
            executor=crew.chosen.executor.name,
            passed_over=dict(crew.chosen.passed_over),
            workers=scale.workers,
            rounds=tuple(done),
            params=dict(state.params),
        )


def _next(strategy: Strategy, state: ServerState, layout: Layout, total: Sum) -> ServerState:
    """What the strategy makes of a cohort's sum, which reaches it as one update."""
    aggregator = strategy.aggregator(state, layout.names)
    delta = layout.named(total.mean())
    aggregator.add(Update(site="cohort", delta=delta, weight=float(total.weight), sites=total.sites))
    return strategy.apply(state, aggregator.result())
