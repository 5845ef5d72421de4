"""What the federated model is compared with: one model on pooled data, and one model per site that stays alone.

Both take the same architecture, the same initial weights and the same number of steps as the federated run, with the
task's recommended settings without privacy. Only who owns everybody's data can make
these figures: a researcher, or the demo.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsite.client.work import rounds as work
from fedsite.models import metrics, vector
from fedsite.privacy.sampling import SystemRandom
from fedsite.protocol.messages import DELTA
from fedsite.protocol.plan import LocalPlan, PrivacyPlan, RoundPlan
from fedsite.telemetry import statistics
from fedsite.telemetry.dataset import SiteData, Windows
from fedsite.telemetry.statistics import Normalisation
from fedsite.telemetry.task import Task, read_task

Weights = Mapping[str, NDArray[np.generic]]
Sums = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteFigures:
    """One site's holdout, judged by three models; label units."""

    name: str
    windows: int  # training windows
    federated: float | None
    local_only: float | None
    central: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The metric of each kind of model on all holdouts together."""

    federated: float | None
    central: float | None
    initial: float | None
    local_only: float | None  # mean over sites of its own model on everybody's holdout
    local_only_best: float | None
    local_only_own: float | None  # mean over sites of its own model on its own holdout
    sites: tuple[SiteFigures, ...]


def measure(
    plan: RoundPlan,
    local: LocalPlan,
    sites: Mapping[str, SiteData],
    initial: Weights,
    federated: Weights,
    normalisation: Normalisation,
    *,
    tell: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Figures:
    """Train the baselines and judge every model on every holdout.

    Args:
        plan: the federated run; its privacy is laid aside here.
        local: local training without privacy, as the task recommends it.
        sites: each site's data, by name.
        initial, federated: weights the run started from and ended with.
        normalisation: the federated run's.
        tell: called with what is done, how many of how many models are trained.
    """
    task = read_task(plan.task)
    open_plan = dataclasses.replace(plan, privacy=PrivacyPlan(), local=local)
    names = list(sites)
    total = len(names) + 1
    tell("central", 0, total)
    pooled = pool([sites[name] for name in names])
    own = {name: own_normalisation(sites[name]) for name in names}
    central_normalisation = own_normalisation(pooled)
    central = fit(open_plan, pooled, initial, central_normalisation)
    alone: dict[str, Weights] = {}
    for index, name in enumerate(names):
        tell(name, index + 1, total)
        alone[name] = fit(open_plan, sites[name], initial, own[name])
    tell("done", total, total)

    def by_site(weights: Weights, scaling: Normalisation) -> dict[str, Sums]:
        return {name: _sums(open_plan, sites[name], weights, scaling) for name in names}

    by_federated = by_site(federated, normalisation)
    by_central = by_site(central, central_normalisation)
    by_alone = {name: by_site(alone[name], own[name]) for name in names}
    everywhere = [_value(task, list(by_alone[name].values())) for name in names]
    at_home = [_value(task, [by_alone[name][name]]) for name in names]
    return Figures(
        federated=_value(task, list(by_federated.values())),
        central=_value(task, list(by_central.values())),
        initial=judge(plan, sites, initial, normalisation),
        local_only=_mean(everywhere),
        local_only_best=_best(task, everywhere),
        local_only_own=_mean(at_home),
        sites=tuple(
            SiteFigures(
                name=name,
                windows=len(sites[name].train),
                federated=_value(task, [by_federated[name]]),
                local_only=at_home[index],
                central=_value(task, [by_central[name]]),
            )
            for index, name in enumerate(names)
        ),
    )


def judge(
    plan: RoundPlan, sites: Mapping[str, SiteData], weights: Weights, normalisation: Normalisation
) -> float | None:
    """The exact metric of one model on all holdouts together."""
    open_plan = dataclasses.replace(plan, privacy=PrivacyPlan())
    task = read_task(plan.task)
    return _value(task, [_sums(open_plan, data, weights, normalisation) for data in sites.values()])


def fit(plan: RoundPlan, data: SiteData, initial: Weights, normalisation: Normalisation) -> Weights:
    """Train one model on one data set: as many rounds of as many steps as a site of the run takes."""
    weights = dict(initial)
    source = SystemRandom()
    for number in range(1, plan.rounds.count + 1):
        values = work.train_round(plan, data, weights, normalisation, False, source, number, seed=plan.seed)
        change = {name.removeprefix(DELTA): array for name, array in values.items() if name.startswith(DELTA)}
        weights = vector.apply(weights, change)
    return weights


def pool(sites: Sequence[SiteData]) -> SiteData:
    """All sites' data as if it were one site's; entities of different sites stay apart."""
    return dataclasses.replace(
        sites[0],
        train=_concatenate([data.train for data in sites]),
        holdout=_concatenate([data.holdout for data in sites]),
    )


def own_normalisation(data: SiteData) -> Normalisation:
    """Normalisation from this data alone."""
    return statistics.window_sums(data.train.x, data.minimum, data.maximum).normalisation(data.minimum, data.maximum)


def _concatenate(parts: Sequence[Windows]) -> Windows:
    offsets = np.cumsum([0, *(len(part.entities) for part in parts[:-1])])
    return Windows(
        x=np.concatenate([part.x for part in parts]),
        y=np.concatenate([part.y for part in parts]),
        entity=np.concatenate([part.entity + offset for part, offset in zip(parts, offsets, strict=True)]),
        entities=tuple(f"{index}/{name}" for index, part in enumerate(parts) for name in part.entities),
        time=np.concatenate([part.time for part in parts]),
    )


def _sums(plan: RoundPlan, data: SiteData, weights: Weights, normalisation: Normalisation) -> Sums:
    found = work.evaluate(plan, data, weights, normalisation, SystemRandom())
    return {name.removeprefix("evaluation/"): np.asarray(array, np.float64) for name, array in found.items()}


def _value(task: Task, parts: Sequence[Sums]) -> float | None:
    total = {name: np.sum([part[name] for part in parts], axis=0) for name in parts[0]} if parts else {}
    return metrics.value(task.metric, total) if total else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _best(task: Task, values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return min(known) if task.metric.better == "lower" else max(known)
