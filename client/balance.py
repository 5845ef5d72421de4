"""What each data source has been charged, as one ε per privacy unit, against the site's cap.

Counting takes seconds, and brings torch along. A figure depends on nothing but what was charged, δ and this version's
accounting, so it is kept under a hash of these: a kept figure is never out of date, only no longer asked for.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fedsite.client.health_checks import Balance
from fedsite.protocol import documents, storage
from fedsite.protocol.errors import FedsiteError
from fedsite.protocol.plan import SITE

if TYPE_CHECKING:
    from fedsite.client.budget import Budget
    from fedsite.privacy.accounting import Spend

FILE: Final = "epsilon.json"
SCHEMA: Final = "fedsite.epsilon-cache/1"
KEPT: Final = 64  # figures

Count = Callable[[Sequence["Spend"], float, str], float]


def count(spends: Sequence[Spend], delta: float, unit: str) -> float:
    """ε of one unit; noise in sums is accounted for by its own bound.

    Raises:
        PrivacyError: no accountant can answer. ImportError: none is installed.
    """
    from fedsite.privacy import accounting, distributed

    return distributed.equivalent_epsilon(spends, delta) if unit == SITE else accounting.epsilon(spends, delta)


def balances(
    budget: Budget, directory: Path, *, cap: float, delta: float, counting: Count | None = count
) -> list[Balance]:
    """Every unit of every data source in the budget, open reservations counted whole.

    Args:
        budget: of the site.
        directory: where figures are kept; a place that cannot be written is no reason to fail.
        cap: policy.epsilon_max.
        delta: policy.delta.
        counting: None: only figures that are kept are told.
    """
    entries = budget.entries()
    kept = _kept(directory)
    found = []
    wanted: dict[str, float] = {}
    for unit, source in sorted({(entry.unit, entry.source) for entry in entries}):
        spends = budget.charged(unit, source)
        key = _key(spends, delta, unit)
        epsilon = kept.get(key)
        if epsilon is None and counting is not None:
            with contextlib.suppress(ImportError, ValueError):
                epsilon = counting(spends, delta, unit)
        if epsilon is not None:
            wanted[key] = epsilon
        runs = len({entry.run_id for entry in entries if (entry.unit, entry.source) == (unit, source)})
        found.append(Balance(source=source, unit=unit, epsilon=epsilon, cap=cap, runs=runs))
    if not wanted.items() <= kept.items():
        _keep(directory, dict(list((kept | wanted).items())[-KEPT:]))
    return found


def _key(spends: Sequence[Spend], delta: float, unit: str) -> str:
    values = sorted([spend.noise_multiplier, spend.sampling_rate, spend.steps] for spend in spends)
    return documents.digest([metadata.version("fedsite"), unit, delta, values])


def _kept(directory: Path) -> dict[str, float]:
    """The figures of earlier days; a file that is none holds none."""
    try:
        found = documents.document(storage.read(directory / FILE), SCHEMA).get("epsilon")
    except FedsiteError:
        return {}
    values = found if isinstance(found, dict) else {}
    return {
        str(key): float(value)
        for key, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value) and value >= 0
    }


def _keep(directory: Path, values: dict[str, float]) -> None:
    with contextlib.suppress(FedsiteError):
        storage.write_atomic(directory / FILE, documents.canonical({"schema": SCHEMA, "epsilon": values}))
