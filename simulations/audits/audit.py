"""An audit: a plan's own training attacked with canaries, and what that shows beside what the plan claims.

It can disprove a claim, never prove one. That it could have noticed something is shown by a control: the same with half
the noise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fedsite.privacy import accounting
from fedsite.privacy.accounting import Spend
from fedsite.privacy.sampling import SeededSource, Source
from fedsite.protocol import shape
from fedsite.protocol.errors import ConfigError
from fedsite.protocol.plan import LocalPlan, PrivacyPlan
from fedsite.simulations.audits import bounds, canaries, sites, spec
from fedsite.simulations.audits.bounds import Point
from fedsite.simulations.audits.canaries import Bools, Floats, Game
from fedsite.simulations.audits.spec import AuditSpec
from fedsite.simulations.vectorised.choice import AUTO


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """A claim, and what was shown against it."""

    unit: str  # what is protected: window, entity or site
    path: str  # what was audited: formulas, hooks, or the name of an executor
    delta: float  # of the claim
    epsilon_claimed: float  # of all training steps together
    epsilon_lower: float  # disproved below this, at the same δ
    confidence: float
    runs: int
    canaries: int  # of all runs together
    guesses: int  # of the coins of half the runs
    right: int  # of these
    flagged: bool  # something is shown that the claim rules out
    points: tuple[Point, ...]  # of the claim's curve
    control: bool | None = None  # whether half the noise was flagged; None where it was not tried

    @property
    def plain(self) -> dict[str, Any]:
        """JSON value."""
        found: dict[str, Any] = shape.plain(self)
        return found

    def __str__(self) -> str:
        shown = f"ε ≤ {self.epsilon_claimed:.2f} claimed per {self.unit}, ε ≥ {self.epsilon_lower:.2f} shown"
        verdict = "the claim is FALSE" if self.flagged else "nothing speaks against the claim"
        power = {None: "", True: "; half the noise would be noticed", False: "; too weak to notice half the noise"}
        return f"{shown} at δ {self.delta:g} by {self.path}: {verdict}{'' if self.flagged else power[self.control]}"


def audit(
    local: LocalPlan,
    privacy: PrivacyPlan,
    rounds: int,
    asked: AuditSpec,
    *,
    executor: str = AUTO,
    sources: sites.Sources | None = None,
) -> Audited:
    """Attack `rounds` rounds of a site's training under `privacy`.

    Args:
        local: a round's steps.
        privacy: the claim, with its noise.
        rounds: of one training.
        asked: how many trainings and canaries, and what trains.
        executor: of the engine, where it is what trains.
        sources: randomness of each training at a site; seeded unless given.

    Raises:
        ConfigError: there is no claim per window or entity (for one per site: sums.audit), or nothing to audit with.
    """
    if not privacy.sample_level:
        raise ConfigError(
            f"an audit of privacy {privacy.mode}",
            allowed="privacy sample or both, for what a site's own steps release",
            next_step="leave simulation.audit.runs at 0",
        )
    if not asked.runs:
        raise ConfigError("an audit of 0 runs", allowed=f"simulation.audit.runs of at least {spec.LEAST}")
    game = Game.of(local, privacy, rounds, asked.canaries)
    there = canaries.coins(asked.seed, asked.runs, asked.canaries)
    found = _attacked(game, there, asked, executor, sources, privacy)
    if not asked.control:
        return found
    weaker = _attacked(sites.halved(game), there, asked, executor, sources, privacy)
    return dataclasses.replace(found, control=weaker.flagged)


def conclude(
    game: Game,
    deltas: Floats,
    there: Bools,
    asked: AuditSpec,
    *,
    unit: str,
    path: str,
    delta: float,
    claim: Callable[[float], float],
) -> Audited:
    """What the trainings show.

    Args:
        game: that was played.
        deltas: what rounds added in each training, the last without canaries [run + 1, R, M].
        there: which canaries were in the others [run, M].
        asked: with which confidence.
        unit: of the claim.
        path: what was audited.
        delta: of the claim.
        claim: ε promised at a δ.
    """
    scores = game.score(deltas)
    # Subtracting a training of the attacker's own leaves what differs, should the noise be the same in both.
    ways = [scores[:-1], scores[:-1] - scores[-1:]]
    curve, said = bounds.points(ways, there, delta, claim, asked.confidence)
    return Audited(
        unit=unit,
        path=path,
        delta=delta,
        epsilon_claimed=curve[0].claimed,
        epsilon_lower=curve[0].lower,
        confidence=asked.confidence,
        runs=len(there),
        canaries=there.size,
        guesses=said.guesses,
        right=said.right,
        flagged=any(point.lower > point.claimed for point in curve),
        points=curve,
    )


def _attacked(
    game: Game, there: Bools, asked: AuditSpec, executor: str, sources: sites.Sources | None, privacy: PrivacyPlan
) -> Audited:
    deltas, path = _deltas(game, there, asked, executor, sources)
    claim = _claim(privacy, game.local, game.rounds)
    return conclude(game, deltas, there, asked, unit=privacy.unit, path=path, delta=privacy.delta, claim=claim)


def _deltas(
    game: Game, there: Bools, asked: AuditSpec, executor: str, sources: sites.Sources | None
) -> tuple[Floats, str]:
    """Of all trainings, and of one more in which no canary is there: [run + 1, R, M]."""
    everyone = canaries.with_empty(there)
    if asked.path in (spec.AUTO, spec.ENGINE):
        return sites.engine(game, everyone, executor, asked.seed)
    return sites.production(game, everyone, asked.path, sources or _seeded(asked.seed)), asked.path


def _seeded(seed: int) -> Callable[[int], Source]:
    return lambda number: SeededSource((seed, 0xA0D17, number))


def _claim(privacy: PrivacyPlan, local: LocalPlan, rounds: int) -> Callable[[float], float]:
    spend = Spend(
        noise_multiplier=privacy.noise_multiplier, sampling_rate=local.sampling_rate, steps=local.steps * rounds
    )
    return lambda delta: accounting.epsilon([spend], delta, privacy.accountant)
