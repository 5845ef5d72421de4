"""Telemetry that needs no files: seeded generators by kind, and nothing but numpy."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from fedsite.telemetry import synthetic_pump, synthetic_ward
from fedsite.telemetry.errors import TelemetryError

SITES = 50  # that a generator is made for; each has a character of its own
KINDS = {"pump": synthetic_pump.rows, "ward": synthetic_ward.rows}


def generate(kind: str, site: int, seed: int) -> dict[str, NDArray[np.generic]]:
    """One site's readings as columns of equal length, the same for the same arguments.

    Args:
        kind: one of KINDS.
        site: the site's number, from 0.
        seed: of the whole plant; another seed is another plant.

    Raises:
        TelemetryError: unknown kind, or a negative site or seed.
    """
    if kind not in KINDS:
        raise TelemetryError(
            f"generator {kind!r} is unknown", allowed=", ".join(KINDS), next_step="edit data.generator in the task"
        )
    if site < 0 or seed < 0:
        raise TelemetryError(f"site {site} with seed {seed}", allowed="numbers from 0", next_step="data.site=0 seed=0")
    # Philox is counter-based: its stream is defined by the key alone, on every platform.
    key = np.random.SeedSequence([zlib.crc32(kind.encode()), site, seed])
    return KINDS[kind](site, np.random.Generator(np.random.Philox(key)))
