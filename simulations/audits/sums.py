"""An audit of noise in sums (`privacy=site`): each canary is a site that sends its update, or zeros, by a coin.

Every site's update pulls along a coordinate of its own, beyond the clip, and from round to round the other way. The
sum is over just as many sites as the claim counts on, so that no surplus noise helps it. At real sites it is made by
what clips, rounds and noises there (client/work/noise.py), without the masks, which cancel in it; in the engine by its
executors and its own noise.

Source: canary clients, Andrew et al. 2024 (arXiv:2302.03098), section 3; scored and bounded as in canaries.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from fedsite.client.work import noise
from fedsite.models import sum_noise
from fedsite.privacy import distributed
from fedsite.privacy.accounting import Spend
from fedsite.privacy.sampling import SeededSource
from fedsite.protocol.errors import ConfigError
from fedsite.protocol.messages import DELTA
from fedsite.protocol.plan import SITE, LocalPlan, PrivacyPlan, ProtectionPlan
from fedsite.protocol.secagg.fixedpoint import Field
from fedsite.protocol.secagg.manifest import SITES_MAX, Manifest, Noise, Terms
from fedsite.simulations.audits import audit as sample
from fedsite.simulations.audits import canaries, sites, spec
from fedsite.simulations.audits.audit import Audited
from fedsite.simulations.audits.canaries import BIAS, WEIGHT, Bools, Floats, Game
from fedsite.simulations.audits.spec import AuditSpec
from fedsite.simulations.vectorised import choice, groups
from fedsite.simulations.vectorised.choice import AUTO
from fedsite.simulations.vectorised.executor import Order
from fedsite.simulations.vectorised.job import Job
from fedsite.simulations.vectorised.population import Population
from fedsite.simulations.vectorised.schedule import chunks
from fedsite.simulations.vectorised.sums import STEPS, Sum

_FAR: Final = 3.0  # a canary's update before clipping, in clips


def audit(
    privacy: PrivacyPlan,
    rounds: int,
    asked: AuditSpec,
    *,
    executor: str = AUTO,
    sources: sites.Sources | None = None,
) -> Audited:
    """Attack `rounds` sums over `asked.canaries` sites.

    Args:
        privacy: the claim per site, with its noise.
        rounds: of one run.
        asked: how many runs, of how many sites, and what makes the sums.
        executor: of the engine, where it is what trains.
        sources: randomness of each run at real sites; seeded unless given.

    Raises:
        ConfigError: there is no claim per site, or nothing to audit with.
    """
    if not privacy.site_level:
        raise ConfigError(f"an audit of sums with privacy {privacy.mode}", allowed="privacy site or both")
    if not asked.runs:
        raise ConfigError("an audit of 0 runs", allowed=f"simulation.audit.runs of at least {spec.LEAST}")
    if not 3 <= asked.canaries <= SITES_MAX:
        raise ConfigError(f"an audit of sums over {asked.canaries} sites", allowed=f"3 to {SITES_MAX}")
    alone = replace(privacy, mode="site")
    there = canaries.coins(asked.seed, asked.runs, asked.canaries)
    found = _attacked(alone, alone, rounds, there, asked, executor, sources)
    if not asked.control:
        return found
    half = replace(alone, site=replace(alone.site, noise_multiplier=alone.site.noise_multiplier / 2.0))
    weaker = _attacked(alone, half, rounds, there, asked, executor, sources)
    return dataclasses.replace(found, control=weaker.flagged)


def _attacked(
    claimed: PrivacyPlan,
    used: PrivacyPlan,
    rounds: int,
    there: Bools,
    asked: AuditSpec,
    executor: str,
    sources: sites.Sources | None,
) -> Audited:
    everyone = canaries.with_empty(there)
    protection = _protection(there.shape[1])
    game = _game(used, rounds, there.shape[1])
    if asked.path in (spec.AUTO, spec.ENGINE):
        deltas, path = _engine(game, protection, everyone, executor, asked.seed)
    else:
        deltas, path = _sites(game, protection, everyone, sources or _seeded(asked.seed)), "sites"
    claim = _claim(claimed, protection, rounds)
    return sample.conclude(game, deltas, there, asked, unit=SITE, path=path, delta=claimed.site.delta, claim=claim)


def _game(privacy: PrivacyPlan, rounds: int, count: int) -> Game:
    """One step on both of a site's windows, which moves its own weight by `_FAR` clips."""
    game = Game(local=LocalPlan(steps=1, sampling_rate=1.0), privacy=privacy, rounds=rounds, canaries=count)
    rate = min(1e3, 2.0 * _FAR * privacy.site.clip / game.pull**2)
    return replace(game, local=replace(game.local, learning_rate=rate))


def _protection(count: int) -> ProtectionPlan:
    """Sums over all of so many sites and no fewer."""
    return ProtectionPlan(mode="secagg", terms=Terms(min_cohort=count, min_survivors=count), sites=count)


def _sites(game: Game, protection: ProtectionPlan, there: Bools, sources: sites.Sources) -> Floats:
    """What each sum of each run adds to the model [run, R, M], as real sites make it."""
    site, size = game.privacy.site, game.canaries
    part = Noise(prefix=DELTA, mechanism=site.mechanism, clip=site.clip, multiplier=site.noise_multiplier)
    manifest = Manifest(
        purpose="train",
        plan_hash="00" * 32,
        sites=size,
        fields=(Field(name=f"{DELTA}{WEIGHT}", shape=(size,), bound=site.clip),),
        terms=protection.terms,
        noise=(part,),
    )
    scale = manifest.grid(part).scale
    found = np.zeros((len(there), game.rounds, size))
    for number, row in enumerate(there):
        source = sources(number)
        for place, sign in enumerate(game.signs):
            for canary in range(size):
                update = np.zeros(size)
                update[canary] = sign * _FAR * site.clip * row[canary]
                values = {f"{DELTA}{WEIGHT}": update}
                found[number, place] += noise.noised(values, manifest, source, simulated=True) / scale
    return found


def _engine(game: Game, protection: ProtectionPlan, there: Bools, executor: str, seed: int) -> tuple[Floats, str]:
    """The same by the engine."""
    size = game.canaries
    # One population of one site for each canary and its absence: only the cohort of a run tells the two apart.
    alone = np.concatenate([np.eye(size, dtype=np.bool_), np.zeros((size, size), np.bool_)])
    population = Population.of([game.windows(row) for row in alone])
    job = Job(
        model=sites.LAYER,
        time=1,
        features=size,
        outputs=1,
        loss="mse",
        local=game.local,
        privacy=game.privacy,
        protection=protection,
        seed=seed,
    )
    chosen = choice.choose(job, population, executor).executor
    found = np.empty((len(there), game.rounds, size))
    for place, sign in enumerate(game.signs):
        start = np.full((1, size), game.weight(sign), np.float32)
        order = Order(weights={WEIGHT: start, BIAS: np.zeros(1, np.float32)})
        for run in range(len(there)):
            total = Sum.empty(size + 1)
            cohort = np.where(there[run], np.arange(size), size + np.arange(size))
            for chunk in chunks(population, cohort, place + 1):
                chosen.update(order, chunk, total)
            groups.add_noise(job, total, place + 1, run)
            found[run, place] = total.total[:size] / STEPS
    return found, chosen.name


def _seeded(seed: int) -> sites.Sources:
    return lambda number: SeededSource((seed, 0xA0D175, number))


def _claim(privacy: PrivacyPlan, protection: ProtectionPlan, rounds: int) -> Callable[[float], float]:
    """Of these sums: like the plan's own, but for the number of coordinates, which hardly counts."""
    site = privacy.site
    multiplier = sum_noise.equivalent(privacy, protection, site.noise_multiplier, protection.sites)
    spend = Spend(noise_multiplier=multiplier, steps=rounds)
    return lambda delta: distributed.equivalent_epsilon([spend], delta)
