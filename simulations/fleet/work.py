"""What a plan asks of a site in one round: the exchanges it takes, their bytes, and windows to train on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from fedsite.client.work.train_private import ENTITY_WINDOWS
from fedsite.models import vector
from fedsite.protocol import sealing, weights
from fedsite.protocol.messages import DELTA
from fedsite.protocol.plan import RoundPlan
from fedsite.server.plans import forecast, stage_bytes
from fedsite.server.rounds import evaluation
from fedsite.simulations.runs.draws import Ints, Reals
from fedsite.simulations.vectorised.job import Epochs, Job
from fedsite.simulations.vectorised.population import Population
from fedsite.telemetry.task import read_task

TRAINS: Final = frozenset({"train", "mask"})  # exchanges in which a site trains


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One exchange of a round: bytes of its messages beside their headers."""

    name: str  # train; or advertise, share, mask, confirm, unmask
    bytes_up: int
    bytes_down: int
    deadline_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Shapes: `windows` [site], trained in a round, expected."""

    plan: RoundPlan
    stages: tuple[Stage, ...]  # of a round; keys for its sum came with the round before
    sums: int  # beside the rounds: statistics, calibration, the last model's evaluation
    windows: Reals

    @property
    def secure(self) -> bool:
        """Whether updates are summed securely."""
        return self.plan.protection.mode == "secagg"


def work(plan: RoundPlan, population: Population, *, cohort: int, epochs: Epochs | None = None) -> Work:
    """What a plan makes every site of a population do.

    Args:
        plan: whose cost may still be missing.
        population: the sites.
        cohort: sites asked in a round.
        epochs: where a published experiment's batches replace the plan's.
    """
    return Work(plan=plan, stages=stages(plan, cohort), sums=sums(plan), windows=trained(plan, population, epochs))


def stages(plan: RoundPlan, cohort: int) -> tuple[Stage, ...]:
    """The exchanges of one round with so many sites."""
    task = read_task(plan.task)
    module = Job.of(plan).module()
    initial, names = vector.state(module), tuple(name for name, p in module.named_parameters() if p.requires_grad)
    bounds = plan.protection
    if bounds.mode == "secagg":
        least = bounds.terms.min_cohort
        sites = min(max(cohort // bounds.groups, least), bounds.sites)
        found = stage_bytes.of_round(plan, task, initial, names, sites=sites, header=0)
        return tuple(
            Stage(
                name=one.stage,
                bytes_up=one.bytes_up,
                bytes_down=one.bytes_down,
                deadline_s=plan.rounds.deadline_s if one.stage in TRAINS else bounds.stage_s,
            )
            for one in found
            if one.stage != "advertise"
        )
    up = len(weights.encode({DELTA + name: initial[name] for name in names}))
    if bounds.mode == "sealed":
        up += sealing.WRAPPED + sealing.TAG * (1 + up // sealing.CHUNK)
    down = len(weights.encode(initial)) + stage_bytes.control(plan, initial, names)
    return (Stage(name="train", bytes_up=up, bytes_down=down, deadline_s=plan.rounds.deadline_s),)


def sums(plan: RoundPlan) -> int:
    """Exchanges over data beside the rounds'."""
    release = plan.release.enabled
    return (
        int(evaluation.reads_statistics(plan)) + int(release and evaluation.calibrates(plan))
        + int(evaluation.evaluates(plan))
    )  # fmt: skip


def trained(plan: RoundPlan, population: Population, epochs: Epochs | None = None) -> Reals:
    """Windows that enter a site's steps in one round, expected, [site]."""
    counts = population.counts
    if epochs is not None:
        return counts.astype(np.float64) * epochs.count
    if plan.privacy.sample_level and plan.privacy.unit == "entity":
        counts = _capped(population)
    return counts.astype(np.float64) * (plan.local.sampling_rate * plan.local.steps)


def needed(plan: RoundPlan, sites: int, stage: str, minimum: int) -> int:
    """Answers without which a secure sum over so many sites cannot go on after a stage.

    Args:
        minimum: what the round needs of this sum for reasons of its own.
    """
    terms = plan.protection.terms
    size = terms.size(sites)
    if stage == "confirm":
        return terms.quorum(sites)
    if stage == "unmask":
        return sites - forecast.tolerated(plan, sites)
    return max(terms.min_survivors, minimum, 0 if size.confirm else size.threshold)


def _capped(population: Population) -> Ints:
    """Windows of each site that one step can take when entities join: so many of each at most."""
    site = np.repeat(np.arange(len(population)), population.counts)
    span = int(population.entity.max(initial=0)) + 1
    units, sizes = np.unique(site * span + population.entity, return_counts=True)
    found = np.bincount(units // span, weights=np.minimum(sizes, ENTITY_WINDOWS), minlength=len(population))
    return found.astype(np.int64)
