"""How different simulated sites are, in figures: labels, sizes, and which entities lie at several of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedsite.simulations.populations.places import Ints
from fedsite.simulations.populations.sites import Sites


@dataclass(frozen=True, slots=True, kw_only=True)
class Heterogeneity:
    """Of the training windows, in the phase that was measured."""

    sites: int
    windows: int  # of all sites; a window counts at each site where it lies
    smallest: int
    median: float
    largest: int
    by: str  # what classes are: label, label bins, entity, cluster
    classes: int
    classes_per_site: float  # mean
    distance: float  # mean over sites of the total variation distance of their mix of classes to the pooled one, 0 to 1
    gini: float  # of the sites' sizes: 0 all equal, towards 1 one has all
    deals: int  # sites at which a window lies at most
    split_entities: int  # entities whose windows lie at several sites of one deal: their privacy is that of the parts


def measure(sites: Sites) -> Heterogeneity:
    """The figures of the sites as they are in their phase."""
    counts = sites.train.counts
    mixes = sites.train.histogram(sites.classes.train, sites.classes.count)
    return Heterogeneity(
        sites=len(sites),
        windows=int(counts.sum()),
        smallest=int(counts.min()),
        median=float(np.median(counts)),
        largest=int(counts.max()),
        by=sites.classes.by,
        classes=sites.classes.count,
        classes_per_site=float((mixes > 0).sum(axis=1).mean()),
        distance=distance(mixes),
        gini=gini(counts),
        deals=sites.deals,
        split_entities=_split(sites),
    )


def distance(mixes: Ints) -> float:
    """Mean total variation distance of the rows of `mixes` [site, class] to their sum, each as shares."""
    own = mixes / np.maximum(mixes.sum(axis=1, keepdims=True), 1)
    pooled = mixes.sum(axis=0) / max(int(mixes.sum()), 1)
    return float(0.5 * np.abs(own - pooled).sum(axis=1).mean())


def gini(sizes: Ints) -> float:
    """Mean absolute difference of two sizes over twice their mean."""
    ordered, count = np.sort(sizes), len(sizes)
    if not ordered.sum():
        return 0.0
    return float(((2 * np.arange(1, count + 1) - count - 1) * ordered).sum() / (count * ordered.sum()))


def _split(sites: Sites) -> int:
    """Entities with windows at more sites than there are deals."""
    entity, places = sites.pooled.train.entity, sites.first[0]
    pairs = np.unique(places.site * (int(entity.max()) + 1) + entity[places.rows])
    return int((np.bincount(pairs % (int(entity.max()) + 1)) > sites.deals).sum())
