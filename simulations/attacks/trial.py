"""One attack against one way of aggregating: the run without attackers, with them, and what they got."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fedsite.protocol import shape
from fedsite.protocol.plan import PrivacyPlan, ProtectionPlan, RoundPlan, SitePrivacyPlan, StrategyPlan
from fedsite.simulations.attacks.measures import Measure, Measured
from fedsite.simulations.attacks.poison import poison
from fedsite.simulations.attacks.spec import AttackSpec
from fedsite.simulations.engine import Scale, simulate
from fedsite.simulations.runs.material import Material, material
from fedsite.simulations.vectorised.choice import AUTO
from fedsite.telemetry.dataset import SiteData


@dataclass(frozen=True, slots=True, kw_only=True)
class Defence:
    """What of a plan stands against poisoners."""

    name: str
    strategy: StrategyPlan = field(default_factory=StrategyPlan)
    protection: ProtectionPlan = field(default_factory=ProtectionPlan)
    privacy: PrivacyPlan = field(default_factory=PrivacyPlan)

    def plan(self, plan: RoundPlan) -> RoundPlan:
        """The plan with it."""
        return dataclasses.replace(plan, strategy=self.strategy, protection=self.protection, privacy=self.privacy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A model that was attacked."""

    attack: str
    attackers: int
    defence: str
    metric: float | None  # of the task, on all holdouts
    measured: Measured

    @property
    def worst(self) -> float | None:
        """Share of the class that is recognised least; None where labels are values."""
        known = [share for share in self.measured.classes if share is not None]
        return min(known) if known else None

    @property
    def plain(self) -> dict[str, Any]:
        """JSON value."""
        found: dict[str, Any] = shape.plain(self) | {"worst": self.worst}
        return found


def defences(sites: int, attackers: int, groups: int) -> tuple[Defence, ...]:
    """None, those that compare single updates (sealed), groups under secure aggregation, and clipping whole updates.

    Args:
        sites: in a round.
        attackers: that a rule is told to expect.
        groups: sums that a round is cut into.
    """
    sealed = ProtectionPlan(mode="sealed")
    trim = {"trim": min(0.45, (attackers + 1) / sites)}
    krum = {"byzantine": float(attackers), "select": float(max(1, sites // 2 - attackers))}
    clipped = PrivacyPlan(mode="site", site=SitePrivacyPlan(clip=0.5, noise_multiplier=1e-3))
    return (
        Defence(name="none"),
        Defence(name="median, sealed", strategy=StrategyPlan(name="median"), protection=sealed),
        Defence(
            name="trimmed mean, sealed", strategy=StrategyPlan(name="trimmed_mean", options=trim), protection=sealed
        ),
        Defence(name="krum, sealed", strategy=StrategyPlan(name="krum", options=krum), protection=sealed),
        Defence(
            name=f"median of {groups} groups, secagg",
            strategy=StrategyPlan(name="median"),
            protection=ProtectionPlan(mode="secagg", groups=groups),
        ),
        Defence(name="clip to 0.5, secagg", privacy=clipped),
    )


ATTACKS: Final[Mapping[str, AttackSpec]] = {
    "none": AttackSpec(),
    "label flip": AttackSpec(kind="label-flip", share=0.2, scale=3.0, target=0),
    "sign flip": AttackSpec(kind="sign-flip", share=0.2, scale=5.0),
    "scaled": AttackSpec(kind="scaled", share=0.05, scale=100.0),
    "backdoor": AttackSpec(kind="backdoor", share=0.1, scale=10.0, target=0),
    "noise": AttackSpec(kind="random", share=0.2, scale=5.0),
    "free rider": AttackSpec(kind="free-rider", share=0.5),
    "sign flip, one site": AttackSpec(kind="sign-flip", share=0.05, scale=20.0),
    "backdoor, one site": AttackSpec(kind="backdoor", share=0.05, scale=20.0, target=0),
}


def attack(given: Material, spec: AttackSpec, *, name: str = "", defence: str = "", executor: str = AUTO) -> Outcome:
    """Run a plan's rounds, every site in every round, with attackers among the sites.

    Raises:
        ConfigError: the attack does not fit the task, or training diverged.
    """
    rounds = given.plan.rounds.count
    scale = Scale(rounds=rounds, cohort=len(given.population), evaluate_every=rounds, executor=executor)
    poisoned = poison(given.population, spec, given.plan.seed)
    ended = simulate(given.job, poisoned.population, given.strategy, scale, judge=given.judge, gains=poisoned.gains)
    measured = Measure(given.plan, given.sites, given.normalisation, spec)(ended.params)
    return Outcome(
        attack=name or spec.kind,
        attackers=len(poisoned.sites),
        defence=defence,
        metric=ended.rounds[-1].metric,
        measured=measured,
    )


def against(
    plan: RoundPlan,
    sites: Mapping[str, SiteData],
    attacks: Mapping[str, AttackSpec],
    defence: Defence,
    *,
    executor: str = AUTO,
) -> list[Outcome]:
    """Each attack against one defence."""
    given = material(defence.plan(plan), sites)
    return [attack(given, spec, name=name, defence=defence.name, executor=executor) for name, spec in attacks.items()]
