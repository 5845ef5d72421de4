"""The plan that `launch` would make of the same settings, with nothing in it that changes from day to day."""

from __future__ import annotations

import dataclasses
from typing import Final

from fedsite.protocol.errors import ConfigError
from fedsite.protocol.plan import RoundPlan
from fedsite.server.plans import planning
from fedsite.server.plans.planning import Planned
from fedsite.simulations.runs.settings import SIMULATE, SimulateSettings
from fedsite.telemetry.task import Task

FEDERATION: Final = "0" * 32
RUN: Final = "0" * 26


def task_of(settings: SimulateSettings) -> Task:
    """The task that the settings name.

    Raises:
        ConfigError: unknown, malformed, or with a value that is not allowed.
    """
    return planning.read_task(settings)


def plan(settings: SimulateSettings, sites: int) -> Planned:
    """Plan a run over so many sites; equal settings give equal plans.

    Raises:
        ConfigError: what `launch` refuses, it refuses here.
        BudgetError: no noise meets the target ε.
    """
    cohort = settings.simulation.cohort
    if cohort is not None:
        if settings.rounds.goal not in (None, cohort):
            raise ConfigError(
                f"simulation.cohort is {cohort} and rounds.goal is {settings.rounds.goal}",
                allowed="one of them: they are the same number",
                next_step=f"rounds.goal={cohort}",
            )
        goal = min(cohort, sites)
        settings = dataclasses.replace(settings, rounds=dataclasses.replace(settings.rounds, goal=goal))
    try:
        found = planning.make(settings, FEDERATION, clock=lambda: 0.0, sites=sites)
    except ConfigError as error:
        error.next_step = (error.next_step or SIMULATE.help).replace("fedsite launch", "fedsite simulate")
        raise
    timeless = RoundPlan.parse(dataclasses.replace(found.plan, run_id=RUN).encode())
    return dataclasses.replace(found, plan=timeless)


def cohort(found: Planned, sites: int) -> int:
    """Sites drawn in a round."""
    goal = found.plan.rounds.goal
    return sites if goal is None else min(goal, sites)
