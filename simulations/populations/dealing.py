"""How a pool of units (windows or entities) is dealt to sites: evenly, by Dirichlet mixes, in shards, in skewed sizes.

Everything is an index array. Rules:
 1. The pool is dealt whole: every unit lies at exactly one site.
 2. Where `sites` times `minimum` units are more than there are, the pool is dealt several times, each time to other
    sites: a unit is at most once at a site, and at as many sites as there are deals.
 3. Within a deal, sites are of one size to a unit, but for `quantity`.

Source: McMahan et al. 2017, section 3 (shards); Hsu, Qi and Brown 2019, arXiv:1909.06335 (Dirichlet mixes); Sinkhorn
1964 (mixes fitted to what there is, in place of drawing until a class runs out).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsite.protocol.errors import ConfigError
from fedsite.simulations.populations.places import Ints, Places
from fedsite.simulations.populations.spec import PartitionSpec

FITTED = 50  # Sinkhorn iterations; what is still too much after them is moved unit by unit
_NOTHING = 1e-12  # share of a class that a mix without it has, so that mixes can be fitted
Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deals:
    """Sites in order, cut into deals of the same pool.

    Shapes: `first` [deal + 1] first site of each; `deal` [site] the deal of each site.
    """

    units: int  # in the pool
    first: Ints
    deal: Ints

    @classmethod
    def of(cls, units: int, sites: int, least: int) -> Deals:
        """As few deals as give every site `least` units.

        Raises:
            ConfigError: the whole pool is less than that.
        """
        if least > units:
            raise ConfigError(
                f"{least} units at every site, of {units} in all",
                allowed=f"at most {units}",
                next_step="a smaller simulation.partition.minimum or .labels, or partition.unit=window",
            )
        deals = max(1, -(-sites * least // units))
        while -(-sites // deals) * least > units:
            deals += 1
        first = np.arange(deals + 1) * sites // deals
        return cls(units=units, first=first, deal=np.repeat(np.arange(deals), np.diff(first)))

    def __len__(self) -> int:
        return len(self.first) - 1

    def sizes(self, shares: Reals, minimum: int) -> Ints:
        """Units of each site: the minimum, and of what is left a part like its share [site]."""
        ended = np.cumsum(shares)
        before = np.concatenate([[0.0], ended])[self.first]
        part = (ended - before[self.deal]) / (before[1:] - before[:-1])[self.deal]
        rest = self.units - np.diff(self.first) * minimum
        up_to = np.rint(part * rest[self.deal]).astype(np.int64)
        return _steps(up_to, self.first) + minimum

    def shuffled(self, rng: np.random.Generator) -> Ints:
        """The pool in another random order for each deal, one after the other."""
        return np.argsort(rng.random((len(self), self.units)), axis=1).reshape(-1)


def deal(spec: PartitionSpec, classes: Ints, count: int, sites: int, rng: np.random.Generator) -> Places:
    """Deal units of these `classes` [unit], of `count` classes, to so many sites.

    Raises:
        ConfigError: not enough units for every site's minimum.
    """
    if spec.kind == "shards":
        return shards(classes, sites, spec.labels, spec.minimum, rng)
    deals = Deals.of(len(classes), sites, spec.minimum)
    if spec.kind == "quantity":
        lognormal = spec.sizes == "lognormal"
        logs = spec.sigma * rng.normal(size=sites) if lognormal else _log_gammas(np.full(sites, spec.alpha), rng)
        shares = np.exp(logs - np.maximum.reduceat(logs, deals.first[:-1])[deals.deal])
        return Places.of(deals.shuffled(rng), deals.sizes(shares, spec.minimum))
    sizes = deals.sizes(np.ones(sites), 0)
    if spec.kind == "dirichlet":
        mixes = dirichlet_mixes(spec.alpha, np.bincount(classes, minlength=count) / len(classes), sites, rng)
        return composed(mixes, sizes, classes, deals, rng)
    return Places.of(deals.shuffled(rng), sizes)


def dirichlet_mixes(alpha: float, prior: Reals, sites: int, rng: np.random.Generator) -> Reals:
    """One draw of Dir(α K p) for each site, [site, class]: the mean is p, and of K equal classes each counts α.

    So comparisons in the literature count; in the paper's own Dir(α p) the same skew has an α that is K times as large.
    """
    there = prior > 0
    kinds = int(there.sum())
    found = np.zeros((sites, len(prior)))
    found[:, there] = _dirichlet(np.broadcast_to(alpha * kinds * prior[there], (sites, kinds)), rng)
    return found


def shards(classes: Ints, sites: int, each: int, minimum: int, rng: np.random.Generator) -> Places:
    """Sort by class, cut into `sites` times `each` shards of one size, deal `each` of them at random to every site."""
    deals = Deals.of(len(classes), sites, max(each, minimum))
    units = _sorted_by_class(classes, deals, rng)
    number = np.repeat(deals.deal, each)  # the deal of each shard
    first = deals.first * each
    within = np.arange(len(number)) - first[number]
    many = np.diff(first)[number]
    begin = (deals.units * within // many) + number * deals.units
    size = deals.units * (within + 1) // many - deals.units * within // many
    order = np.lexsort((rng.random(len(number)), number))  # shards in random order within each deal
    counts = size[order]
    inside = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = units[np.repeat(begin[order], counts) + inside]
    return Places.of(rows, counts.reshape(sites, each).sum(axis=1))


def composed(mixes: Reals, sizes: Ints, classes: Ints, deals: Deals, rng: np.random.Generator) -> Places:
    """Sites of these sizes whose mixes of classes are as near to `mixes` [site, class] as the pool allows.

    Mixes are scaled, class by class, until all classes are used up (Sinkhorn), and rounded at random without bias.
    """
    count = mixes.shape[1]
    have = np.tile(np.bincount(classes, minlength=count), len(deals))
    slots = _rounded(_fitted(mixes, sizes, classes, deals), sizes, rng)
    wanted = np.repeat(np.arange(slots.size, dtype=np.int64) % count, slots.ravel())
    wanted += np.repeat(deals.deal * count, sizes)  # a class of one deal
    asked = np.bincount(wanted, minlength=len(have))
    order = np.argsort(wanted + rng.random(len(wanted)))
    rank = np.arange(len(wanted)) - np.repeat(np.cumsum(asked) - asked, asked)
    over = order[rank >= have[wanted[order]]]
    over = over[np.lexsort((rng.random(len(over)), wanted[over] // count))]
    wanted[over] = np.repeat(np.arange(len(have)), np.maximum(have - asked, 0))
    rows = np.empty(len(wanted), np.int64)
    rows[np.argsort(wanted, kind="stable")] = _sorted_by_class(classes, deals, rng)
    return Places.of(rows, sizes)


def shared_out(mixes: Ints, classes: Ints, rng: np.random.Generator) -> Places:
    """Units of each class at the sites in proportion to their `mixes` [site, class], rounded at random without bias.

    A class that no site has goes to all of them, by size.
    """
    sites, count = mixes.shape
    have = np.bincount(classes, minlength=count)
    shares = np.where(mixes.sum(axis=0) > 0, mixes, mixes.sum(axis=1, keepdims=True)).T
    slots = _rounded(shares / shares.sum(axis=1, keepdims=True) * have[:, None], have, rng)
    site = np.repeat(np.arange(slots.size, dtype=np.int64) % sites, slots.ravel())
    rows = np.argsort(classes + rng.random(len(classes)))
    return Places.of(rows[np.argsort(site, kind="stable")], np.bincount(site, minlength=sites))


def _fitted(mixes: Reals, sizes: Ints, classes: Ints, deals: Deals) -> Reals:
    """`mixes` scaled to rows of `sizes` and, in each deal, columns of what there is of each class."""
    target = np.bincount(classes, minlength=mixes.shape[1]).astype(np.float64)
    found = np.where(target > 0, np.maximum(mixes, _NOTHING), 0.0)
    for _ in range(FITTED):
        total = np.add.reduceat(found, deals.first[:-1], axis=0)
        found *= np.divide(target, total, out=np.zeros_like(total), where=total > 0)[deals.deal]
        found *= (sizes / np.maximum(found.sum(axis=1), 1e-300))[:, None]
    return found


def _rounded(amounts: Reals, sizes: Ints, rng: np.random.Generator) -> Ints:
    """Whole numbers that are `amounts` in the mean, in rows of exactly `sizes`."""
    up_to = np.cumsum(amounts, axis=1)
    up_to[:, -1] = sizes
    np.minimum(up_to, sizes[:, None], out=up_to)
    whole: Ints = np.floor(up_to + rng.random((len(sizes), 1))).astype(np.int64)
    whole[:, 1:] -= whole[:, :-1].copy()
    return whole


def _sorted_by_class(classes: Ints, deals: Deals, rng: np.random.Generator) -> Ints:
    """The pool of each deal by class, in random order within a class; one deal after the other."""
    return np.argsort(classes + rng.random((len(deals), len(classes))), axis=1).reshape(-1)


def _dirichlet(concentration: Reals, rng: np.random.Generator) -> Reals:
    """Of the last axis."""
    logs = _log_gammas(concentration, rng)
    found = np.exp(logs - logs.max(axis=-1, keepdims=True))
    return np.asarray(found / found.sum(axis=-1, keepdims=True))


def _log_gammas(shape: Reals, rng: np.random.Generator) -> Reals:
    """ln of Γ(a) draws, as ln Γ(a + 1) + ln U / a: small a end below any float otherwise."""
    return np.asarray(np.log(rng.standard_gamma(shape + 1.0)) + np.log(1.0 - rng.random(shape.shape)) / shape)


def _steps(up_to: Ints, first: Ints) -> Ints:
    """Differences that start again at each of `first`."""
    before = np.concatenate([[0], up_to[:-1]])
    before[first[:-1]] = 0
    return up_to - before
