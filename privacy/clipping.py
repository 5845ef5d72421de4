"""Bounding what one record can contribute: L2 clipping of whole records."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedsite.privacy.errors import PrivacyError


def factors(norms: NDArray[np.floating], bound: float) -> NDArray[np.float64]:
    """What each record is multiplied by so that its norm is at most `bound`.

    A record whose norm is not finite (an overflowing gradient) gets 0: it must not decide anything. The margin of 2^-40
    keeps a product that rounds up below the bound.

    Raises:
        PrivacyError: the bound is not positive.
    """
    if not bound > 0.0:
        raise PrivacyError(f"clipping norm {bound}", allowed="above 0")
    exact = np.asarray(norms, dtype=np.float64)
    finite = np.isfinite(exact)
    scale = bound * (1.0 - 2.0**-40) / np.maximum(np.where(finite, exact, 1.0), bound)
    inside = finite & (exact <= bound * (1.0 - 2.0**-40))
    return np.where(finite, np.where(inside, 1.0, scale), 0.0)


def clip_rows(records: NDArray[np.floating], bound: float) -> NDArray[np.float64]:
    """Each row [records, coordinate] scaled to an L2 norm of at most `bound`; rows that are not finite become zero."""
    exact = np.asarray(records, dtype=np.float64)
    scale = factors(np.sqrt(np.einsum("rc,rc->r", exact, exact)), bound)
    return np.where(scale[:, None] > 0.0, np.where(np.isfinite(exact), exact, 0.0) * scale[:, None], 0.0)
