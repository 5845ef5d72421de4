"""All that a simulated run has found, put together as its document and its table of sites."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsite.protocol import instants
from fedsite.protocol.plan import SITE
from fedsite.server.plans.planning import Planned
from fedsite.simulations.demo import story as demo
from fedsite.simulations.populations.heterogeneity import measure
from fedsite.simulations.populations.sites import Sites
from fedsite.simulations.runs import planned, results
from fedsite.simulations.runs.comparison import Compared
from fedsite.simulations.runs.journey import Journey
from fedsite.simulations.runs.material import Material
from fedsite.simulations.runs.results import Simulation, Spread
from fedsite.simulations.runs.running import Ran
from fedsite.simulations.runs.settings import SimulateSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The parts."""

    settings: SimulateSettings
    overrides: tuple[str, ...]
    plan: Planned
    given: Material
    ran: Ran
    journey: Journey
    compared: Compared
    each: list[float | None]  # the final model at each site
    attack: dict[str, Any] | None
    audit: dict[str, Any] | None
    data_hash: str


def simulation(found: Found) -> Simulation:
    """The document."""
    plan, asked, ran = found.plan.plan, found.settings.simulation, found.ran
    spent = {each.unit: each for each in found.journey.spent()}
    own, sums = spent.get(plan.privacy.unit), spent.get(SITE)
    return Simulation(
        task=found.plan.task.name,
        title=found.plan.task.title or found.plan.task.name,
        created=instants.text(instants.now()),
        outcome="completed",
        engine=asked.engine,
        executor=ran.executor,
        passed_over=dict(ran.passed_over),
        device=asked.device,
        workers=asked.workers,
        sites=len(found.given.population),
        cohort=planned.cohort(found.plan, len(found.given.population)),
        windows=len(found.given.population.x),
        strategy=plan.strategy.name,
        protection=plan.protection.mode,
        model=plan.model.name,
        parameters=plan.model.parameters,
        privacy=_privacy(found),
        rounds=len(ran.rounds),
        seconds_per_round=float(np.median([done.seconds for done in ran.rounds])),
        seconds=sum(done.seconds for done in ran.rounds),
        metric=_metric(found),
        epsilon_max=own.largest if own else None,
        epsilon_claimed=plan.cost.epsilon,
        site_epsilon=sums.largest if sums else None,
        site_epsilon_claimed=plan.cost.site_epsilon,
        bytes_up_per_site_round=round(found.journey.bytes_up),
        bytes_down_per_site_round=round(found.journey.bytes_down),
        predicted_minutes=found.journey.minutes,
        fleet=found.journey.outlook,
        heterogeneity=measure(found.given.sites) if isinstance(found.given.sites, Sites) else None,
        seeds=(found.settings.seed,),
        digest=ran.digest,
        plan_hash=plan.hash,
        recipe=plan.recipe,
        data_hash=found.data_hash,
        curve=_curve(found),
        attack=found.attack,
        audit=found.audit,
        command=shlex.join(["fedsite", "simulate", *found.overrides, *_speed(found)]),
        overrides=found.overrides,
        versions=demo.versions(),
    )


def sites(found: Found) -> list[dict[str, Any]]:
    """One row a site."""
    asked = found.journey.participations
    alone: Mapping[str, Any] = found.compared.alone
    counts = found.given.population.counts
    return [
        {
            "site": name,
            "windows": int(counts[place]),
            "rounds": int(asked[place]),
            "metric": found.each[place],
            "local_only": alone[name].own if name in alone else None,
        }
        for place, name in enumerate(found.given.sites)
    ]


def _privacy(found: Found) -> results.Privacy:
    privacy = found.plan.plan.privacy
    own, sums = privacy.sample_level, privacy.site_level
    return results.Privacy(
        mode=privacy.mode,
        unit=privacy.unit if own else None,
        delta=privacy.delta if own else None,
        noise_multiplier=privacy.noise_multiplier if own else None,
        site_delta=privacy.site.delta if sums else None,
        site_noise_multiplier=privacy.site.noise_multiplier if sums else None,
    )


def _metric(found: Found) -> results.Metric:
    metric = found.plan.task.metric
    return results.Metric(
        name=metric.name,
        better=metric.better,
        unit=metric.unit,
        global_=found.ran.rounds[-1].metric,
        central=found.compared.central,
        local_only=found.compared.local_only,
        local_only_own=found.compared.local_only_own,
        initial=found.given.judge(found.plan.initial),
        sites=Spread.of(found.each, metric.better),
    )


def _curve(found: Found) -> tuple[results.Round, ...]:
    return tuple(
        results.Round(
            number=done.number,
            drawn=len(timing.asked),
            sites=done.sites,
            weight=done.weight,
            seconds=done.seconds,
            metric=done.metric,
            outcome=done.outcome,
            predicted_s=timing.seconds,
            bytes_up=round(float(timing.bytes_up.sum())),
            bytes_down=round(float(timing.bytes_down.sum())),
        )
        for done, timing in zip(found.ran.rounds, found.journey.timings, strict=True)
    )


def _speed(found: Found) -> list[str]:
    """Where sites came late, who did follows from how fast this machine is: the speed then belongs to the command."""
    late = any(len(timing.present) < len(timing.asked) for timing in found.journey.timings)
    if not late or found.settings.simulation.fleet.speed.windows_s is not None:
        return []
    return [f"simulation.fleet.speed.windows_s={found.journey.outlook.windows_s:g}"]
