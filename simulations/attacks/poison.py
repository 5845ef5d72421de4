"""Sites that poison: what is different in their data, and what their updates are multiplied by.

Attackers on data (label flip, backdoor, noise) train as everybody does on rows that were changed; attackers on updates
(sign flip, scaled, free rider) change what they send after their own clipping, which nobody can check. A backdoor does
both: its update is scaled up so that it outlives the average ("model replacement").

Source: Bagdasaryan et al. 2020 (arXiv:1807.00459), section 3; label flips, Tolpegin et al. 2020 (arXiv:2007.08432);
sign flips, Li et al. 2019 (arXiv:1811.03761), section 5; free riders, Lin et al. 2019 (arXiv:1911.12560).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedsite.protocol.errors import ConfigError
from fedsite.simulations.attacks import spec as kinds
from fedsite.simulations.attacks.spec import AttackSpec, Trigger
from fedsite.simulations.vectorised.population import Population

_DRAW = 0xA77AC  # keeps what attackers draw apart from other streams of a seed
_ON_LABELS = (kinds.LABEL_FLIP, kinds.BACKDOOR)
_ON_INPUTS = (kinds.BACKDOOR, kinds.RANDOM)


@dataclass(frozen=True, slots=True, kw_only=True)
class Poisoned:
    """A population with attackers in it."""

    population: Population  # honest sites' rows are those that were given
    gains: NDArray[np.float32] | None  # [site], what updates are multiplied by; None: all by 1
    sites: NDArray[np.int64]  # the attackers, rising


def poison(population: Population, spec: AttackSpec, seed: int) -> Poisoned:
    """Let a share of the sites attack; the same ones for the same seed and number of sites.

    Args:
        population: everybody's normalised windows; not changed.
        spec: who attacks, and how.
        seed: draws the attackers and their windows.

    Raises:
        ConfigError: labels are attacked where there are none, a class is meant where labels are values, or a trigger
            is larger than a window.
    """
    if spec.kind == kinds.NONE:
        return Poisoned(population=population, gains=None, sites=np.zeros(0, np.int64))
    sites = attackers(len(population), spec.share, seed)
    if spec.kind in _ON_LABELS:
        check_labels(population.y, spec)
    if spec.kind in (*_ON_LABELS, *_ON_INPUTS):
        population = _changed(population, spec, sites, seed)
    return Poisoned(population=population, gains=_gains(len(population), spec, sites), sites=sites)


def attackers(sites: int, share: float, seed: int) -> NDArray[np.int64]:
    """So many of the sites, at least one, rising."""
    count = min(sites, max(1, round(share * sites)))
    return np.sort(_generator(seed, 0).permutation(sites)[:count]).astype(np.int64)


def triggered(x: NDArray[np.float32], trigger: Trigger) -> NDArray[np.float32]:
    """The windows [window, time, feature] with the pattern in them; a copy.

    Raises:
        ConfigError: the pattern is larger than a window.
    """
    if trigger.steps > x.shape[1] or trigger.features > x.shape[2]:
        raise ConfigError(
            f"a trigger of {trigger.steps} readings of {trigger.features} channels",
            allowed=f"at most {x.shape[1]} readings of {x.shape[2]} channels, as in a window",
            next_step="simulation.attack.trigger.steps=1 simulation.attack.trigger.features=1",
        )
    found = np.array(x)
    found[:, x.shape[1] - trigger.steps :, : trigger.features] = trigger.value
    return found


def check_labels(y: NDArray[np.generic], spec: AttackSpec) -> None:
    """Refuse an attack on labels that these labels cannot have.

    Raises:
        ConfigError: there are no labels, or `source` and `target` are not classes of theirs.
    """
    if not len(y):
        raise ConfigError(
            f"simulation.attack.kind is {spec.kind!r} in a task without labels",
            allowed=", ".join(kind for kind in kinds.KINDS if kind not in _ON_LABELS),
        )
    if y.dtype.kind == "i":
        classes = int(np.max(y)) + 1
        if spec.target != int(spec.target) or not 0 <= spec.target < classes or spec.source >= classes:
            raise ConfigError(
                f"an attack from class {spec.source} to class {spec.target:g}",
                allowed=f"classes 0 to {classes - 1}, and -1 for all of them as source",
            )
    elif spec.source != kinds.EVERY:
        raise ConfigError(
            f"simulation.attack.source is {spec.source} where labels are values",
            allowed="-1: all labels are turned into simulation.attack.target",
        )


def _changed(population: Population, spec: AttackSpec, sites: NDArray[np.int64], seed: int) -> Population:
    """Copies of the arrays that change; of mapped ones only the pages that are written take memory."""
    x = population.x
    if spec.kind in _ON_INPUTS:
        x = _writable(population, "x").astype(np.float32, copy=False)
    y = _writable(population, "y") if spec.kind in _ON_LABELS else population.y
    for site in sites.tolist():
        own = slice(int(population.offsets[site]), int(population.offsets[site + 1]))
        draws, size = _generator(seed, 1 + site), own.stop - own.start
        if spec.kind == kinds.RANDOM:
            x[own] = draws.standard_normal(x[own].shape, np.float32)
        elif spec.kind == kinds.LABEL_FLIP:
            flipped = np.arange(size) if spec.source == kinds.EVERY else np.flatnonzero(y[own] == spec.source)
            y[own.start + flipped] = np.asarray(spec.target, y.dtype)
        else:
            marked = own.start + np.flatnonzero(draws.random(size) < spec.fraction)
            x[marked] = triggered(x[marked], spec.trigger)
            y[marked] = np.asarray(spec.target, y.dtype)
    return replace(population, x=x, y=y, folder=None)  # its files hold what was there before


def _gains(count: int, spec: AttackSpec, sites: NDArray[np.int64]) -> NDArray[np.float32] | None:
    factor = {kinds.SIGN_FLIP: -spec.scale, kinds.FREE_RIDER: 0.0}.get(spec.kind, spec.scale)
    if factor == 1.0:
        return None
    gains = np.ones(count, np.float32)
    gains[sites] = factor
    return gains


def _writable(population: Population, name: str) -> NDArray[np.generic]:
    array: NDArray[np.generic] = getattr(population, name)
    if population.folder is None:
        return np.array(array)
    return np.load(population.folder / f"{name}.npy", mmap_mode="c", allow_pickle=False)


def _generator(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((_DRAW, seed, stream))))
