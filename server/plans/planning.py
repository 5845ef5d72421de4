"""From settings to a plan that sites can agree to: recommendations laid under, noise solved, cost foreseen."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fedsite.models import spends
from fedsite.protocol import ids, instants, shape, weights
from fedsite.protocol.errors import ConfigError
from fedsite.protocol.plan import (
    CONTROLLED,
    SCHEMA,
    LocalPlan,
    ModelPlan,
    ProtectionPlan,
    ReleasePlan,
    RoundPlan,
    RoundsPlan,
    StrategyPlan,
)
from fedsite.protocol.secagg.manifest import Terms
from fedsite.server.plans import feasible, forecast, pricing
from fedsite.server.plans.pricing import given
from fedsite.server.settings import LaunchSettings, absolute
from fedsite.server.strategies import registry
from fedsite.telemetry.errors import TelemetryError
from fedsite.telemetry.task import Task, load_task


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan, and what the driver needs beside it."""

    plan: RoundPlan
    task: Task
    initial: weights.Arrays
    trained: tuple[str, ...]
    enrolled: int | None  # sites, where that is known
    group: int | None  # windows that share one reading, when the unit is a window of a private run
    group_epsilon: float | None  # what such a group is promised

    def forecast(self) -> dict[str, Any]:
        """What the run will cost each site (`fedsite.forecast/1`), before anybody is asked."""
        return forecast.make(
            self.plan, self.task, self.initial, self.trained,
            enrolled=self.enrolled, group=self.group, group_epsilon=self.group_epsilon,
        )  # fmt: skip


def make(
    settings: LaunchSettings,
    federation: str,
    clock: Callable[[], float] = time.time,
    *,
    sites: int | None = None,
) -> Planned:
    """Plan a run.

    Args:
        settings: as composed.
        federation: id of the federation, hex.
        clock: seconds since 1970.
        sites: how many there are, where the caller knows it.

    Raises:
        ConfigError: unknown task, model, option or strategy, a value out of range, or what cannot go together.
        BudgetError: no noise meets the target ε.
        IntegrityError: `model.init` is not this model's.
    """
    try:
        return _make(settings, federation, clock, sites)
    except ConfigError as error:
        error.next_step = error.next_step or "fedsite launch --help"
        raise


def _make(settings: LaunchSettings, federation: str, clock: Callable[[], float], sites: int | None) -> Planned:
    task = read_task(settings)
    feasible.modes(settings.privacy, settings.protection)
    recommended = recommendation(task, private=settings.privacy.sample_level)
    asked = {**given(settings.strategy.local), **given(settings.local)}
    local = shape.read(LocalPlan, {**recommended["local"], **asked}, "local")
    strategy = registry.build(settings.strategy.name, settings.strategy.options, local=local, sites=sites or 0)
    protection = _protection(settings, sites)
    if settings.release.parity is not None and settings.release.parity < 0:
        raise ConfigError(f"release.parity is {settings.release.parity}", allowed="0 or more")
    release = ReleasePlan(
        enabled=settings.release.enabled,
        parity=task.release.parity if settings.release.parity is None else settings.release.parity,
    )
    rounds = _rounds(settings, int(recommended["rounds"]), feasible.least_sites(protection, strategy))
    model, initial, trained = _model(settings, task)
    control = strategy.control(strategy.init(initial)) is not None
    draft = RoundPlan(
        schema=CONTROLLED if control else SCHEMA,
        federation=federation,
        run_id=ids.ulid(clock),
        created=instants.text(datetime.fromtimestamp(clock(), UTC)),
        task=task.document,
        model=model,
        local=local,
        privacy=pricing.unsolved(settings.privacy, recommended),
        protection=protection,
        strategy=StrategyPlan(name=settings.strategy.name, options=settings.strategy.options, control=control),
        rounds=rounds,
        release=release,
        seed=settings.seed,
    )
    feasible.check(draft, task, sites)
    privacy = pricing.solved(settings.privacy, draft, recommended, given(settings.local))
    draft = dataclasses.replace(draft, privacy=privacy)
    cost = pricing.cost(draft, task, initial, trained)
    plan = RoundPlan.parse(dataclasses.replace(draft, cost=cost).encode())
    group, group_epsilon = _group(task, plan)
    return Planned(
        plan=plan, task=task, initial=initial, trained=trained, enrolled=sites, group=group,
        group_epsilon=group_epsilon,
    )  # fmt: skip


def _protection(settings: LaunchSettings, sites: int | None) -> ProtectionPlan:
    asked = settings.protection
    terms = shape.read(Terms, given(asked.terms), "protection.terms")
    values = {**given(asked), "terms": shape.plain(terms)}
    values.setdefault("sites", feasible.room(sites, terms.min_cohort))
    return shape.read(ProtectionPlan, values, "protection")


def _rounds(settings: LaunchSettings, recommended: int, least: int) -> RoundsPlan:
    values = shape.plain(settings.rounds)
    values["count"] = recommended if settings.rounds.count is None else settings.rounds.count
    values["minimum"] = least if settings.rounds.minimum is None else settings.rounds.minimum
    return shape.read(RoundsPlan, values, "rounds")


def read_task(settings: LaunchSettings) -> Task:
    """The task that the settings name.

    Raises:
        ConfigError: unknown, malformed (file and line), or with a value that is not allowed (its key).
    """
    try:
        name = settings.task if settings.task_file is None else str(absolute(settings.task_file))
        if settings.task_file is not None and not name.endswith((".yaml", ".yml")):
            raise ConfigError(f"task_file={settings.task_file}", allowed="a .yaml file")
        return load_task(name)
    except TelemetryError as error:
        raise ConfigError(error.found, allowed=error.allowed, next_step=error.next_step) from None


def recommendation(task: Task, *, private: bool) -> dict[str, Any]:
    """The task's `training` section as a mapping, `private` laid over it when privacy is on."""
    training = task.training
    found: dict[str, Any] = {"rounds": training.rounds, "local": dict(training.local)}
    if private:
        over = dict(training.private)
        found["local"] |= over.pop("local", None) or {}
        found |= over
    return found


def _model(settings: LaunchSettings, task: Task) -> tuple[ModelPlan, weights.Arrays, tuple[str, ...]]:
    import torch

    from fedsite.models import catalog, vector

    torch.set_num_threads(1)
    name = settings.model.name or task.model.name
    # Another architecture has other options: the task's are its own model's.
    options = {**(task.model.options if name == task.model.name else {}), **settings.model.options}
    steps, features = task.input_shape
    module = catalog.build(name, options, time=steps, features=features, outputs=task.outputs, seed=settings.seed)
    if settings.model.init is not None:
        vector.load_file(module, absolute(settings.model.init))
    trained = tuple(vector.trainable(module, settings.model.trainable))
    initial = vector.state(module)
    model = ModelPlan(
        name=name,
        options=options,
        trainable=settings.model.trainable,
        init_hash=weights.digest(initial),
        parameters=vector.parameters(module),
    )
    return model, initial, trained


def _group(task: Task, plan: RoundPlan) -> tuple[int | None, float | None]:
    """What a window-level claim says about one reading (docs/privacy.md)."""
    privacy = plan.privacy
    if not privacy.sample_level or privacy.unit != "window" or task.overlap <= 1:
        return None, None
    from fedsite.privacy.accounting import group_epsilon

    return task.overlap, group_epsilon(spends.own(plan, spends.whole(plan)), privacy.delta, task.overlap)
