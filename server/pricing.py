"""What a run promises and costs: noise solved from each target, ε composed, bytes counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedsite.models import sum_noise
from fedsite.privacy.accounting import Spend
from fedsite.privacy.distributed import equivalent_epsilon, solve_sum_multiplier
from fedsite.privacy.errors import PrivacyError
from fedsite.privacy.spending import evaluations, spends_of
from fedsite.protocol import sealing, shape, weights
from fedsite.protocol.errors import BudgetError, ConfigError
from fedsite.protocol.plan import (
    SMALL_NOISES,
    CostPlan,
    LocalPlan,
    PrivacyPlan,
    ProtectionPlan,
    ReleasePlan,
    RoundPlan,
    RoundsPlan,
    SitePrivacyPlan,
)
from fedsite.server import stage_bytes
from fedsite.server.promises import PrivacySettings

HEADER_BYTES = 4096  # of a message beside its blobs: header, signature, normalisation


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is known of a run before its noise is."""

    local: LocalPlan
    rounds: RoundsPlan
    release: ReleasePlan
    protection: ProtectionPlan
    parameters: int  # of the model

    @property
    def evaluations(self) -> int:
        """Evaluations of the whole run, at most."""
        return evaluations(self.rounds.count, self.rounds.evaluate_every)


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
    values["site"] = {"noise_multiplier": 1.0 if asked.site_level else 0.0} | _given(asked.site)
    values |= {key: value for key, value in _given(asked).items() if key != "site"}
    return shape.read(PrivacyPlan, values, "privacy")


def solved(
    asked: PrivacySettings, draft: PrivacyPlan, recommended: Mapping[str, Any], local: Mapping[str, Any], run: Run
) -> PrivacyPlan:
    """The same with every noise that meets its target.

    Args:
        asked: the settings.
        draft: `unsolved`.
        recommended: the task's.
        local: what was set of what a site does in a round.
        run: everything else.

    Raises:
        ConfigError: settings for another unit, or no noise in the sum meets its target.
        BudgetError: no noise of DP-SGD meets its target.
    """
    if asked.sample_level and asked.noise_multiplier is None:
        _check_unit(draft.unit, str(recommended.get("unit", "window")), asked, local)
        draft = dataclasses.replace(draft, noise_multiplier=_solved(draft, run))
    if asked.site_level and asked.site.noise_multiplier is None:
        draft = dataclasses.replace(draft, site=dataclasses.replace(draft.site, noise_multiplier=_in_sum(draft, run)))
    return draft


def own_spends(privacy: PrivacyPlan, run: Run, *, trained: int | None = None) -> tuple[Spend, ...]:
    """What one site noises by itself, of the whole run or of so many rounds of training."""
    return spends_of(
        noise_multiplier=privacy.noise_multiplier,
        sampling_rate=run.local.sampling_rate,
        steps=run.local.steps,
        rounds=run.rounds.count if trained is None else trained,
        statistics_noise=privacy.statistics_noise,
        evaluation_noise=privacy.evaluation_noise,
        evaluations=run.evaluations,
        calibration_noise=privacy.calibration_noise if run.release.enabled else 0.0,
    )


def cost(plan: RoundPlan, task: Any, run: Run, initial: weights.Arrays, trained: tuple[str, ...]) -> CostPlan:
    """What one site pays: bytes of a round, and ε of the whole run for each claim.

    Raises:
        PrivacyError: an ε that no accountant can give.
    """
    privacy = plan.privacy
    own = site = None
    if privacy.sample_level:
        from fedsite.privacy.accounting import epsilon

        own = epsilon(own_spends(privacy, run), privacy.delta, privacy.accountant)
    if privacy.site_level:
        spends = sum_noise.spends(plan, rounds=run.rounds.count, evaluations=run.evaluations)
        site = equivalent_epsilon(spends, privacy.site.delta)
    down = len(weights.encode(initial)) + HEADER_BYTES
    if plan.protection.mode == "secagg":
        stages = stage_bytes.of_round(plan, task, initial, trained, sites=plan.protection.sites, header=HEADER_BYTES)
        up, down = (sum(getattr(stage, name) for stage in stages) for name in ("bytes_up", "bytes_down"))
    else:
        up = len(weights.encode({f"delta/{name}": initial[name] for name in trained})) + HEADER_BYTES
        if plan.protection.mode == "sealed":
            up += sealing.WRAPPED + sealing.TAG * (1 + up // sealing.CHUNK)
    return CostPlan(bytes_down=down, bytes_up=up, epsilon=own, site_epsilon=site)


def _given(settings: Any) -> dict[str, Any]:
    values = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    return {name: value for name, value in values.items() if value is not None}


def _solved(draft: PrivacyPlan, run: Run) -> float:
    """The noise of DP-SGD."""
    from fedsite.privacy.accounting import solve_noise_multiplier

    try:
        return solve_noise_multiplier(
            float(draft.epsilon or 0.0),
            draft.delta,
            run.local.sampling_rate,
            run.local.steps * run.rounds.count,
            own_spends(draft, run, trained=0),
            draft.accountant,
        )
    except PrivacyError as error:
        raise BudgetError(error.found, allowed=error.allowed, next_step=error.next_step) from None


def _in_sum(draft: PrivacyPlan, run: Run) -> float:
    """The noise in the sum, over the clipping norm of a site's update."""

    def equivalent(noise: float, words: int) -> float:
        return sum_noise.equivalent(draft, run.protection, noise, words)

    counts = {
        "statistics_noise": 1,
        "evaluation_noise": run.evaluations,
        "calibration_noise": int(run.release.enabled),
    }
    site: SitePrivacyPlan = draft.site
    try:
        others = tuple(
            Spend(noise_multiplier=equivalent(getattr(draft, name), sum_noise.WORDS), steps=count)
            for name, count in counts.items()
            if getattr(draft, name) > 0 and count
        )
        return solve_sum_multiplier(
            float(site.epsilon or 0.0),
            site.delta,
            lambda noise: equivalent(noise, run.parameters),
            run.rounds.count,
            others,
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
