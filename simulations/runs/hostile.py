"""The attackers and the auditor of a simulated run, as its settings ask for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsite.protocol.errors import ConfigError
from fedsite.protocol.plan import RoundPlan
from fedsite.simulations.attacks import spec as kinds
from fedsite.simulations.attacks.measures import Measure
from fedsite.simulations.attacks.poison import poison
from fedsite.simulations.attacks.spec import AttackSpec
from fedsite.simulations.audits import sums
from fedsite.simulations.audits.audit import audit
from fedsite.simulations.audits.spec import AuditSpec
from fedsite.simulations.populations.sites import Sites
from fedsite.simulations.runs.material import Material
from fedsite.simulations.vectorised.job import Weights
from fedsite.simulations.vectorised.population import Population


@dataclass(frozen=True, slots=True, kw_only=True)
class Hostile:
    """A population with the attackers that were asked for, if any."""

    spec: AttackSpec
    given: Material
    first: Population  # before anything drifts
    gains: NDArray[np.float32] | None  # [site]
    attackers: NDArray[np.int64]  # rising
    measure: Measure | None

    @classmethod
    def of(cls, spec: AttackSpec, given: Material) -> Hostile:
        """Of a run.

        Raises:
            ConfigError: the attack does not fit the task's labels or windows.
        """
        made = poison(given.population, spec, given.plan.seed)
        measure = None
        if spec.kind != kinds.NONE:
            measure = Measure(given.plan, given.sites, given.normalisation, spec)
        return cls(
            spec=spec, given=given, first=made.population, gains=made.gains, attackers=made.sites, measure=measure
        )

    def population(self, number: int) -> Population:
        """Everybody's windows in a round."""
        sites = self.given.sites
        if not isinstance(sites, Sites) or sites.phase_of(number) == 0:
            return self.first
        later = sites.at(number).population(self.given.scaled)
        return poison(later, self.spec, self.given.plan.seed).population

    def measured(self, initial: Weights, final: Weights) -> dict[str, Any] | None:
        """What the attack did, beside the model that nobody has trained; None without attackers."""
        if self.measure is None:
            return None
        return {
            "kind": self.spec.kind,
            "share": self.spec.share,
            "scale": self.spec.scale,
            "attackers": len(self.attackers),
            **self.measure(final).plain,
            "success_at_start": self.measure(initial).success,
        }


def audited(asked: AuditSpec, plan: RoundPlan, executor: str) -> dict[str, Any] | None:
    """What an audit of the plan's steps shows; None where none was asked for.

    Of two claims (privacy=both) the one of a site's own noise.

    Raises:
        ConfigError: the plan claims nothing.
    """
    if not asked.runs:
        return None
    if plan.privacy.mode == "none":
        raise ConfigError(
            "simulation.audit with privacy=none",
            allowed="privacy sample, site or both: an audit attacks a claim",
            next_step="privacy=sample, or simulation.audit.runs=0",
        )
    rounds = plan.rounds.count
    if plan.privacy.sample_level:
        return audit(plan.local, plan.privacy, rounds, asked, executor=executor).plain
    return sums.audit(plan.privacy, rounds, asked, executor=executor).plain


__all__ = ("Hostile", "audited")
