"""Dense stacks in compiled kernels, one site after the other with its weights in cache; needs the extra `fast`."""

from __future__ import annotations

import importlib.util


def obstacle(job: object, device: str) -> str | None:
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed (pip install 'fedsite[fast]')"
    return "not yet"


Compiled = None
