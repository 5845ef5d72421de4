"""A site's part of the noise in a sum: its values clipped as one vector, rounded to the grid, and noised in grid steps.

What leaves here is hidden in the sum only: each site adds variance μ / honest (protocol.secagg.manifest.Noise), far too
little for its own values. That is why nothing of it travels but under masks.

Source: Agarwal, Kairouz and Liu 2021, "The Skellam Mechanism for Differentially Private Federated Learning".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from fedsite.privacy import distributed, integer_noise, sampling
from fedsite.privacy.sampling import Source, SystemRandom
from fedsite.protocol.secagg import fixedpoint, masking
from fedsite.protocol.secagg.manifest import Manifest, Noise
from fedsite.protocol.secagg.masking import BLOCK, SEED_BYTES, Mask

CLIP_SLACK = 1e-12  # relative: what the arithmetic of clipping may round up


def noised(
    values: Mapping[str, NDArray[np.generic]], manifest: Manifest, source: Source, *, simulated: bool = False
) -> NDArray[np.int64]:
    """All values in the order of the manifest's fields, [word], each part of the noise over its own fields.

    Args:
        values: by name, each in its field's shape.
        manifest: with noise over every field.
        source: the site's randomness.
        simulated: allows a seeded source; never set at a real site.

    Raises:
        IntegrityError: an array is missing or has another shape than its field.
        PrivacyError: a seeded source.
    """
    if not simulated:
        sampling.require_secure(source)
    found: dict[str, NDArray[np.int64]] = {}
    for part in manifest.noise:
        fields = [field for field in manifest.fields if field.name.startswith(part.prefix)]
        arrays = [fixedpoint.value_of(field, values) for field in fields]
        flat = np.concatenate([np.asarray(array, np.float64).ravel() for array in arrays])
        steps = _steps(flat, manifest, part, source)
        ends = np.cumsum([field.size for field in fields])[:-1]
        found |= dict(zip((field.name for field in fields), np.split(steps, ends), strict=True))
    return np.concatenate([found[field.name] for field in manifest.fields])


def clipped(values: NDArray[np.float64], bound: float) -> NDArray[np.float64]:
    """`values` [coordinate] scaled down to an L2 norm of at most `bound`; what is no number counts as 0."""
    values = np.where(np.isfinite(values), values, 0.0)
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0.0:
        return values
    norm = largest * float(np.linalg.norm(values / largest))  # squares of large values would overflow
    return values * min(1.0, bound / norm * (1.0 - CLIP_SLACK))


def keystream(random: Callable[[int], bytes] = os.urandom) -> SystemRandom:
    """The site's generator for much noise: AES-256-CTR under a key of the operating system's, used this once."""
    seed, block = random(SEED_BYTES), 0

    def read(size: int) -> bytes:
        nonlocal block
        words = np.zeros(-(-size // 4), np.uint32)
        masking.apply(words, [Mask(seed)], first_block=block)
        block += -(-len(words) // BLOCK)
        return words.tobytes()[:size]

    return SystemRandom(read)


def _steps(values: NDArray[np.float64], manifest: Manifest, part: Noise, source: Source) -> NDArray[np.int64]:
    grid = manifest.grid(part)
    norm = distributed.rounded_norm(part.clip, grid.scale, values.size)
    rounded = distributed.round_conditionally(clipped(values, part.clip) * grid.scale, norm, source)
    return rounded + integer_noise.table(part.mechanism, grid.variance).draw(values.size, source)
