"""The data of all simulated sites as one array with offsets: memory-mapped where it is large, never copied by site."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedsite.protocol.errors import DataError
from fedsite.telemetry.dataset import Windows

_MAPPED: Final = 64 << 20  # bytes that may stay mapped


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """Normalised windows of all sites, one site after the other.

    Shapes: `x` [window, time, feature] float32; `y` [window] int64 (class) or [window, target] float32, or empty where
    the input is its own label; `offsets` [site + 1] int64: site s owns windows offsets[s] to offsets[s + 1];
    `entity` [window] int64, numbered within a site, or empty.
    """

    x: NDArray[np.float32]
    y: NDArray[np.generic]
    offsets: NDArray[np.int64]
    entity: NDArray[np.int64]
    folder: Path | None = None  # where the arrays are mapped from

    def __post_init__(self) -> None:
        ends = len(self.offsets) > 0 and self.offsets[0] == 0 and self.offsets[-1] == len(self.x)
        if not ends or (self.offsets[1:] < self.offsets[:-1]).any():
            raise DataError(
                f"offsets that do not cover {len(self.x)} windows", allowed="rising, from 0 to the number of windows"
            )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> NDArray[np.int64]:
        """Windows of each site, [site]."""
        return np.diff(self.offsets)

    def sizes(self, sites: NDArray[np.int64]) -> NDArray[np.int64]:
        """Windows of some sites, [C]: takes no time for the others."""
        found: NDArray[np.int64] = self.offsets[sites + 1] - self.offsets[sites]
        return found

    def forget(self) -> None:
        """Give mapped pages back, where they are many: whoever reads them again finds them in the system's cache.

        A kernel may map two megabytes around every window that is read, and keeps them mapped.
        """
        for array in (self.x, self.y, self.entity):
            mapped = getattr(array, "_mmap", None)
            if mapped is not None and array.nbytes > _MAPPED:
                mapped.madvise(mmap.MADV_DONTNEED)  # nothing here writes, so nothing is lost

    def targets(self, loss: str) -> NDArray[np.generic]:
        """What `loss` compares predictions with, by window: the labels, or the windows themselves."""
        return self.x if loss == "reconstruction" else self.y

    @classmethod
    def of(cls, sites: Sequence[Windows]) -> Population:
        """Join normalised windows, one element a site.

        Raises:
            DataError: there are no sites.
        """
        if not sites:
            raise DataError("a population of no sites", allowed="at least 1")
        ends = np.cumsum([0, *(len(site) for site in sites)], dtype=np.int64)
        y = np.concatenate([site.y for site in sites])
        return cls(
            x=np.ascontiguousarray(np.concatenate([site.x for site in sites]), np.float32),
            y=y if y.dtype.kind == "i" else y.astype(np.float32),
            offsets=ends,
            entity=np.concatenate([site.entity for site in sites]),
        )

    def save(self, folder: Path) -> None:
        """Write the arrays as `.npy` files, for `open`."""
        for name in ("x", "y", "offsets", "entity"):
            np.save(folder / f"{name}.npy", getattr(self, name), allow_pickle=False)

    @classmethod
    def open(cls, folder: Path) -> Population:
        """Map what `save` wrote; pages are read as sites are trained, and shared by all processes of a machine."""
        x, y, offsets, entity = (
            np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False)
            for name in ("x", "y", "offsets", "entity")
        )
        return cls(x=x, y=y, offsets=np.array(offsets), entity=entity, folder=folder)
