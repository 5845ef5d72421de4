"""SCAFFOLD's control variates of all sites of a population: one row a site, in a sparse file that processes map.

A row that nobody has written reads as zeros and takes no disk; only the rows of one chunk are in memory. Two chunks of
a round never hold the same site, so that processes write side by side without a lock.

Source: Karimireddy et al., "SCAFFOLD", ICML 2020 (arXiv:1910.06378), algorithm 1: the c_i.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsite.protocol.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """Where the rows are. [site, number] float32, numbers in the order of the job's `Layout`."""

    path: Path
    sites: int
    numbers: int

    @classmethod
    def create(cls, path: Path, sites: int, numbers: int) -> Controls:
        """A new file of zeros.

        Raises:
            ConfigError: there is a file of that name, or the folder cannot be written.
        """
        try:
            with path.open("xb") as file:
                file.truncate(4 * sites * numbers)
        except OSError as error:
            raise ConfigError(
                f"control variates cannot be kept in {path} ({error.strerror})",
                allowed=f"a folder that can be written, with room for {4 * numbers} bytes of every site that trains",
            ) from None
        return cls(path=path, sites=sites, numbers=numbers)

    def rows(self, sites: NDArray[np.int64]) -> NDArray[np.float32]:
        """Copies of these sites' rows [C, number]; zeros for a site that has not trained yet."""
        return np.array(self._mapped("r")[sites])

    def write(self, sites: NDArray[np.int64], rows: NDArray[np.float32]) -> None:
        """Keep new rows of these sites."""
        self._mapped("r+")[sites] = rows

    def _mapped(self, mode: str) -> NDArray[np.float32]:
        # Mapped anew each time: pages that were touched do not pile up in the process.
        return np.memmap(self.path, np.float32, mode, shape=(self.sites, self.numbers))  # type: ignore[call-overload]
