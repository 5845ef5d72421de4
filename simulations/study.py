"""One simulated run from its settings to its result: planned as `launch` plans, computed, measured and compared."""

from __future__ import annotations

import dataclasses
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from fedsite.protocol import documents, instants, shape
from fedsite.server.plans.planning import Planned
from fedsite.server.strategies.strategy import Strategy
from fedsite.simulations import comparison, demo, gathering, planned, results, running
from fedsite.simulations.checkpoints import Keeper
from fedsite.simulations.comparison import Against, Compared
from fedsite.simulations.engine import Round, Scale
from fedsite.simulations.material import Material, material
from fedsite.simulations.populations.sites import Sites
from fedsite.simulations.results import Simulation, Spread
from fedsite.simulations.running import Ran, Work
from fedsite.simulations.settings import SimulateSettings
from fedsite.simulations.vectorised.job import Epochs

FREE: Final = (
    "workers",
    "backend",
    "checkpoint_s",
    "jobs",
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
    watch = watch or Nobody()
    asked = settings.simulation
    task = planned.task_of(settings)
    watch.stage("planning")
    plan = planned.plan(settings, gathering.count(settings, task))
    watch.stage("reading data")
    sites = gathering.gather(settings, task, lambda done, of: watch.stage(f"reading data: site {done} of {of}"))
    data_hash = gathering.fingerprint(sites)
    epochs = Epochs(batch=asked.batch, count=asked.epochs) if asked.batch and asked.epochs else None
    given = material(plan.plan, sites, epochs=epochs)
    if strategy is not None:
        given = dataclasses.replace(given, strategy=strategy)
    work = _work(settings, plan, given, sites)
    keeper = None
    if checkpoints is not None:
        made_of = documents.digest([key(settings), plan.plan.hash, data_hash])
        keeper = Keeper(folder=checkpoints, key=made_of, every_s=asked.checkpoint_s)
    watch.stage("training")
    ran = running.run(work, keeper, begin=watch.begin, tell=watch.round)
    watch.stage("measuring")
    against = Against(
        plan=plan.plan, sites=sites, initial=plan.initial, epochs=epochs, cohort=work.scale.cohort,
        data_hash=data_hash, executor=asked.executor, device=asked.device,
    )  # fmt: skip

    def baseline(what: str, done: int, total: int) -> None:
        watch.stage(f"baselines: {what} ({done + 1} of {total})")

    compared = comparison.compare(against, asked.baselines, baselines, baseline)
    each = given.judge.each(ran.params)
    found = _document(settings, overrides, plan, given, work, ran, compared, each, data_hash)
    return Studied(simulation=found, sites=_rows(sites, each, compared), params=ran.params)


def _work(settings: SimulateSettings, plan: Planned, given: Material, sites: Sites) -> Work:
    asked, rounds = settings.simulation, plan.plan.rounds.count
    return Work(
        job=given.job,
        population=lambda number: (
            given.population if sites.phase_of(number) == 0 else sites.at(number).population(given.scaled)
        ),
        phases=tuple(first for first, _ in sites.phases(rounds)),
        sites=len(sites),
        strategy=given.strategy,
        scale=Scale(
            rounds=rounds,
            cohort=planned.cohort(plan, len(sites)),
            workers=asked.workers,
            executor=asked.executor,
            device=asked.device,
            backend=asked.backend,
            evaluate_every=asked.evaluate_every or plan.plan.rounds.evaluate_every,
        ),
        initial=plan.initial,
        judge=given.judge,
    )


def _document(
    settings: SimulateSettings,
    overrides: Sequence[str],
    plan: Planned,
    given: Material,
    work: Work,
    ran: Ran,
    compared: Compared,
    each: Sequence[float | None],
    data_hash: str,
) -> Simulation:
    cost, privacy, metric = plan.plan.cost, plan.plan.privacy, plan.task.metric
    return Simulation(
        task=plan.task.name,
        title=plan.task.title or plan.task.name,
        created=instants.text(datetime.fromtimestamp(time.time(), UTC)),
        outcome="completed",
        engine=settings.simulation.engine,
        executor=ran.executor,
        passed_over=dict(ran.passed_over),
        device=settings.simulation.device,
        workers=settings.simulation.workers,
        sites=work.sites,
        cohort=work.scale.cohort,
        windows=len(given.population.x),
        strategy=plan.plan.strategy.name,
        protection=plan.plan.protection.mode,
        model=plan.plan.model.name,
        parameters=plan.plan.model.parameters,
        privacy=results.Privacy(
            mode=privacy.mode,
            unit=privacy.unit if privacy.sample_level else None,
            delta=privacy.delta if privacy.sample_level else None,
            noise_multiplier=privacy.noise_multiplier if privacy.sample_level else None,
            site_delta=privacy.site.delta if privacy.site_level else None,
            site_noise_multiplier=privacy.site.noise_multiplier if privacy.site_level else None,
        ),
        rounds=len(ran.rounds),
        seconds_per_round=float(np.median([done.seconds for done in ran.rounds])),
        seconds=sum(done.seconds for done in ran.rounds),
        metric=results.Metric(
            name=metric.name,
            better=metric.better,
            unit=metric.unit,
            global_=ran.rounds[-1].metric,
            central=compared.central,
            local_only=compared.local_only,
            local_only_own=compared.local_only_own,
            initial=given.judge(plan.initial),
            sites=Spread.of(each, metric.better),
        ),
        epsilon_max=cost.epsilon,
        site_epsilon=cost.site_epsilon,
        bytes_up_per_site_round=cost.bytes_up,
        bytes_down_per_site_round=cost.bytes_down,
        predicted_minutes=None,
        seeds=(settings.seed,),
        digest=ran.digest,
        plan_hash=plan.plan.hash,
        recipe=plan.plan.recipe,
        data_hash=data_hash,
        curve=tuple(
            results.Round(
                number=done.number, drawn=done.drawn, sites=done.sites, weight=done.weight, seconds=done.seconds,
                metric=done.metric, outcome=done.outcome,
                bytes_up=done.sites * cost.bytes_up, bytes_down=done.drawn * cost.bytes_down,
            )
            for done in ran.rounds
        ),
        command=shlex.join(["fedsite", "simulate", *overrides]),
        overrides=tuple(overrides),
        versions=demo.versions(),
    )  # fmt: skip


def _rows(sites: Sites, each: Sequence[float | None], compared: Compared) -> list[dict[str, Any]]:
    return [
        {
            "site": name,
            "windows": int(windows),
            "metric": value,
            "local_only": compared.alone[name].own if name in compared.alone else None,
        }
        for name, windows, value in zip(sites, sites.train.counts, each, strict=True)
    ]
