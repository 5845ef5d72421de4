"""The vectorised engine's rounds: draw a cohort, train it, let the plan's strategy make the next model, judge it.

The same strategies as on the central host: a group's sum reaches them as one weighted mean, which is what secure
aggregation hands over; the whole cohort is one group unless a strategy compares updates.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedsite.protocol import weights as encoding
from fedsite.protocol.errors import ConfigError, PolicyError
from fedsite.server.strategies.collected import Collected
from fedsite.server.strategies.strategy import ServerState, Strategy, Update
from fedsite.simulations.vectorised import groups, randomness, schedule, workers
from fedsite.simulations.vectorised.choice import AUTO
from fedsite.simulations.vectorised.controls import Controls
from fedsite.simulations.vectorised.executor import Order, site_weights
from fedsite.simulations.vectorised.job import Job, Layout, Weights
from fedsite.simulations.vectorised.population import Population
from fedsite.simulations.vectorised.schedule import Ints
from fedsite.simulations.vectorised.workers import Workers

Outcome = Literal["done", "nobody", "too-few"]
Judge = Callable[[Weights], float | None]
Present = Callable[[int, Ints], Ints]  # of a round's number and the sites drawn: those whose update arrives


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much is simulated, and on what."""

    rounds: int
    planned: int = 0  # rounds of the whole run, where these are a piece of it: long runs compile gradients
    cohort: int  # sites drawn in each round; all of them where there are fewer
    workers: int = 1  # processes; 1 is this one
    executor: str = AUTO  # a name of vectorised.choice
    device: str = "cpu"
    backend: str = "local"  # or "ray": its actors, of one machine or many
    evaluate_every: int = 1  # rounds; the last model is always judged

    def __post_init__(self) -> None:
        for name in ("rounds", "cohort", "evaluate_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"simulation.{name} is {getattr(self, name)}", allowed="at least 1")

    def trainings(self, population: Population) -> int:
        """Of sites in the whole run."""
        return max(self.rounds, self.planned) * min(self.cohort, len(population))


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one round did."""

    number: int
    drawn: int  # sites that were asked
    sites: int  # whose update arrived
    weight: int  # windows of these sites, or their number where windows are private
    seconds: float  # wall, of training and aggregation
    metric: float | None  # of the model that came out; None where it was not judged
    # Where no update arrived, or fewer than the strategy needs, the model stays the one before.
    outcome: Outcome = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """A run, and how it was computed."""

    executor: str
    passed_over: Mapping[str, str]  # faster executors and why they could not do it
    workers: int
    rounds: tuple[Round, ...]
    state: ServerState  # to carry on from

    @property
    def params(self) -> Weights:
        """The final weights."""
        return self.state.params

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
    state: ServerState | None = None,
    first: int = 1,
    tell: Callable[[Round], None] = lambda done: None,
    gains: NDArray[np.float32] | None = None,
    present: Present = lambda number, drawn: drawn,
    controls: Controls | None = None,
) -> Simulated:
    """Run `scale.rounds` rounds from round `first`.

    Run in pieces, each from the state of the one before, rounds have the bits of one go.

    Args:
        job: what every site does.
        population: every site's data.
        strategy: how updates become the next model.
        scale: how much, and on what.
        judge: the metric of a model.
        initial: weights to start from; the job's own where there are none.
        state: to carry on from, instead.
        first: number of the first round, from 1: cohorts, batches, noise and the learning rate follow it.
        tell: called after each round.
        gains: what each site's update is multiplied by after clipping [site]; all by 1 where there are none.
        present: whose updates arrive.
        controls: where SCAFFOLD's sites keep their control variates from one piece to the next; else they are kept for
            these rounds only.

    Raises:
        ConfigError: no executor can do the job, training diverged, gains are not one for each site, or SCAFFOLD is
            to carry on without `controls`.
        DataError: a site has no windows.
    """
    _check(population, first, gains)
    layout, done = Layout.of(job.module()), []
    if state is None:
        if initial is None:
            initial = {name: value.detach().numpy() for name, value in job.module().state_dict().items()}
        state = strategy.init(initial)
    if strategy.control(state) is not None:
        _check_control(job)
    with (
        _kept(controls, strategy, state, layout, len(population), first) as held,
        workers.started(
            job, population, scale.workers, scale.executor, scale.device, scale.backend, scale.trainings(population)
        ) as crew,
    ):
        chunk = schedule.chunk_sites(scale.device, layout.size)
        for number in range(first, first + scale.rounds):
            started = time.perf_counter()
            drawn = randomness.cohort(job.seed, number, len(population), scale.cohort)
            sites = present(number, drawn)
            work = _Round(job, population, strategy, layout, number, chunk)
            state, weight, outcome = work.run(crew, state, sites, gains, held)
            seconds = time.perf_counter() - started
            due = number % scale.evaluate_every == 0 or number == first + scale.rounds - 1
            told = Round(
                number=number,
                drawn=len(drawn),
                sites=len(sites),
                weight=weight,
                seconds=seconds,
                metric=judge(state.params) if judge and due else None,
                outcome=outcome,
            )
            done.append(told)
            tell(told)
        return Simulated(
            executor=crew.chosen.executor.name,
            passed_over=dict(crew.chosen.passed_over),
            workers=scale.workers,
            rounds=tuple(done),
            state=state,
        )


@dataclass(frozen=True, slots=True)
class _Round:
    job: Job
    population: Population
    strategy: Strategy
    layout: Layout
    number: int
    chunk: int  # sites that train together

    def run(
        self, crew: Workers, state: ServerState, sites: Ints, gains: NDArray[np.float32] | None, held: Controls | None
    ) -> tuple[ServerState, int, Outcome]:
        """The state after the round, and the weight of what arrived."""
        if not len(sites):
            return state, 0, "nobody"
        aggregator = self.strategy.aggregator(state, self.layout.names)
        compared = isinstance(aggregator, Collected) or self.strategy.single
        cut = groups.cut(self.job, self.population, sites, self.number, compared=compared, size=self.chunk, gains=gains)
        control = self.strategy.control(state)
        order = Order(
            weights=state.params, control=None if control is None else self.layout.flat(control), controls=held
        )
        weight = added = 0
        for chunks, group in zip(cut, crew.train(order, cut), strict=True):
            for total in group.parts(site_weights(self.job, self.population, order, chunks[0])):
                if self.job.privacy.site_level:
                    groups.add_noise(self.job, total, self.number, added)
                added += 1
                update = Update(
                    site=f"group-{added}",
                    delta=self.layout.named(total.mean()),
                    weight=float(total.weight),
                    sites=total.sites,
                )
                aggregator.add(update)
                weight += total.weight
        try:
            found = dataclasses.replace(aggregator.result(), round=self.number)
            return self.strategy.apply(state, found), weight, "done"
        except PolicyError:
            return state, weight, "too-few"


@contextmanager
def _kept(
    controls: Controls | None, strategy: Strategy, state: ServerState, layout: Layout, sites: int, first: int
) -> Iterator[Controls | None]:
    """Where control variates are kept until the block ends; None where the strategy has none."""
    if strategy.control(state) is None:
        yield None
    elif controls is not None:
        yield controls
    elif first > 1:
        raise ConfigError(
            f"SCAFFOLD from round {first} without the control variates of the sites",
            allowed="the `controls` that the rounds before had",
        )
    else:
        with tempfile.TemporaryDirectory(prefix="fedsite-controls-") as folder:
            yield Controls.create(Path(folder) / "controls", sites, layout.size)


def _check_control(job: Job) -> None:
    local = job.local
    if job.epochs or local.optimizer != "sgd" or local.momentum:
        epochs = ", epochs" if job.epochs else ""
        raise ConfigError(
            f"SCAFFOLD with optimizer {local.optimizer}, momentum {local.momentum:g}{epochs}",
            allowed="plain SGD for the plan's steps, as many at every site: an update is their gradients' sum then",
            next_step="local.optimizer=sgd local.momentum=0, and no simulation.epochs",
        )


def _check(population: Population, first: int, gains: NDArray[np.float32] | None) -> None:
    if first < 1:
        raise ConfigError(f"first round {first}", allowed="at least 1")
    if gains is not None and (gains.shape != (len(population),) or gains.dtype != np.float32):
        raise ConfigError(
            f"gains of shape {gains.shape} and type {gains.dtype}", allowed=f"({len(population)},) and float32"
        )
