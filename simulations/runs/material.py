"""A plan and the sites' data made into what the engines take: statistics, scaling and metric as in production."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedsite.client.work import rounds as work
from fedsite.client.work.judging import scaled
from fedsite.privacy.sampling import SeededSource
from fedsite.protocol.plan import RoundPlan
from fedsite.server.rounds import evaluation
from fedsite.server.rounds.evaluation import STATISTICS, Total
from fedsite.server.strategies import registry
from fedsite.server.strategies.strategy import Strategy
from fedsite.simulations.populations.sites import Sites
from fedsite.simulations.runs.judging import Judge
from fedsite.simulations.vectorised.job import Epochs, Job
from fedsite.simulations.vectorised.population import Population
from fedsite.telemetry.dataset import SiteData, Windows
from fedsite.telemetry.statistics import Normalisation, unit_bound
from fedsite.telemetry.task import Task, read_task

_STATISTICS = 0x57A7  # keeps the noise of statistics apart from other seeded streams of a run


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What a simulation of one plan needs."""

    plan: RoundPlan
    sites: Mapping[str, SiteData]
    job: Job
    population: Population
    strategy: Strategy
    normalisation: Normalisation
    judge: Judge  # the exact metric of a model on all holdouts: the researcher's own, without noise

    def scaled(self, windows: Windows) -> Windows:
        """Windows as the model takes them."""
        return scaled(windows, read_task(self.plan.task), self.normalisation)


def material(plan: RoundPlan, sites: Mapping[str, SiteData], *, epochs: Epochs | None = None) -> Material:
    """Normalise the sites' windows as the plan says and lay them side by side.

    Raises:
        ConfigError: the plan cannot be simulated by the vectorised engine.
        DataError: there are no sites.
    """
    task = read_task(plan.task)
    job = Job.of(plan, epochs=epochs)
    found = _normalisation(plan, task, sites)
    if isinstance(sites, Sites):
        population = sites.population(lambda windows: scaled(windows, task, found))
    else:
        population = Population.of([scaled(data.train, task, found) for data in sites.values()])
    return Material(
        plan=plan,
        sites=sites,
        job=job,
        population=population,
        strategy=registry.build(plan.strategy.name, plan.strategy.options, local=plan.local, sites=len(sites)),
        normalisation=found,
        judge=Judge(plan, sites, found),
    )


def _normalisation(plan: RoundPlan, task: Task, sites: Mapping[str, SiteData]) -> Normalisation:
    if not evaluation.reads_statistics(plan):
        return evaluation.normalisation(task, None)
    total = Total(STATISTICS)
    # Without noise the sum over everybody's windows is the sum over the sites, however many they are.
    parts = [sites.joined()] if isinstance(sites, Sites) and plan.privacy.mode == "none" else sites.values()
    for place, data in enumerate(parts):
        total.add(work.statistics(plan, data, SeededSource((plan.seed, _STATISTICS, place)), simulated=True))
    noise = plan.privacy.statistics_noise * evaluation.spread(plan, total.count)
    if plan.privacy.site_level:  # it comes with the sum, not with what a site computes
        source = SeededSource((plan.seed, _STATISTICS, len(sites)))
        deviation = noise * unit_bound(len(task.feature_names))
        drawn = {name: deviation * source.normal(value.size) for name, value in total.sums.items()}
        total.add({STATISTICS + name: value for name, value in drawn.items()}, sites=0)
    return evaluation.normalisation(task, total, noise)
