"""A run that a budget has reserved, for tests of what it counts and of its file."""

from __future__ import annotations

from fedsite.client.budget import Budget
from fedsite.privacy.accounting import Spend

STATISTICS = Spend(noise_multiplier=20.0, sampling_rate=1.0, steps=1)
ROUND = Spend(noise_multiplier=2.0, sampling_rate=0.1, steps=5)
RUN_COST = [STATISTICS, Spend(noise_multiplier=2.0, sampling_rate=0.1, steps=15)]
AT = "2026-03-01T12:00:00Z"


def reserve(
    budget: Budget,
    run: str = "run1",
    unit: str = "window",
    source: str = "/data.csv",
    task: str = "pump",
    plan: str = "p",
) -> None:
    budget.reserve(
        run_id=run,
        unit=unit,
        source=source,
        task=task,
        plan_hash=plan,
        spends=RUN_COST,
        epsilon=1.0,
        delta=1e-5,
        now=AT,
    )
