"""What a simulated run is compared with: one model on pooled data, and models that single sites train alone.

Both are federations of one site, computed by the same executors: the same model and start, as many rounds of as many
steps, without privacy. A step of the central model sees as many windows as a step of a whole cohort does together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from fedsite.client.work.judging import scaled
from fedsite.protocol import documents, shape, storage
from fedsite.protocol.errors import FedsiteError
from fedsite.protocol.plan import LocalPlan, PrivacyPlan, RoundPlan, StrategyPlan
from fedsite.server.strategies.fedavg import FedAvg
from fedsite.simulations import engine
from fedsite.simulations.engine import Scale
from fedsite.simulations.runs import baselines
from fedsite.simulations.runs.judging import Judge
from fedsite.simulations.runs.settings import BaselineSettings
from fedsite.simulations.vectorised.job import Epochs, Job, Weights
from fedsite.simulations.vectorised.population import Population
from fedsite.telemetry.dataset import SiteData
from fedsite.telemetry.task import Task, read_task

SCHEMA: Final = "fedsite.baseline/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """One model: its metric on all holdouts, and where one site trained it, on that site's own."""

    schema: str = SCHEMA
    metric: float | None
    own: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """All that were trained."""

    central: float | None = None
    local_only: float | None = None  # mean over the sites that were chosen
    local_only_own: float | None = None
    alone: Mapping[str, Baseline] = dataclasses.field(default_factory=dict)  # by site


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """The run that is compared."""

    plan: RoundPlan
    sites: Mapping[str, SiteData]
    initial: Weights
    epochs: Epochs | None
    cohort: int
    data_hash: str
    executor: str
    device: str


def compare(
    run: Against,
    wanted: BaselineSettings,
    cache: Path | None,
    tell: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Compared:
    """Train the baselines, but for those that an earlier run left in `cache`.

    Args:
        run: what they are compared with.
        wanted: which.
        cache: folder; None keeps nothing.
        tell: called with what is trained, how many models are done, of how many.

    Raises:
        ConfigError: a baseline diverged.
    """
    names = _chosen(list(run.sites), wanted.local_only)
    total = len(names) + wanted.central
    found: dict[str, Baseline] = {}
    for done, name in enumerate(([""] if wanted.central else []) + names):
        tell(name or "central", done, total)
        found[name] = _cached(run, name, cache)
    alone = {name: found[name] for name in names}
    return Compared(
        central=found[""].metric if wanted.central else None,
        local_only=_mean([each.metric for each in alone.values()]),
        local_only_own=_mean([each.own for each in alone.values()]),
        alone=alone,
    )


def _chosen(names: list[str], count: int) -> list[str]:
    """So many sites, spread evenly over their order."""
    places = np.unique(np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int))
    return [names[place] for place in places]


def _cached(run: Against, site: str, cache: Path | None) -> Baseline:
    """A site's baseline, or with an empty name the central one."""
    plan, epochs = _alone(run) if site else _central(run)
    key = documents.digest(
        {
            "plan": shape.plain(dataclasses.replace(plan, cost=type(plan.cost)())),
            "epochs": None if epochs is None else shape.plain(epochs),
            "data": run.data_hash,
            "site": site,
            "executor": run.executor,
        }
    )
    path = None if cache is None else cache / f"{key[:32]}.json"
    if path is not None and path.exists():
        try:
            return shape.read(Baseline, documents.document(storage.read(path), SCHEMA))
        except FedsiteError:
            pass  # damaged: made again
    found = _trained(run, plan, epochs, site)
    if path is not None:
        with storage.storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        storage.write_atomic(path, documents.canonical(shape.plain(found)), mode=0o644)
    return found


def _trained(run: Against, plan: RoundPlan, epochs: Epochs | None, site: str) -> Baseline:
    data = run.sites[site] if site else baselines.pool(list(run.sites.values()))
    task, scaling = read_task(plan.task), baselines.own_normalisation(data)
    judge = Judge(plan, run.sites, scaling)
    rounds = plan.rounds.count
    found = engine.simulate(
        Job.of(plan, epochs=epochs),
        Population.of([scaled(data.train, task, scaling)]),
        FedAvg(),
        Scale(rounds=rounds, cohort=1, executor=run.executor, device=run.device, evaluate_every=rounds),
        judge=judge,
        initial=run.initial,
    )
    own = Judge(plan, {site: data}, scaling)(found.params) if site else None
    return Baseline(metric=found.rounds[-1].metric, own=own)


def _alone(run: Against) -> tuple[RoundPlan, Epochs | None]:
    return _open(run.plan), run.epochs


def _central(run: Against) -> tuple[RoundPlan, Epochs | None]:
    """Poisson steps over the pool, each of as many windows as a cohort's step; as many steps as a site takes."""
    plan = _open(run.plan)
    windows = [len(data.train) for data in run.sites.values()]
    if run.epochs is None:
        rate = plan.local.sampling_rate * run.cohort / len(windows)
        return _local(plan, sampling_rate=max(min(rate, 1.0), 1e-9)), None
    steps = run.epochs.count * round(float(np.mean([-(-many // run.epochs.batch) for many in windows])))
    rate = min(1.0, run.epochs.batch * run.cohort / sum(windows))
    return _local(plan, steps=max(1, steps), sampling_rate=rate), None


def _open(plan: RoundPlan) -> RoundPlan:
    """Without privacy, as the task recommends it then; staying near the round's start (FedProx) is for federations."""
    task = read_task(plan.task)
    local = _recommended(plan, task)
    # A baseline has no federation: runs that differ in their strategy have the same one.
    plan = dataclasses.replace(plan, privacy=PrivacyPlan(), local=local, strategy=StrategyPlan())
    return _local(plan, proximal=0.0)


def _recommended(plan: RoundPlan, task: Task) -> LocalPlan:
    if plan.privacy.mode == "none":
        return plan.local
    given: Mapping[str, Any] = task.training.local
    return dataclasses.replace(LocalPlan(steps=plan.local.steps, sampling_rate=plan.local.sampling_rate), **given)


def _local(plan: RoundPlan, **changed: Any) -> RoundPlan:
    return dataclasses.replace(plan, local=dataclasses.replace(plan.local, **changed))


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
