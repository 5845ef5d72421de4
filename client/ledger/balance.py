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
from typing import Final

from fedsite.client.health.checks import Balance
from fedsite.client.ledger import accounts as ledger
from fedsite.client.ledger.budget_entries import Entry
from fedsite.privacy.accounting import Spend, merged
from fedsite.protocol import documents, storage
from fedsite.protocol.errors import FedsiteError

FILE: Final = "epsilon.json"
SCHEMA: Final = "fedsite.epsilon-cache/1"
KEPT: Final = 64  # figures

Count = Callable[[Sequence[Spend], float, str], float]


def count(spends: Sequence[Spend], delta: float, unit: str) -> float:
    """ε of one unit.

    Raises:
        PrivacyError: no accountant can answer. ImportError: none is installed.
    """
    from fedsite.client.ledger import prices

    return prices.epsilon(spends, delta, unit)


def balances(
    entries: Sequence[Entry], directory: Path, *, cap: float, delta: float, counting: Count | None = count
) -> list[Balance]:
    """Every account of the ledger, as `fedsite privacy` tells them: open reservations count whole.

    Args:
        entries: of the budget.
        directory: where figures are kept; a place that cannot be written is no reason to fail.
        cap: policy.epsilon_max.
        delta: policy.delta.
        counting: None: only figures that are kept are told.
    """
    kept = _kept(directory)
    found = []
    wanted: dict[str, float] = {}
    for unit, source in ledger.keys(entries):
        runs = ledger.counted(unit, source, entries)
        spends = merged(spend for entry in runs for spend in entry.charged)
        key = _key(spends, delta, unit)
        epsilon = kept.get(key)
        if epsilon is None and counting is not None:
            with contextlib.suppress(ImportError, ValueError):
                epsilon = counting(spends, delta, unit)
        if epsilon is not None:
            wanted[key] = epsilon
        found.append(Balance(source=source, unit=unit, epsilon=epsilon, cap=cap, runs=len(runs)))
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
