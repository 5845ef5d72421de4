"""What an instruction costs: charged before anything leaves, once, and only from what was reserved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedsite.client.ledger.budget import Budget
from fedsite.client.settings import DataSettings
from fedsite.client.work.worker_link import WorkerError
from fedsite.protocol import weights
from fedsite.protocol.errors import RefusalCode, StorageError
from fedsite.protocol.plan import PrivacyPlan
from fedsite.telemetry.errors import Code, TelemetryError


def test_a_new_attempt_gets_the_same_noised_values_and_pays_nothing(kit: Any) -> None:
    plan, handler = kit.centre.plan(), kit.handler()
    kit.answer(kit.centre.prepare(kit.site, plan), handler)
    first, second = kit.centre.train(kit.site, plan), kit.centre.train(kit.site, plan, attempt=2)
    one, two = handler.handle(first), handler.handle(second)
    assert one.blobs["sealed"] != two.blobs["sealed"]  # sealed anew
    values = [kit.centre.values(kit.site, *pair) for pair in ((one, first), (two, second))]
    assert values[0]["release"] == values[1]["release"]
    assert sum(spend.steps for spend in kit.spent() if spend.noise_multiplier == 2.0) == 3


def test_an_attempt_on_another_model_pays_again_and_only_from_what_was_reserved(kit: Any) -> None:
    plan, handler = kit.centre.plan(), kit.handler()
    kit.answer(kit.centre.prepare(kit.site, plan), handler)
    outcomes = []
    for attempt in (1, 2, 3, 4):
        model = weights.encode({"weight": np.full(3, attempt, np.float32)})
        outcomes.append(kit.answer(kit.centre.train(kit.site, plan, model=model, attempt=attempt), handler).code)
    assert outcomes == [None, None, None, RefusalCode.BUDGET]  # three rounds were reserved
    assert [operation for operation, _ in kit.worker.calls].count("train") == 3


def test_every_vector_that_leaves_is_charged_whatever_its_attempt_is_called(kit: Any) -> None:
    """Without a run key nothing leaves, so the attempt's number stays free: another vector must not pass for it."""
    plan, handler = kit.centre.plan(), kit.handler()
    kit.answer(kit.centre.prepare(kit.site, plan), handler)
    released = set()
    for number in range(5):
        model = weights.encode({"weight": np.full(3, number, np.float32)})
        kit.answer(kit.centre.train(kit.site, plan, model=model, run_key="", attempt=1), handler)
        asked = kit.centre.train(kit.site, plan, model=model, attempt=2 + number)
        reply = handler.handle(asked)
        if kit.centre.open(kit.site, reply, asked).outcome == "ok":
            released.add(float(kit.centre.values(kit.site, reply, asked)["release"][0]))
    steps = sum(spend.steps for spend in kit.spent() if spend.noise_multiplier == 2.0)
    assert steps == 3 * len(released) <= 9


def test_values_that_were_kept_and_not_charged_are_charged_before_they_leave(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = kit.centre.plan()
    kit.answer(kit.centre.prepare(kit.site, plan))
    asked = kit.centre.train(kit.site, plan)

    def killed(*arguments: Any) -> None:
        raise StorageError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Budget, "commit", killed)
        assert kit.answer(asked).outcome == "failed"
    assert not [spend for spend in kit.spent() if spend.noise_multiplier == 2.0]
    assert kit.answer(asked).outcome == "ok"
    assert [operation for operation, _ in kit.worker.calls].count("train") == 1
    assert sum(spend.steps for spend in kit.spent() if spend.noise_multiplier == 2.0) == 3


def test_a_graph_that_fails_can_be_asked_once(kit: Any) -> None:
    """Whether a graph of the centre's ends may depend on the data: such an answer is paid for like the counts."""
    privacy = PrivacyPlan(mode="sample", noise_multiplier=2.0, calibration_noise=5.0)
    plan, handler = kit.centre.plan(privacy=privacy), kit.handler()
    kit.worker.extra = [[5.0, 1.0, 1]]
    kit.answer(kit.centre.prepare(kit.site, plan), handler)
    kit.worker.failure = WorkerError("died")
    codes = [
        kit.answer(kit.centre.ask(kit.site, "calibrate", plan, {"graph": b"x"}, attempt=attempt), handler).code
        for attempt in (1, 1, 2)
    ]
    assert codes == [RefusalCode.INTERNAL, RefusalCode.BUDGET, RefusalCode.BUDGET]
    assert [operation for operation, _ in kit.worker.calls].count("calibrate") == 1


def test_a_run_goes_on_with_the_data_it_was_reserved_on(kit: Any) -> None:
    plan = kit.centre.plan()
    kit.answer(kit.centre.prepare(kit.site, plan))
    kit.settings = replace(kit.settings, data=DataSettings(path="/elsewhere"))
    kit.worker.calls.clear()
    assert kit.answer(kit.centre.train(kit.site, plan)).code == RefusalCode.WRONG_RUN
    assert not kit.worker.calls


def test_a_full_disk_after_the_charge_neither_sends_nor_charges_twice(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = kit.centre.plan()
    kit.answer(kit.centre.prepare(kit.site, plan))
    asked = kit.centre.train(kit.site, plan)
    from fedsite.protocol import kept

    def full(*arguments: Any, **named: Any) -> None:
        raise StorageError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(kept, "write_atomic", full)
        reply = kit.answer(asked)
        assert (reply.outcome, reply.code) == ("failed", RefusalCode.STORAGE)
    assert kit.answer(asked).outcome == "ok"
    assert sum(spend.steps for spend in kit.spent() if spend.noise_multiplier == 2.0) == 3


@pytest.mark.parametrize(
    ("failure", "outcome", "code"),
    [
        (WorkerError("died"), "failed", RefusalCode.INTERNAL),
        (ValueError("secret reading 17.3"), "failed", RefusalCode.INTERNAL),
        (WorkerError("x", refusal=RefusalCode.DATA_MISSING), "refused", RefusalCode.DATA_MISSING),
        (TelemetryError("x", code=Code.TOO_FEW), "refused", RefusalCode.TOO_FEW_WINDOWS),
        (TelemetryError("x", code=Code.RANGE), "refused", RefusalCode.DATA_CONTRACT),
    ],
)
def test_a_failing_worker_leaves_a_code_and_no_charge(kit: Any, failure: Exception, outcome: str, code: str) -> None:
    kit.worker.failure = failure
    asked = kit.centre.prepare(kit.site, kit.centre.plan())
    frame = kit.handler().handle(asked)
    reply = kit.centre.open(kit.site, frame, asked)
    assert (reply.outcome, reply.code) == (outcome, code)
    assert b"secret" not in frame.header
    assert kit.spent() == []
    # The reservation of a run that was never accepted is free again.
    kit.worker.failure = None
    assert kit.answer(kit.centre.prepare(kit.site, kit.centre.plan(), attempt=2)).outcome == "ok"


def test_a_damaged_budget_refuses_private_runs_and_nothing_else(kit: Any, not_private: dict[str, Any]) -> None:
    kit.budget_path.write_bytes(b"not a database, but as long as one" * 200)
    asked = kit.centre.prepare(kit.site, kit.centre.plan())
    assert kit.answer(asked).code == RefusalCode.BUDGET
    assert not kit.worker.touched_data
    open_site = kit.handler(require_privacy=False, minimum_protection="none")
    assert kit.answer(kit.centre.prepare(kit.site, kit.centre.plan(**not_private)), open_site).outcome == "ok"


def test_finish_gives_back_what_was_not_used_and_ends_the_run(kit: Any) -> None:
    plan, handler = kit.centre.plan(), kit.handler()
    kit.answer(kit.centre.prepare(kit.site, plan), handler)
    kit.answer(kit.centre.train(kit.site, plan), handler)
    finish = kit.centre.ask(kit.site, "finish", plan, round=3, body={"outcome": "completed"})
    assert kit.answer(finish, handler).outcome == "ok"
    assert kit.answer(finish, handler).outcome == "ok"  # asked again, answered again
    budget = Budget(kit.budget_path)
    (entry,) = budget.entries()
    assert entry.charged == entry.spent
    budget.close()
    assert kit.answer(kit.centre.train(kit.site, plan, round=2), handler).code == RefusalCode.REPLAYED
    assert kit.answer(kit.centre.prepare(kit.site, plan, attempt=2), handler).code == RefusalCode.REPLAYED


def test_every_calibration_that_fails_is_charged(kit: Any) -> None:
    """That a graph of the centre's does not end tells something of the data: each graph and each attempt anew."""
    plan = kit.centre.plan(
        privacy=PrivacyPlan(
            mode="sample", epsilon=4.0, noise_multiplier=2.0, calibration_noise=20.0, evaluation_noise=20.0
        )
    )
    kit.worker.extra = [[20.0, 1.0, 4]]  # calibration, and three evaluations with as much noise
    handler = kit.handler()
    assert kit.answer(kit.centre.prepare(kit.site, plan), handler).outcome == "ok"
    kit.worker.failure = WorkerError("killed")

    def failed(graph: bytes, attempt: int) -> RefusalCode | None:
        asked = kit.centre.ask(kit.site, "calibrate", plan, {"graph": graph}, attempt=attempt)
        code: RefusalCode | None = kit.answer(asked, handler).code
        return code

    codes = [failed(b"one", 1), failed(b"one", 2), failed(b"two", 2), failed(b"two", 3), failed(b"three", 4)]
    assert sum(spend.steps for spend in kit.spent()) == 4
    assert [code == RefusalCode.BUDGET for code in codes] == [False] * 4 + [True]
    assert [operation for operation, _ in kit.worker.calls].count("calibrate") == 4
