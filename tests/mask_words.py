"""A mask's stream by itself, as a vector of zeros shows it."""

from __future__ import annotations

import numpy as np

from fedsite.protocol.secagg import masking
from fedsite.protocol.secagg.masking import Mask, Ring, Stream


def words(seed: bytes, count: int, *, stream: Stream = "aes256ctr") -> Ring:
    """The first `count` words."""
    found = np.zeros(count, np.uint32)
    masking.apply(found, [Mask(seed)], stream=stream)
    return found
