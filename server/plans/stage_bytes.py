"""Bytes of a round of secure aggregation, for one site and by stage, before anybody is asked.

Source: docs/protocol.md, secure aggregation; protocol.secagg.wire for what travels in each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedsite.protocol import certified, weights
from fedsite.protocol.keys import SIGNATURE_BYTES
from fedsite.protocol.plan import RoundPlan
from fedsite.protocol.secagg.advert import SIZE as ADVERT_BYTES
from fedsite.protocol.secagg.site import SHARE_BYTES
from fedsite.protocol.secagg.wire import OPENED_BYTES
from fedsite.server.rounds import evaluation
from fedsite.server.sums import fields
from fedsite.telemetry.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One message to a site, and its answer."""

    stage: str
    bytes_up: int
    bytes_down: int


def control(plan: RoundPlan, initial: weights.Arrays, trained: tuple[str, ...]) -> int:
    """What goes down beside the model, where sites correct their steps: one float32 for each trained parameter."""
    if not plan.strategy.control:
        return 0
    return len(weights.encode({name: initial[name].astype(np.float32) for name in trained}))


def of_round(
    plan: RoundPlan, task: Task, initial: weights.Arrays, trained: tuple[str, ...], *, sites: int, header: int
) -> tuple[Stage, ...]:
    """The stages of one round of training with an evaluation in it.

    Args:
        plan: whose cost may still be missing.
        task: its task.
        initial: all weights.
        trained: names of those that are trained.
        sites: in one sum.
        header: bytes of a message beside its blobs.
    """
    expected = fields.train_values(plan, task, initial, trained, evaluate=evaluation.evaluates(plan))
    terms = fields.manifest(plan, "train", expected)
    size = plan.protection.terms.size(sites)
    members, shares = -(-sites // 8), SHARE_BYTES * size.neighbours
    model, coming = len(weights.encode(initial)) + control(plan, initial, trained), len(terms.encode())
    signatures = SIGNATURE_BYTES * sites if size.confirm else 0
    found = [
        Stage(stage="advertise", bytes_up=ADVERT_BYTES, bytes_down=coming),
        Stage(stage="share", bytes_up=shares, bytes_down=(ADVERT_BYTES + certified.SIZE) * sites),
        Stage(stage="mask", bytes_up=4 * terms.words, bytes_down=model + members + shares),
        Stage(stage="confirm", bytes_up=SIGNATURE_BYTES, bytes_down=members),
        Stage(
            stage="unmask",
            bytes_up=OPENED_BYTES * (size.neighbours + 1) + ADVERT_BYTES,
            bytes_down=2 * members + signatures + coming,
        ),
    ]
    return tuple(
        Stage(stage=stage.stage, bytes_up=stage.bytes_up + header, bytes_down=stage.bytes_down + header)
        for stage in found
        if size.confirm or stage.stage != "confirm"
    )
