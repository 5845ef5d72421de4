"""What cannot be asked for together, refused before a site is asked: with the reason, and what to use instead."""

from __future__ import annotations

from collections.abc import Sequence

from fedsite.models import metrics
from fedsite.protocol.errors import ConfigError
from fedsite.protocol.plan import ProtectionPlan, RoundPlan
from fedsite.protocol.secagg.manifest import SITES_MAX
from fedsite.server.plans.promises import PrivacySettings, ProtectionSettings
from fedsite.server.rounds import evaluation
from fedsite.server.strategies import registry
from fedsite.server.strategies.strategy import Strategy
from fedsite.telemetry.task import Task

SITES = 64  # largest cohort of a sum, unless more are enrolled


def modes(privacy: PrivacySettings, protection: ProtectionSettings) -> None:
    """Refuse noise in a sum where there is no sum.

    Raises:
        ConfigError: `privacy=site` or `both` without `protection=secagg`.
    """
    if privacy.site_level and protection.mode != "secagg":
        raise ConfigError(
            f"privacy={privacy.mode} with protection={protection.mode}: each site adds a part of the noise, which "
            "hides nothing of one update that the server can read",
            allowed="protection=secagg",
            next_step="protection=secagg, or privacy=sample, where each site adds all of its noise itself",
        )


def room(enrolled: int | None, min_cohort: int) -> int:
    """The most sites in one sum: 64, or the next power of two above as many as there are."""
    found = SITES
    while found < max(enrolled or 0, min_cohort) and found < SITES_MAX:
        found *= 2
    return min(found, SITES_MAX)


def least_sites(protection: ProtectionPlan, strategy: Strategy) -> int:
    """Replies without which a round comes to nothing."""
    if protection.mode == "secagg":
        return protection.terms.min_survivors * (strategy.least if protection.groups > 1 else 1)
    return max(2, strategy.least)


def check(plan: RoundPlan, task: Task, enrolled: int | None) -> None:
    """Refuse a plan that its sites could not carry out, or only at the price of what it promises.

    Args:
        plan: complete.
        task: its task.
        enrolled: sites, where that is known.

    Raises:
        ConfigError: it is such a plan.
    """
    strategy = registry.build(plan.strategy.name, plan.strategy.options, local=plan.local)
    if plan.strategy.name == "fedavg" and plan.local.proximal:
        raise ConfigError(
            f"strategy=fedavg with local.proximal {plan.local.proximal:g}: that is FedProx",
            allowed="local.proximal 0",
            next_step=f"strategy=fedprox local.proximal={plan.local.proximal:g}",
        )
    if plan.protection.mode != "secagg":
        return
    _check_strategy(plan, strategy)
    check_sites(plan.protection.terms.min_cohort, plan.protection.groups, enrolled)
    _check_rounds(plan)
    name, terms = metrics.read(task.metric), plan.protection.terms
    if evaluation.evaluates(plan) and name.name in metrics.REGRESSION and name.maximum is None:
        raise ConfigError(
            f"metric {name.name} has no maximum, and a secure sum needs a bound on what one window adds",
            allowed="metric.maximum in label units",
            next_step="add metric.maximum to the task, or protection=sealed",
        )
    terms.size(min(plan.protection.sites, max(enrolled or 0, terms.min_cohort)))
    if plan.privacy.site_level and plan.privacy.site.delta * (enrolled or 1) >= 1:
        raise ConfigError(
            f"privacy.site.delta is {plan.privacy.site.delta:g} for {enrolled} sites", allowed="below 1 / sites"
        )


def _check_strategy(plan: RoundPlan, strategy: Strategy) -> None:
    groups = plan.protection.groups
    if strategy.single:
        raise ConfigError(
            f"strategy={plan.strategy.name} with protection=secagg: it compares single updates, which nobody sees",
            allowed=f"with secagg: {', '.join(registry.summing())}",
            next_step="strategy=median protection.groups=3, or protection=sealed, where the server sees single updates",
        )
    if strategy.least > 1 and groups < strategy.least:
        raise ConfigError(
            f"strategy={plan.strategy.name} over protection.groups={groups}: with secagg it compares sums of groups",
            allowed=f"{strategy.least} groups or more",
            next_step=f"protection.groups={strategy.least}, or protection=sealed, where it compares sites",
        )


def check_sites(least: int, groups: int, enrolled: int | None) -> None:
    """Refuse secure sums over fewer sites than hide one.

    Args:
        least: sites in one sum.
        groups: sums of a round.
        enrolled: sites, where that is known.

    Raises:
        ConfigError: too few are enrolled.
    """
    if enrolled is None or enrolled >= least * groups:
        return
    if enrolled == 2:
        raise ConfigError(
            "2 sites with protection=secagg: each would know the other's update by subtracting its own from the sum",
            allowed=f"{least * groups} sites or more",
            next_step="protection=sealed, or enrol a third site: fedsite token create",
        )
    if enrolled < least:
        raise ConfigError(
            f"sites enrolled: {enrolled}, and a sum is over protection.terms.min_cohort={least} at least",
            allowed=f"{least} sites or more",
            next_step="enrol more (fedsite token create), lower protection.terms.min_cohort, or protection=sealed",
        )
    raise ConfigError(
        f"protection.groups={groups} of {least} sites or more, with {enrolled} enrolled",
        allowed=f"{enrolled // least} groups at most, or {least * groups} sites",
        next_step=f"protection.groups={enrolled // least}, or enrol more sites",
    )


def check_carried(plan: RoundPlan, connected: int, carried: Sequence[str]) -> Sequence[str]:
    """Names of the sites that a run leaves out, because its messages cannot be carried to them.

    Args:
        plan: complete.
        connected: sites with a network.
        carried: names of those without.

    Raises:
        ConfigError: without them too few are left for a secure sum.
    """
    if plan.protection.mode != "secagg":
        return ()
    least = plan.protection.terms.min_cohort * plan.protection.groups
    if carried and connected < least:
        raise ConfigError(
            f"protection=secagg with {connected} connected sites: {', '.join(carried)} take part by files that people "
            "carry, and a secure sum is several trips within minutes",
            allowed=f"secagg with {least} connected sites or more",
            next_step="protection=sealed, which is one trip for a question; or connect them: fedsite sites carry --off",
        )
    return carried


def _check_rounds(plan: RoundPlan) -> None:
    """A round that could end with fewer answers than a sum needs would never end with a sum."""
    terms, rounds = plan.protection.terms, plan.rounds
    if rounds.minimum < terms.min_survivors:
        raise ConfigError(
            f"rounds.minimum is {rounds.minimum}, and no sum over fewer than {terms.min_survivors} sites is opened",
            allowed=f"at least protection.terms.min_survivors ({terms.min_survivors})",
            next_step=f"rounds.minimum={terms.min_survivors}, or null",
        )
    if rounds.goal is not None and rounds.goal < terms.min_cohort * plan.protection.groups:
        raise ConfigError(
            f"rounds.goal is {rounds.goal}, and {plan.protection.groups} sums need {terms.min_cohort} sites each",
            allowed=f"at least {terms.min_cohort * plan.protection.groups}",
            next_step=f"rounds.goal={terms.min_cohort * plan.protection.groups}, or protection=sealed",
        )
