"""Which of the pooled windows lie at which site: indices and offsets, never an object for a window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Site s has the windows `rows[offsets[s]:offsets[s + 1]]`, in rising order.

    Shapes: `rows` [place] int64; `offsets` [site + 1] int64.
    """

    rows: Ints
    offsets: Ints

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> Ints:
        """Windows of each site, [site]."""
        return np.diff(self.offsets)

    @property
    def site(self) -> Ints:
        """Site of each place, [place]."""
        return np.repeat(np.arange(len(self)), self.counts)

    def at(self, site: int) -> Ints:
        """The windows of one site."""
        return self.rows[self.offsets[site] : self.offsets[site + 1]]

    def kept(self, there: NDArray[np.bool_]) -> Places:
        """Only the places where `there` [place] says so."""
        counts = np.bincount(self.site[there], minlength=len(self))
        return Places(rows=self.rows[there], offsets=ends(counts))

    def histogram(self, classes: Ints, count: int) -> Ints:
        """Windows of each site and class, [site, class]."""
        found = np.bincount(self.site * count + classes[self.rows], minlength=len(self) * count)
        return found.reshape(len(self), count)

    @classmethod
    def of(cls, rows: Ints, counts: Ints) -> Places:
        """Windows dealt to sites in order, `counts` [site] to each; sorted within each site."""
        span = int(rows.max(initial=0)) + 1
        ordered = np.sort(np.repeat(np.arange(len(counts)), counts) * span + rows)
        return cls(rows=ordered % span, offsets=ends(counts))

    @classmethod
    def joined(cls, parts: Sequence[int]) -> Places:
        """Sites of so many windows, one after the other."""
        counts = np.asarray(parts, np.int64)
        return cls(rows=np.arange(counts.sum(), dtype=np.int64), offsets=ends(counts))

    def repeated(self, sites: int) -> Places:
        """`sites` sites: the first ones, or, where there are fewer, all of them again and again."""
        chosen = np.arange(sites) % len(self)
        counts = self.counts[chosen]
        start = np.repeat(self.offsets[chosen], counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return Places(rows=self.rows[start + within], offsets=ends(counts))

    def spread(self, units: Places) -> Places:
        """Places of units made into places of the units' windows; `units` are sites of windows, as it were."""
        counts = units.counts[self.rows]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = units.rows[np.repeat(units.offsets[self.rows], counts) + within]
        total = np.bincount(self.site, weights=counts, minlength=len(self)).astype(np.int64)
        return Places.of(rows, total)


def ends(counts: Ints) -> Ints:
    """Offsets [site + 1] of so many windows at each site."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
