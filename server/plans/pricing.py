"""What a run promises and costs: noise solved from each target, ε composed, bytes counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fedsite.models import spends, sum_noise
from fedsite.privacy.accounting import epsilon, solve_noise_multiplier
from fedsite.privacy.distributed import equivalent_epsilon, solve_sum_multiplier
from fedsite.privacy.errors import PrivacyError
from fedsite.protocol import sealing, shape, weights
from fedsite.protocol.errors import BudgetError, ConfigError
from fedsite.protocol.messages import DELTA
from fedsite.protocol.plan import SMALL_NOISES, CostPlan, PrivacyPlan, RoundPlan
from fedsite.server.plans import stage_bytes
from fedsite.server.plans.promises import PrivacySettings
from fedsite.telemetry.task import Task

HEADER_BYTES = 4096  # of a message beside its blobs: header, signature, normalisation


def unsolved(asked: PrivacySettings, recommended: Mapping[str, Any]) -> PrivacyPlan:
    """The plan's privacy, with 1 in the place of noise that is solved later: that can take minutes.

    Args:
        asked: the settings.
        recommended: the task's, for DP-SGD where a site noises by itself.

    Raises:
        ConfigError: a value out of range.
    """
    if asked.mode == "none":
        return PrivacyPlan(mode="none")
    known = {field.name for field in dataclasses.fields(PrivacyPlan)} - {"site"}
    values = {key: value for key, value in recommended.items() if key in known}
    if asked.site_level:
        # Recommended for a site's own noise; in the sum a site is one unit, and a task says nothing of that.
        values |= dict.fromkeys(SMALL_NOISES, 0.0)
    values |= {"epsilon": None, "noise_multiplier": 1.0 if asked.sample_level else 0.0}
    values["site"] = {"noise_multiplier": 1.0 if asked.site_level else 0.0} | given(asked.site)
    values |= {key: value for key, value in given(asked).items() if key != "site"}
    return shape.read(PrivacyPlan, values, "privacy")


def solved(
    asked: PrivacySettings, draft: RoundPlan, recommended: Mapping[str, Any], local: Mapping[str, Any]
) -> PrivacyPlan:
    """The privacy of a plan with every noise that meets its target.

    Args:
        asked: the settings.
        draft: the plan, with `unsolved` as its privacy.
        recommended: the task's.
        local: what was set of what a site does in a round.

    Raises:
        ConfigError: settings for another unit, or no noise in the sum meets its target.
        BudgetError: no noise of DP-SGD meets its target.
    """
    privacy = draft.privacy
    if asked.sample_level and asked.noise_multiplier is None:
        _check_unit(privacy.unit, str(recommended.get("unit", "window")), asked, local)
        privacy = dataclasses.replace(privacy, noise_multiplier=_solved(draft))
    if asked.site_level and asked.site.noise_multiplier is None:
        privacy = dataclasses.replace(privacy, site=dataclasses.replace(privacy.site, noise_multiplier=_in_sum(draft)))
    return privacy


def cost(plan: RoundPlan, task: Task, initial: weights.Arrays, trained: tuple[str, ...]) -> CostPlan:
    """What one site pays: bytes of a round, and ε of the whole run for each claim.

    Raises:
        PrivacyError: an ε that no accountant can give.
    """
    privacy, asked = plan.privacy, spends.whole(plan)
    own = site = None
    if privacy.sample_level:
        own = epsilon(spends.own(plan, asked), privacy.delta, privacy.accountant)
    if privacy.site_level:
        site = equivalent_epsilon(spends.in_sums(plan, asked), privacy.site.delta)
    down = len(weights.encode(initial)) + stage_bytes.control(plan, initial, trained) + HEADER_BYTES
    if plan.protection.mode == "secagg":
        stages = stage_bytes.of_round(plan, task, initial, trained, sites=plan.protection.sites, header=HEADER_BYTES)
        up, down = (sum(getattr(stage, name) for stage in stages) for name in ("bytes_up", "bytes_down"))
    else:
        up = len(weights.encode({DELTA + name: initial[name] for name in trained})) + HEADER_BYTES
        if plan.protection.mode == "sealed":
            up += sealing.WRAPPED + sealing.TAG * (1 + up // sealing.CHUNK)
    return CostPlan(bytes_down=down, bytes_up=up, epsilon=own, site_epsilon=site)


def given(settings: Any) -> dict[str, Any]:
    """The fields of a settings section that were set."""
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    return {name: value for name, value in values.items() if value is not None}


def _solved(draft: RoundPlan) -> float:
    """The noise of DP-SGD, beside everything else that a site noises by itself."""
    privacy, asked = draft.privacy, spends.whole(draft)
    try:
        return solve_noise_multiplier(
            float(privacy.epsilon or 0.0),
            privacy.delta,
            draft.local.sampling_rate,
            draft.local.steps * draft.rounds.count,
            spends.own(draft, dataclasses.replace(asked, trained=0)),
            privacy.accountant,
        )
    except PrivacyError as error:
        raise BudgetError(error.found, allowed=error.allowed, next_step=error.next_step) from None


def _in_sum(draft: RoundPlan) -> float:
    """The noise in the sum over the clipping norm of a site's update, beside everything else in sums."""
    site, asked = draft.privacy.site, spends.whole(draft)
    try:
        return solve_sum_multiplier(
            float(site.epsilon or 0.0),
            site.delta,
            lambda noise: sum_noise.equivalent(draft.privacy, draft.protection, noise, draft.model.parameters),
            draft.rounds.count,
            spends.in_sums(draft, dataclasses.replace(asked, trained=0)),
        )
    except PrivacyError as error:
        raise ConfigError(error.found, allowed=error.allowed, next_step=error.next_step) from None


def _check_unit(unit: str, recommended: str, asked: PrivacySettings, local: Mapping[str, Any]) -> None:
    """A batch of entities is no batch of windows: settings for the one ruin a run of the other."""
    if unit != recommended and ("sampling_rate" not in local or asked.batch is None):
        raise ConfigError(
            f"privacy.unit is {unit}, and the task's private settings are for {recommended}",
            allowed=f"{unit} with local.sampling_rate and privacy.batch of its own",
            next_step=f"an experiment=NAME made for it (fedsite launch --help), or privacy.unit={recommended}",
        )
