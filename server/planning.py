"""From settings to a plan that sites can agree to: recommendations laid under, noise solved, cost foreseen."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fedsite.privacy.errors import PrivacyError
from fedsite.privacy.spending import evaluations, spends_of
from fedsite.protocol import ids, instants, sealing, shape, weights
from fedsite.protocol.errors import BudgetError, ConfigError
from fedsite.protocol.plan import (
    CostPlan,
    LocalPlan,
    ModelPlan,
    PrivacyPlan,
    ProtectionPlan,
    ReleasePlan,
    RoundPlan,
    RoundsPlan,
    StrategyPlan,
)
from fedsite.server.settings import LaunchSettings, absolute
from fedsite.server.strategies import registry
from fedsite.telemetry.errors import TelemetryError
from fedsite.telemetry.task import Task, load_task

FORECAST_SCHEMA = "fedsite.forecast/1"
HEADER_BYTES = 4096  # of a message beside its blobs: header, signature, normalisation


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan, and what the driver needs beside it."""

    plan: RoundPlan
    initial: weights.Arrays
    trained: tuple[str, ...]
    group: int | None  # windows that share one reading, when the unit is a window of a private run
    group_epsilon: float | None  # what such a group is promised

    def forecast(self) -> dict[str, Any]:
        """What the run will cost each site (`fedsite.forecast/1`), before anybody is asked."""
        plan, cost = self.plan, self.plan.cost
        private = plan.privacy.mode != "none"
        return {
            "schema": FORECAST_SCHEMA,
            "run_id": plan.run_id,
            "task": plan.task_name,
            "plan_hash": plan.hash,
            "model": plan.model.name,
            "parameters": plan.model.parameters,
            "trained_parameters": sum(self.initial[name].size for name in self.trained),
            "rounds": plan.rounds.count,
            "steps_per_round": plan.local.steps,
            "bytes_down": cost.bytes_down * plan.rounds.count,
            "bytes_up": cost.bytes_up * plan.rounds.count,
            "minutes_at_most": round(plan.rounds.count * plan.rounds.deadline_s / 60, 1),
            "protection": plan.protection.mode,
            "privacy": plan.privacy.mode,
            "epsilon": cost.epsilon,
            "delta": plan.privacy.delta if private else None,
            "unit": plan.privacy.unit if private else None,
            "noise_multiplier": plan.privacy.noise_multiplier if private else None,
            "group": self.group,
            "group_epsilon": self.group_epsilon,
        }


def make(settings: LaunchSettings, federation: str, clock: Callable[[], float] = time.time) -> Planned:
    """Plan a run.

    Args:
        settings: as composed.
        federation: id of the federation, hex.
        clock: seconds since 1970.

    Raises:
        ConfigError: unknown task, model, option or strategy, or a value out of range.
        BudgetError: no noise meets the target ε.
        IntegrityError: `model.init` is not this model's.
    """
    try:
        return _make(settings, federation, clock)
    except ConfigError as error:
        error.next_step = error.next_step or "fedsite launch --help"
        raise


def _make(settings: LaunchSettings, federation: str, clock: Callable[[], float]) -> Planned:
    task = read_task(settings)
    registry.build(settings.strategy.name, settings.strategy.options)
    recommended = recommendation(task, private=settings.privacy.mode != "none")
    local = shape.read(LocalPlan, {**recommended["local"], **given(settings.local)}, "local")
    count = int(recommended["rounds"]) if settings.rounds.count is None else settings.rounds.count
    rounds = shape.read(RoundsPlan, {**shape.plain(settings.rounds), "count": count}, "rounds")
    if settings.release.parity is not None and settings.release.parity < 0:
        raise ConfigError(f"release.parity is {settings.release.parity}", allowed="0 or more")
    release = ReleasePlan(
        enabled=settings.release.enabled,
        parity=task.release.parity if settings.release.parity is None else settings.release.parity,
    )
    privacy = _privacy(settings, recommended, local, rounds, release)
    model, initial, trained = _model(settings, task)
    plan = RoundPlan(
        federation=federation,
        run_id=ids.ulid(clock),
        created=instants.text(datetime.fromtimestamp(clock(), UTC)),
        task=task.document,
        model=model,
        local=local,
        privacy=privacy,
        protection=ProtectionPlan(mode=settings.protection.mode),
        strategy=StrategyPlan(name=settings.strategy.name, options=settings.strategy.options),
        rounds=rounds,
        release=release,
        cost=_cost(initial, trained, privacy, local, rounds, release, settings.protection.mode),
        seed=settings.seed,
    )
    plan = RoundPlan.parse(plan.encode())
    group, group_epsilon = _group(task, plan)
    return Planned(plan=plan, initial=initial, trained=trained, group=group, group_epsilon=group_epsilon)


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


def given(settings: Any) -> dict[str, Any]:
    """The fields of a settings section that were set."""
    return {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if getattr(settings, field.name) is not None
    }


def _privacy(
    settings: LaunchSettings,
    recommended: Mapping[str, Any],
    local: LocalPlan,
    rounds: RoundsPlan,
    release: ReleasePlan,
) -> PrivacyPlan:
    if settings.privacy.mode == "none":
        return PrivacyPlan(mode="none")
    known = {field.name for field in dataclasses.fields(PrivacyPlan)}
    values = {key: value for key, value in recommended.items() if key in known} | given(settings.privacy)
    if settings.privacy.noise_multiplier is not None:
        values["epsilon"] = None
        return shape.read(PrivacyPlan, values, "privacy")
    # Everything is checked before minutes may go into solving: the noise itself is not known yet.
    draft = shape.read(PrivacyPlan, {**values, "noise_multiplier": 1.0}, "privacy")
    _check_unit(settings, str(recommended.get("unit", "window")))
    from fedsite.privacy.accounting import solve_noise_multiplier

    others = _spends(draft, local, rounds, release, trained=0)
    try:
        noise = solve_noise_multiplier(
            float(values["epsilon"]),
            draft.delta,
            local.sampling_rate,
            local.steps * rounds.count,
            others,
            draft.accountant,
        )
    except PrivacyError as error:
        raise BudgetError(error.found, allowed=error.allowed, next_step=error.next_step) from None
    return dataclasses.replace(draft, noise_multiplier=noise)


def _check_unit(settings: LaunchSettings, recommended: str) -> None:
    """A batch of entities is no batch of windows: settings for the one ruin a run of the other."""
    unit = settings.privacy.unit or recommended
    if unit != recommended and (settings.local.sampling_rate is None or settings.privacy.batch is None):
        raise ConfigError(
            f"privacy.unit is {unit}, and the task's private settings are for {recommended}",
            allowed=f"{unit} with local.sampling_rate and privacy.batch of its own",
            next_step=f"an experiment=NAME made for it (fedsite launch --help), or privacy.unit={recommended}",
        )


def _spends(
    privacy: PrivacyPlan, local: LocalPlan, rounds: RoundsPlan, release: ReleasePlan, *, trained: int | None = None
) -> tuple[Any, ...]:
    return spends_of(
        noise_multiplier=privacy.noise_multiplier,
        sampling_rate=local.sampling_rate,
        steps=local.steps,
        rounds=rounds.count if trained is None else trained,
        statistics_noise=privacy.statistics_noise,
        evaluation_noise=privacy.evaluation_noise,
        evaluations=evaluations(rounds.count, rounds.evaluate_every),
        calibration_noise=privacy.calibration_noise if release.enabled else 0.0,
    )


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


def _cost(
    initial: weights.Arrays,
    trained: tuple[str, ...],
    privacy: PrivacyPlan,
    local: LocalPlan,
    rounds: RoundsPlan,
    release: ReleasePlan,
    protection: str,
) -> CostPlan:
    up = len(weights.encode({f"delta/{name}": initial[name] for name in trained})) + HEADER_BYTES
    if protection == "sealed":
        up += sealing.WRAPPED + sealing.TAG * (1 + up // sealing.CHUNK)
    epsilon = None
    if privacy.mode != "none":
        from fedsite.privacy.accounting import epsilon as compose

        epsilon = compose(_spends(privacy, local, rounds, release), privacy.delta, privacy.accountant)
    return CostPlan(bytes_down=len(weights.encode(initial)) + HEADER_BYTES, bytes_up=up, epsilon=epsilon)


def _group(task: Task, plan: RoundPlan) -> tuple[int | None, float | None]:
    """What a window-level claim says about one reading (PRIVACY.md rule 1)."""
    if plan.privacy.mode == "none" or plan.privacy.unit != "window" or task.overlap <= 1:
        return None, None
    from fedsite.privacy.accounting import group_epsilon

    spends = _spends(plan.privacy, plan.local, plan.rounds, plan.release)
    return task.overlap, group_epsilon(spends, plan.privacy.delta, task.overlap)
