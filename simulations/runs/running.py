"""The rounds of one simulated run; one that was interrupted goes on from its last checkpoint, with the same bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsite.protocol import weights
from fedsite.server.strategies.strategy import Aggregate, ServerState, Strategy
from fedsite.simulations import engine
from fedsite.simulations.engine import Judge, Present, Round, Scale
from fedsite.simulations.runs.checkpoints import Keeper, Log
from fedsite.simulations.vectorised.controls import Controls
from fedsite.simulations.vectorised.job import Job, Layout, Weights
from fedsite.simulations.vectorised.population import Population


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is to be computed."""

    job: Job
    population: Callable[[int], Population]  # by round: windows may drift
    phases: tuple[int, ...] = (1,)  # the rounds at which they change
    sites: int
    strategy: Strategy
    scale: Scale
    initial: Weights
    judge: Judge
    gains: NDArray[np.float32] | None = None  # [site]
    present: Present = lambda number, drawn: drawn
    replay: Callable[[int], None] = lambda rounds: None  # tells `present` of rounds that were computed before


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What was computed, in one go or in several."""

    rounds: tuple[Round, ...]
    params: Weights
    executor: str
    passed_over: Mapping[str, str]

    @property
    def digest(self) -> str:
        """SHA-256 of the final weights, hex."""
        return weights.digest(dict(self.params))


class Watched:
    """A strategy whose last state is at hand between rounds."""

    def __init__(self, strategy: Strategy, state: ServerState) -> None:
        self._strategy = strategy
        self.state = state

    def __getattr__(self, name: str) -> Any:
        return getattr(self._strategy, name)

    def apply(self, state: ServerState, aggregate: Aggregate) -> ServerState:
        """As the strategy itself."""
        self.state = self._strategy.apply(state, aggregate)
        return self.state


def run(
    work: Work,
    keeper: Keeper | None = None,
    *,
    begin: Callable[[int, int], None] = lambda rounds, done: None,
    tell: Callable[[Round], None] = lambda done: None,
) -> Ran:
    """Compute all rounds, or those that are left.

    Args:
        work: what.
        keeper: keeps checkpoints; Ctrl-C leaves one of the last finished round.
        begin: called with the number of rounds, and of those that were done before.
        tell: called after each round.

    Raises:
        ConfigError: no executor can do the job, or training diverged.
        DataError: a site has no windows.
        StorageError: a checkpoint cannot be written.
    """
    state, log, controls = _begun(work, keeper)
    begin(work.scale.rounds, len(log.rounds))
    work.replay(len(log.rounds))
    watched = Watched(work.strategy, state)

    def told(done: Round) -> None:
        nonlocal state, log
        state, log = watched.state, dataclasses.replace(log, rounds=(*log.rounds, done))
        tell(done)
        if keeper:
            keeper.due(state, log)

    try:
        while len(log.rounds) < work.scale.rounds:
            first = len(log.rounds) + 1
            last = min([start - 1 for start in work.phases if start > first] + [work.scale.rounds])
            found = engine.simulate(
                work.job,
                work.population(first),
                watched,
                # Every piece is computed as the first was: what is quickest may have changed since.
                dataclasses.replace(
                    work.scale,
                    rounds=last - first + 1,
                    planned=work.scale.rounds,
                    executor=log.executor or work.scale.executor,
                ),
                judge=work.judge,
                state=state,
                first=first,
                tell=told,
                gains=work.gains,
                present=work.present,
                controls=controls,
            )
            log = dataclasses.replace(log, executor=found.executor, passed_over=dict(found.passed_over))
    except KeyboardInterrupt:
        # Control variates change within a round: of those only what was saved between two rounds can be gone on from.
        if keeper and controls is None and log.rounds:
            keeper.save(state, log)
        raise
    if keeper:
        keeper.save(state, log)
    return Ran(rounds=log.rounds, params=state.params, executor=log.executor, passed_over=log.passed_over)


def _begun(work: Work, keeper: Keeper | None) -> tuple[ServerState, Log, Controls | None]:
    """Where to begin, or to go on from."""
    fresh = work.strategy.init(work.initial)
    controlled = work.strategy.control(fresh) is not None
    found = keeper.find() if keeper else None
    if found and controlled and keeper and not keeper.has(len(found[1].rounds)):
        found = None
    state, log = found or (fresh, Log(rounds=()))
    if not (keeper and controlled):
        return state, log, None
    return state, log, keeper.restore(len(log.rounds), work.sites, Layout.of(work.job.module()).size)
