"""Chooses how a job is executed, the fastest way that can do it first, and says why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fedsite.protocol.errors import ConfigError
from fedsite.protocol.shape import nearest
from fedsite.simulations.vectorised.executor import Executor
from fedsite.simulations.vectorised.job import Job
from fedsite.simulations.vectorised.population import Population

NAMES: Final = ("compiled", "batched", "vmap_compiled", "vmap", "loop")  # fastest first
AUTO: Final = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """An executor, and why none of the faster ones."""

    executor: Executor
    population: Population
    passed_over: tuple[tuple[str, str], ...] = ()  # (name, reason)


def choose(job: Job, population: Population, wanted: str = AUTO, device: str = "cpu", trainings: int = 0) -> Chosen:
    """The fastest executor for a job, or the one that was asked for.

    Args:
        job: what sites do.
        population: their data.
        wanted: an executor, or "auto".
        device: cpu or cuda.
        trainings: of sites in the whole run: gradients are compiled for long runs.

    Raises:
        ConfigError: there is no executor of that name, or it cannot do this job, or no such device.
    """
    if wanted not in (AUTO, *NAMES):
        raise ConfigError(
            f"simulation.executor is {wanted!r}",
            allowed=nearest(wanted, [AUTO, *NAMES]),
            next_step=f"simulation.executor={AUTO}",
        )
    if device != "cpu":
        from fedsite.simulations.vectorised import devices

        devices.check(device)
    passed: list[tuple[str, str]] = []
    for name in NAMES if wanted == AUTO else (wanted,):
        found = _make(name, job, population, device, trainings if wanted == AUTO else None)
        if not isinstance(found, str):
            return Chosen(executor=found, population=population, passed_over=tuple(passed))
        passed.append((name, found))
    raise ConfigError(
        f"executor {wanted} cannot do this: {passed[-1][1]}",
        allowed="an executor that can do it",
        next_step=f"simulation.executor={AUTO} takes the fastest of them",
    )


def _make(name: str, job: Job, population: Population, device: str, trainings: int | None) -> Executor | str:
    """The executor, or why it cannot do the job."""
    if name == "loop":
        if device != "cpu":
            return f"it trains on the CPU, not on {device}"
        from fedsite.simulations.vectorised.loop import Loop

        return Loop(job, population)
    if name == "vmap":
        return _traced(job, population, device)
    if name == "vmap_compiled":
        return _inductor(job, population, device, trainings)
    if name == "compiled":
        from fedsite.simulations.vectorised import compiled, traced

        reason = compiled.obstacle(job, device)
        if reason is None and trainings is not None:
            reason = compiled.too_short(job, population, trainings)
        if reason is not None:
            return reason
        program = traced.program(job)
        return program if isinstance(program, str) else compiled.Compiled(job, population, program)
    from fedsite.simulations.vectorised.dense import dense

    stack = dense(job)
    if stack is None:
        return f"model {job.model.name} trained in {job.model.trainable} is not one stack of dense layers"
    from fedsite.simulations.vectorised.batched import Batched

    return Batched(job, population, stack, device)


def _traced(job: Job, population: Population, device: str) -> Executor | str:
    from fedsite.simulations.vectorised.functional import Functional

    found = Functional(job, population, device)
    try:
        found.probe()
    except RuntimeError as error:
        return f"torch.func cannot trace the model ({str(error).splitlines()[0][:120]})"
    return found


def _inductor(job: Job, population: Population, device: str, trainings: int | None) -> Executor | str:
    from fedsite.simulations.vectorised import inductor

    reason = inductor.obstacle(job, population, device, trainings)
    if reason is None:
        traced = _traced(job, population, device)
        reason = traced if isinstance(traced, str) else None
    if reason is not None:
        return reason
    found = inductor.Inductor(job, population, device)
    try:
        found.probe()
    except Exception as error:  # of compilers that are not ours, and fail in their own ways
        return f"torch.compile fails here ({(str(error) or type(error).__name__).splitlines()[0][:120]})"
    return found
