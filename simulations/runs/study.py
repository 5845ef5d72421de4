"""One simulated run from its settings to its result: planned as `launch` plans, computed, measured and compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from fedsite.protocol import documents, shape
from fedsite.protocol.errors import ConfigError
from fedsite.server.plans.planning import Planned
from fedsite.server.strategies.strategy import Strategy
from fedsite.simulations.engine import Round, Scale
from fedsite.simulations.populations.sites import Sites
from fedsite.simulations.runs import comparison, gathering, planned, running
from fedsite.simulations.runs.checkpoints import Keeper
from fedsite.simulations.runs.comparison import Against
from fedsite.simulations.runs.hostile import Hostile, audited
from fedsite.simulations.runs.journey import Journey
from fedsite.simulations.runs.material import Material, material
from fedsite.simulations.runs.results import Simulation
from fedsite.simulations.runs.running import Ran, Work
from fedsite.simulations.runs.settings import SimulateSettings
from fedsite.simulations.sweeps import summary
from fedsite.simulations.vectorised.job import Epochs

FREE: Final = (
    "workers",
    "backend",
    "checkpoint_s",
    "baselines",
)  # of settings: no bit of a run depends on them


class Watch(Protocol):
    """Who looks on."""

    def stage(self, text: str) -> None:
        """What is being done."""

    def begin(self, rounds: int, done: int) -> None:
        """Rounds begin, of which so many were done before."""

    def round(self, done: Round) -> None:
        """A round has ended."""


class Nobody:
    """Looks on without a word."""

    def stage(self, text: str) -> None:
        """Nothing."""

    def begin(self, rounds: int, done: int) -> None:
        """Nothing."""

    def round(self, done: Round) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Studied:
    """A result, and what is too large for its document."""

    simulation: Simulation
    sites: list[dict[str, Any]]  # one row a site
    params: Any  # final weights


def key(settings: SimulateSettings) -> str:
    """SHA-256, hex, of all settings that a run's bits depend on."""
    value = shape.plain(settings)
    for name in FREE:
        del value["simulation"][name]
    return documents.digest(value)


def study(
    settings: SimulateSettings,
    overrides: Sequence[str],
    *,
    checkpoints: Path | None = None,
    baselines: Path | None = None,
    watch: Watch | None = None,
    strategy: Strategy | None = None,
) -> Studied:
    """Run one simulation.

    Args:
        settings: as composed.
        overrides: as typed, for the reproduce command.
        checkpoints: folder to keep them in, and to go on from; None: neither.
        baselines: folder of baselines that were trained before.
        watch: looks on.
        strategy: instead of the one that the settings name.

    Raises:
        ConfigError, BudgetError: a plan that cannot be, or cannot be simulated; training diverged.
        TelemetryError: data is missing or unreadable.
    """
    watch, asked = watch or Nobody(), settings.simulation
    watch.stage("planning")
    task = planned.task_of(settings)
    plan = planned.plan(settings, gathering.count(settings, task))
    unit = plan.plan.privacy.unit if plan.plan.privacy.sample_level else "window"
    sites = gathering.gather(
        settings, task, lambda done, of: watch.stage(f"reading data: site {done} of {of}"), unit=unit
    )
    data_hash = gathering.fingerprint(sites)
    epochs = Epochs(batch=asked.batch, count=asked.epochs) if asked.batch and asked.epochs else None
    given = material(plan.plan, sites, epochs=epochs)
    if strategy is not None:
        given = dataclasses.replace(given, strategy=strategy)
    hostile = Hostile.of(asked.attack, given)
    keeper = None
    if checkpoints is not None:
        made_of = documents.digest([key(settings), plan.plan.hash, data_hash])
        keeper = Keeper(folder=checkpoints, key=made_of, every_s=asked.checkpoint_s)
    watch.stage("trying this machine")
    journey = Journey.begin(settings, plan, given, epochs, checkpoints)
    work = _work(settings, plan, given, hostile, journey)
    _compile(settings, given, work.scale.trainings(given.population), watch)
    watch.stage("training")
    if asked.engine == "flower":
        ran = _through_flower(settings, given, work, watch)
    else:
        ran = running.run(work, keeper, begin=watch.begin, tell=watch.round)
    watch.stage("measuring")
    against = Against(
        plan=plan.plan, sites=sites, initial=plan.initial, epochs=epochs, cohort=planned.cohort(plan, len(sites)),
        data_hash=data_hash, executor=asked.executor, device=asked.device,
    )  # fmt: skip

    def baseline(what: str, done: int, total: int) -> None:
        watch.stage(f"baselines: {what} ({done + 1} of {total})")

    compared = comparison.compare(against, asked.baselines, baselines, baseline)
    if asked.audit.runs:
        watch.stage(f"audit: {asked.audit.runs} trainings with canaries")
    found = summary.Found(
        settings=settings, overrides=tuple(overrides), plan=plan, given=given, ran=ran, journey=journey,
        compared=compared, each=given.judge.each(ran.params), attack=hostile.measured(plan.initial, ran.params),
        audit=audited(asked.audit, plan.plan, asked.executor), data_hash=data_hash,
    )  # fmt: skip
    return Studied(simulation=summary.simulation(found), sites=summary.sites(found), params=ran.params)


def _work(settings: SimulateSettings, plan: Planned, given: Material, hostile: Hostile, journey: Journey) -> Work:
    asked, rounds, sites = settings.simulation, plan.plan.rounds.count, given.sites
    return Work(
        job=given.job,
        population=hostile.population,
        phases=tuple(first for first, _ in sites.phases(rounds)) if isinstance(sites, Sites) else (1,),
        sites=len(sites),
        strategy=given.strategy,
        scale=Scale(
            rounds=rounds,
            cohort=journey.drawn,
            workers=asked.workers,
            executor=asked.executor,
            device=asked.device,
            backend=asked.backend,
            evaluate_every=asked.evaluate_every or plan.plan.rounds.evaluate_every,
        ),
        initial=plan.initial,
        judge=given.judge,
        gains=hostile.gains,
        present=journey.present,
        replay=journey.replay,
    )


def _through_flower(settings: SimulateSettings, given: Material, work: Work, watch: Watch) -> Ran:
    """The real clients, in one go: there is nothing to go on from.

    Raises:
        ConfigError: settings that only the vectorised engine has, or Ray is not installed.
    """
    from fedsite.simulations.flower import engine as flower_engine

    asked = settings.simulation
    for name, given_there in (("attack", asked.attack.kind != "none"), ("drift", asked.drift.any)):
        if given_there:
            raise ConfigError(
                f"simulation.{name} with simulation.engine=flower",
                allowed="simulation.engine=vectorised: real clients neither attack nor drift",
                next_step="simulation.engine=vectorised",
            )
    watch.begin(work.scale.rounds, 0)
    found = flower_engine.simulate(given, work.scale, judge=work.judge, initial=work.initial, tell=watch.round)
    work.replay(len(found.rounds))
    return Ran(rounds=found.rounds, params=found.params, executor=found.executor, passed_over=dict(found.passed_over))


def _compile(settings: SimulateSettings, given: Material, trainings: int, watch: Watch) -> None:
    """Compile kernels before the first round where it would begin with that, and show how far it is."""
    from fedsite.simulations.vectorised import compiled, traced

    asked = settings.simulation
    job, wanted = given.job, asked.executor in ("auto", "compiled")
    if asked.engine != "vectorised" or not wanted or compiled.cached() or compiled.obstacle(job, asked.device):
        return
    if asked.executor == "auto" and compiled.too_short(job, given.population, trainings):
        return
    if isinstance(traced.program(job), str):
        return
    text = "compiling kernels for this processor, once"
    watch.stage(text)
    compiled.warm(lambda done, of, name: watch.stage(f"{text}: {done} of {of}"))
