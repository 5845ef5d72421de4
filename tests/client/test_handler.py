"""The order: signature, policy, budget, data, charge, store, answer; every hostile instruction meets a code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from fedsite.protocol import weights
from fedsite.protocol.errors import RefusalCode
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.messages import Frame, read_header, read_reply
from fedsite.protocol.plan import LocalPlan, PrivacyPlan, ProtectionPlan

OTHER_RUN = "01BX5ZZKBKACTAV9WEVGEMMVRZ"


def test_prepare_accepts_the_plan_and_says_nothing_of_the_data(kit: Any) -> None:
    asked = kit.centre.prepare(kit.site, kit.centre.plan())
    reply = kit.handler().handle(asked)
    header = kit.centre.open(kit.site, reply, asked)
    assert (header.outcome, header.code, header.body) == ("ok", None, {})
    assert not reply.blobs
    assert kit.spent() == []


def test_statistics_are_sealed_values_and_charged(kit: Any) -> None:
    plan, handler = kit.centre.plan(), kit.handler()
    asked = kit.centre.ask(kit.site, "statistics", plan)
    assert kit.answer(asked, handler).code == RefusalCode.PLAN_UNKNOWN
    kit.answer(kit.centre.prepare(kit.site, plan), handler)
    reply = handler.handle(asked)
    header = kit.centre.open(kit.site, reply, asked)
    assert (header.outcome, header.code, header.body) == ("ok", None, {})  # no number of windows in the clear
    assert set(reply.blobs) == {"sealed"}
    assert kit.centre.values(kit.site, reply, asked)["statistics/count"][0] == 7.0
    assert [(spend.noise_multiplier, spend.sampling_rate, spend.steps) for spend in kit.spent()] == [(10.0, 1.0, 1)]


def test_train_follows_prepare_and_is_charged_per_round(kit: Any) -> None:
    plan = kit.centre.plan()
    handler = kit.handler()
    assert kit.answer(kit.centre.prepare(kit.site, plan), handler).outcome == "ok"
    for number in (1, 2, 3):
        asked = kit.centre.train(kit.site, plan, round=number)
        reply = handler.handle(asked)
        assert kit.centre.open(kit.site, reply, asked).outcome == "ok"
        assert "delta/weight" in kit.centre.values(kit.site, reply, asked)
    assert (2.0, 0.1, 9) in [(spend.noise_multiplier, spend.sampling_rate, spend.steps) for spend in _merged(kit)]
    # Rounds the plan does not have.
    assert kit.answer(kit.centre.train(kit.site, plan, round=4), handler).code == RefusalCode.WRONG_RUN
    assert kit.answer(kit.centre.ask(kit.site, "statistics", plan, round=1), handler).code == RefusalCode.WRONG_RUN


def test_without_privacy_the_site_must_have_opted_in(kit: Any, not_private: dict[str, Any]) -> None:
    plan = kit.centre.plan(**not_private)
    asked = kit.centre.prepare(kit.site, plan, run_key="")
    assert kit.answer(asked, kit.handler(minimum_protection="none")).code == RefusalCode.POLICY
    assert kit.answer(asked, kit.handler(require_privacy=False)).code == RefusalCode.PROTECTION
    assert not kit.worker.touched_data
    reply = kit.answer(asked, kit.handler(require_privacy=False, minimum_protection="none"))
    assert (reply.outcome, reply.body) == ("ok", {})
    assert not kit.budget_path.exists()


def forged(kit: Any) -> Frame:
    frame = kit.centre.prepare(kit.site, kit.centre.plan())
    return replace(frame, signature=SigningKey.generate().sign(frame.header))


def of_another_federation(kit: Any) -> Frame:
    other = type(kit.centre)()
    return other.prepare(kit.site, other.plan())


def for_another_site(kit: Any) -> Frame:
    return kit.centre.prepare(kit.site, kit.centre.plan(), site_id=SigningKey.generate().public.id)


def expired(kit: Any) -> Frame:
    kit.now += timedelta(seconds=61)
    return kit.centre.prepare(kit.site, kit.centre.plan())


def altered_blob(kit: Any) -> Frame:
    frame = kit.centre.prepare(kit.site, kit.centre.plan())
    return replace(frame, blobs={"plan": frame.blobs["plan"] + b" "})


def of_another_run(kit: Any) -> Frame:
    return kit.centre.prepare(kit.site, kit.centre.plan(), run_id=OTHER_RUN)


def unknown_task(kit: Any) -> Frame:
    plan = kit.centre.plan()
    return kit.centre.prepare(kit.site, kit.centre.plan(task={**plan.task, "colour": "red"}))


def unprotected(kit: Any) -> Frame:
    return kit.centre.prepare(kit.site, kit.centre.plan(protection=ProtectionPlan(mode="none")))


def greedy(kit: Any) -> Frame:
    kit.worker.epsilon = 10.5
    return kit.centre.prepare(kit.site, kit.centre.plan())


def unbounded(kit: Any) -> Frame:
    kit.worker.epsilon = float("nan")
    return kit.centre.prepare(kit.site, kit.centre.plan())


def lying(kit: Any) -> Frame:
    kit.worker.claim = 4.1  # the plan claims 4
    return kit.centre.prepare(kit.site, kit.centre.plan())


def large_delta(kit: Any) -> Frame:
    privacy = PrivacyPlan(mode="sample", noise_multiplier=1.0, delta=1e-3)
    return kit.centre.prepare(kit.site, kit.centre.plan(privacy=privacy))


def endless(kit: Any) -> Frame:
    return kit.centre.prepare(kit.site, kit.centre.plan(local=LocalPlan(steps=200_000, sampling_rate=0.1)))


def unprepared(kit: Any) -> Frame:
    return kit.centre.train(kit.site, kit.centre.plan())


def not_a_header(kit: Any) -> Frame:
    from fedsite.protocol.encoding import enc

    data = b'{"schema": "fedsite.instruction/1"}'
    return Frame(header=data, signature=kit.centre.key.sign(enc("fedsite/sig/instruction/1", data)), blobs={})


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (forged, RefusalCode.SIGNATURE),
        (of_another_federation, RefusalCode.SIGNATURE),
        (for_another_site, RefusalCode.WRONG_SITE),
        (expired, RefusalCode.EXPIRED),
        (altered_blob, RefusalCode.MALFORMED),
        (of_another_run, RefusalCode.WRONG_RUN),
        (unknown_task, RefusalCode.TASK_UNSUPPORTED),
        (unprotected, RefusalCode.PROTECTION),
        (greedy, RefusalCode.BUDGET),
        (unbounded, RefusalCode.BUDGET),
        (lying, RefusalCode.PLAN_INVALID),
        (large_delta, RefusalCode.POLICY),
        (endless, RefusalCode.POLICY),
        (unprepared, RefusalCode.PLAN_UNKNOWN),
        (not_a_header, RefusalCode.MALFORMED),
    ],
)
def test_hostile_instructions_meet_a_code_before_data_is_read(
    kit: Any, make: Callable[[Any], Frame], code: RefusalCode
) -> None:
    frame = make(kit)
    reply = kit.handler().handle(frame)
    from fedsite.protocol.messages import read_reply

    header = read_reply(reply.header)
    assert (header.outcome, header.code) == ("refused", code)
    assert not header.body
    assert not reply.blobs
    assert not kit.worker.touched_data
    assert not kit.budget_path.exists() or kit.spent() == []


def test_an_oversized_instruction_is_refused_unread(kit: Any) -> None:
    frame = kit.centre.prepare(kit.site, kit.centre.plan())
    large = replace(frame, blobs={"plan": bytes(1 << 17)})
    assert kit.answer(large, kit.handler(bytes_max=1 << 16)).code == RefusalCode.TOO_LARGE


def test_a_task_that_the_policy_does_not_list(kit: Any) -> None:
    asked = kit.centre.prepare(kit.site, kit.centre.plan())
    assert kit.answer(asked, kit.handler(tasks=("ward",))).code == RefusalCode.POLICY
    assert kit.answer(asked, kit.handler(tasks=("pump",))).outcome == "ok"


def test_the_model_must_be_the_one_that_was_signed(kit: Any) -> None:
    plan, handler = kit.centre.plan(), kit.handler()
    kit.answer(kit.centre.prepare(kit.site, plan), handler)
    kit.worker.calls.clear()
    assert kit.answer(kit.centre.train(kit.site, plan, model_hash="0" * 64), handler).code == RefusalCode.MODEL_INVALID
    assert kit.answer(kit.centre.ask(kit.site, "train", plan), handler).code == RefusalCode.MALFORMED
    assert not kit.worker.calls


def test_what_reads_private_data_without_noise_is_refused(kit: Any) -> None:
    plan, handler = kit.centre.plan(), kit.handler()
    silent = kit.centre.plan(privacy=PrivacyPlan(mode="sample", noise_multiplier=2.0), run_id=OTHER_RUN)
    kit.answer(kit.centre.prepare(kit.site, plan), handler)
    kit.answer(kit.centre.prepare(kit.site, silent), handler)
    kit.worker.calls.clear()
    assert kit.answer(kit.centre.ask(kit.site, "statistics", silent), handler).code == RefusalCode.POLICY
    model = weights.encode({"w": np.zeros(1)})
    import hashlib

    digest = hashlib.sha256(model).hexdigest()
    asked = kit.centre.ask(kit.site, "evaluate", plan, {"model": model}, model_hash=digest)
    assert kit.answer(asked, handler).code == RefusalCode.POLICY
    assert kit.answer(kit.centre.ask(kit.site, "calibrate", plan, {"graph": b"x"}), handler).code == RefusalCode.POLICY
    assert not kit.worker.calls
    body = {"normalisation": {}, "evaluate": True}
    assert kit.answer(kit.centre.train(kit.site, plan, body=body), handler).outcome == "ok"
    assert kit.worker.calls[-1][1]["evaluate"] is False


def test_the_same_instruction_gets_the_same_bytes_also_from_another_process(kit: Any) -> None:
    plan = kit.centre.plan()
    kit.answer(kit.centre.prepare(kit.site, plan))
    asked = kit.centre.train(kit.site, plan)
    first = kit.handler().handle(asked)
    spent = kit.spent()
    assert kit.handler().handle(asked) == first
    assert kit.spent() == spent
    assert [operation for operation, _ in kit.worker.calls].count("train") == 1


def test_another_instruction_under_the_same_number_is_replayed(kit: Any) -> None:
    plan, handler = kit.centre.plan(), kit.handler()
    kit.answer(kit.centre.prepare(kit.site, plan), handler)
    kit.answer(kit.centre.train(kit.site, plan), handler)
    other = kit.centre.train(kit.site, plan, model=weights.encode({"weight": np.zeros(3, np.float32)}))
    assert kit.answer(other, handler).code == RefusalCode.REPLAYED


def test_a_policy_tightened_during_a_run_stops_it(kit: Any) -> None:
    plan = kit.centre.plan()
    kit.answer(kit.centre.prepare(kit.site, plan))
    assert kit.answer(kit.centre.train(kit.site, plan), kit.handler(tasks=())).code == RefusalCode.POLICY


def test_install_hands_over_to_the_slots(kit: Any) -> None:
    plan = kit.centre.plan()
    body = {"version": "1.0", "manifest_hash": "a" * 64}
    reply = kit.answer(kit.centre.ask(kit.site, "install", plan, body=body))
    assert (reply.outcome, reply.body) == ("ok", {"version": "1.0", "verified": True})
    assert kit.installed == [("1.0", "a" * 64)]
    assert kit.answer(kit.centre.ask(kit.site, "install", plan, round=2)).code == RefusalCode.MALFORMED


def test_the_time_a_worker_gets_is_what_the_instruction_has_left(kit: Any) -> None:
    seen: list[float] = []
    call = kit.worker.call
    kit.worker.call = lambda *given, timeout_s: (seen.append(timeout_s), call(*given, timeout_s=timeout_s))[1]
    kit.now += timedelta(seconds=50)
    asked = kit.centre.prepare(kit.site, kit.centre.plan())
    kit.answer(asked)
    assert read_header(asked.header).expires
    assert seen[-1] == 10.0


def _merged(kit: Any) -> Any:
    from fedsite.privacy.accounting import merged

    return merged(kit.spent())


def test_a_centre_two_formats_ahead_hears_so_about_the_very_instruction(kit: Any) -> None:
    """Its own format may be read there: then the code arrives, as the answer to what was asked."""
    plan = kit.centre.plan()
    asked = kit.centre.prepare(kit.site, plan, schema="fedsite.instruction/3")
    reply = read_reply(kit.handler().handle(asked).header)
    assert (reply.outcome, reply.code) == ("refused", RefusalCode.PROTOCOL_VERSION)
    assert (reply.run_id, reply.kind, reply.round, reply.attempt) == (plan.run_id, "prepare", 0, 1)
    assert not kit.worker.calls
