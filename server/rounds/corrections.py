"""What goes to sites beside the model where they correct their steps (SCAFFOLD), and which of their updates it holds.

A site moves its control variate with every update that it makes, and c follows from the updates that arrived. So each
instruction tells a site the last round whose update of it counted, and the site goes on from the variate of that round:
an update that was lost, came late, or was in a sum that nobody opened has then moved nothing, and c stays the mean of
the variates that sites go on from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from fedsite.protocol import weights
from fedsite.protocol.messages import CONTROL
from fedsite.protocol.plan import RoundPlan
from fedsite.server.rounds.session import RunEndedError
from fedsite.server.runs.record import Record
from fedsite.server.strategies.strategy import ServerState, Strategy


def carried(plan: RoundPlan, strategy: Strategy, state: ServerState, trained: Sequence[str]) -> dict[str, bytes]:
    """The blob of the trained parameters' corrections; none where the plan has none.

    Raises:
        RunEndedError: the strategy is not what it was when the plan was made, or a correction is not finite.
    """
    control = strategy.control(state)
    if (control is not None) != plan.strategy.control:
        reason = f"strategy {plan.strategy.name} of this server is another one than the plan was made with"
        raise RunEndedError("failed", reason)
    if control is None:
        return {}
    found = {name: np.asarray(control[name], np.float32) for name in trained}
    for name, value in found.items():
        if not np.isfinite(value).all():
            raise RunEndedError(
                "failed", f"the correction of {name} is not finite: a lower local.learning_rate may help"
            )
    return {CONTROL: weights.encode(found)}


def told(plan: RoundPlan, record: Record) -> dict[str, dict[str, Any]]:
    """By site id, what its instruction says of its own updates."""
    if not plan.strategy.control:
        return {}
    return {site_id: {CONTROL: site.counted} for site_id, site in record.sites.items()}


def count(plan: RoundPlan, record: Record, participants: Iterable[str], number: int) -> None:
    """Note whose updates are in the model that round `number` made."""
    if plan.strategy.control:
        for site_id in participants:
            record.sites[site_id].counted = number
