"""What a hostile centre asks of a site, and the code it gets: at the gate, by its price, and in an accepted run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple

import numpy as np

from fedsite.protocol import documents, ids, instants, shape, signing, weights
from fedsite.protocol.errors import RefusalCode
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.messages import MAX_HEADER, Frame, read_header
from fedsite.protocol.plan import LocalPlan, ModelPlan, PrivacyPlan, ProtectionPlan, RoundPlan, RoundsPlan, StrategyPlan
from fedsite.protocol.secagg.manifest import Terms
from tests.e2e.hostile_centre import Centre, privacy


class Case(NamedTuple):
    """Something a centre asks."""

    ask: Callable[[Centre], Frame]
    code: RefusalCode
    why: str = ""  # words in the site's own log: which rule it was


def of(**changes: Any) -> Callable[[Centre], Frame]:
    """A run that is like an honest one but for this part of its plan."""
    return lambda centre: centre.prepare(centre.plan(**changes))


def says(**changes: Any) -> Callable[[Centre], Frame]:
    """An honest plan under a header that says something else."""
    return lambda centre: centre.prepare(**changes)


def begins(kind: str, *names: str, **changes: Any) -> Callable[[Centre], Frame]:
    """Work of a run that this site never agreed to."""
    return lambda centre: centre.ask(kind, centre.plan(), dict.fromkeys(names, b"x"), **changes)


def signed_by_another(centre: Centre) -> Frame:
    honest = centre.prepare()
    return signing.sign_instruction(read_header(honest.header), honest.blobs, SigningKey.generate())


def altered_header(centre: Centre) -> Frame:
    honest = centre.prepare()
    return replace(honest, header=honest.header.replace(b'"attempt":1', b'"attempt":2'))


def altered_plan(centre: Centre) -> Frame:
    return replace(centre.prepare(), blobs={"plan": centre.plan(seed=9).encode()})


def of_another_federation(centre: Centre) -> Frame:
    other = SigningKey.generate()
    plan = centre.plan(federation=other.public.id)
    return signing.sign_instruction(read_header(centre.prepare(plan).header), {"plan": plan.encode()}, other)


def in_another_name(centre: Centre) -> Frame:
    return centre.prepare(centre.plan(federation=SigningKey.generate().public.id))


def carries_anothers_plan(centre: Centre) -> Frame:
    plan = centre.plan(federation=SigningKey.generate().public.id)
    return centre.prepare(plan, federation=centre.site.federation.id)


def expired(centre: Centre) -> Frame:
    return centre.prepare(expires=instants.text(instants.now() - timedelta(seconds=1)))


def two_formats_ahead(centre: Centre) -> Frame:
    header = documents.parse(centre.prepare().header, limit=MAX_HEADER)
    return centre.sign(documents.canonical({**header, "schema": "fedsite.instruction/9"}))


def no_instruction(centre: Centre) -> Frame:
    return centre.sign(b'{"schema": "fedsite.instruction/1"}')


def with_a_path_for_a_run(centre: Centre) -> Frame:
    header = documents.parse(centre.prepare().header, limit=MAX_HEADER)
    return centre.sign(documents.canonical({**header, "run_id": "../../identity"}))


def not_a_plan(centre: Centre) -> Frame:
    return centre.ask("prepare", centre.plan(), {"plan": b'{"schema": "fedsite.plan/1"}'})


def sums_over_one(centre: Centre) -> Frame:
    # No library of ours would write such a plan.
    plan = centre.plan(protection=ProtectionPlan())
    document = shape.plain(plan)
    document["protection"]["terms"] |= {"min_cohort": 1, "min_survivors": 1}
    data = documents.canonical(document)
    return centre.ask("prepare", plan, {"plan": data}, plan_hash=hashlib.sha256(data).hexdigest())


def of_another_task(centre: Centre) -> Frame:
    return centre.prepare(centre.plan(task={**centre.task, "name": "ward"}))


def of_no_task(centre: Centre) -> Frame:
    return centre.prepare(centre.plan(task={**centre.task, "colour": "red"}))


def of_300_kilobytes(centre: Centre) -> Frame:
    return centre.ask("prepare", centre.plan(), {"plan": b" " * 300_000})


def with_a_header_of_300_kilobytes(centre: Centre) -> Frame:
    return centre.prepare(body={"normalisation": "x" * 300_000})


CODE = RefusalCode
AT_THE_GATE = {
    "signed by another key": Case(signed_by_another, CODE.SIGNATURE),
    "header altered after signing": Case(altered_header, CODE.SIGNATURE),
    "plan altered after signing": Case(altered_plan, CODE.MALFORMED),
    "of another federation": Case(of_another_federation, CODE.SIGNATURE),
    "in the name of another federation": Case(in_another_name, CODE.SIGNATURE),
    "the plan of another federation": Case(carries_anothers_plan, CODE.WRONG_RUN),
    "for another site": Case(says(site_id=SigningKey.generate().public.id), CODE.WRONG_SITE),
    "expired": Case(expired, CODE.EXPIRED),
    "of another version": Case(two_formats_ahead, CODE.PROTOCOL_VERSION),
    "no instruction": Case(no_instruction, CODE.MALFORMED),
    "a path in the place of a run": Case(with_a_path_for_a_run, CODE.MALFORMED),
    "not a plan": Case(not_a_plan, CODE.PLAN_INVALID),
    "another plan than its hash": Case(says(plan_hash="0" * 64), CODE.PLAN_INVALID),
    "the plan of another run": Case(says(run_id=ids.ulid()), CODE.WRONG_RUN),
    "another task": Case(of_another_task, CODE.POLICY, "policy.tasks"),
    "a task that is none": Case(of_no_task, CODE.TASK_UNSUPPORTED),
    "another strategy": Case(of(strategy=StrategyPlan(name="krum")), CODE.POLICY, "policy.strategies"),
    "another model": Case(of(model=ModelPlan(name="transformer")), CODE.POLICY, "policy.models"),
    "weights that nobody allowed": Case(
        of(model=ModelPlan(name="mlp", options={"hidden": [4]}, init_hash="0" * 64)), CODE.POLICY, "policy.models"
    ),
    "no protection": Case(of(protection=ProtectionPlan(mode="none")), CODE.PROTECTION),
    "sums over two": Case(
        of(protection=ProtectionPlan(terms=Terms(min_cohort=2, min_survivors=2))), CODE.COHORT, "policy.cohort_min"
    ),
    "sums that may shrink to two": Case(
        of(protection=ProtectionPlan(terms=Terms(min_cohort=9, min_survivors=2))), CODE.COHORT, "policy.cohort_min"
    ),
    "sums over one": Case(sums_over_one, CODE.PLAN_INVALID),
    "no privacy": Case(of(privacy=PrivacyPlan()), CODE.POLICY, "without differential privacy"),
    "a claim above the cap": Case(of(privacy=privacy(epsilon=6.0)), CODE.BUDGET, "policy.epsilon_max"),
    "a claim above the task's cap": Case(of(privacy=privacy(epsilon=4.6)), CODE.BUDGET, "policy.epsilon_task"),
    "a large delta": Case(of(privacy=privacy(delta=1e-3)), CODE.POLICY, "policy.delta"),
    "endless steps": Case(of(local=LocalPlan(steps=101, sampling_rate=0.2)), CODE.POLICY, "policy.steps_max"),
    "too large a plan": Case(of_300_kilobytes, CODE.TOO_LARGE, "policy.bytes_max"),
    "too large a header": Case(with_a_header_of_300_kilobytes, CODE.TOO_LARGE, "policy.bytes_max"),
    "statistics of no run": Case(begins("statistics", round=0), CODE.PLAN_UNKNOWN),
    "training of no run": Case(begins("train", "model"), CODE.PLAN_UNKNOWN),
    "evaluation of no run": Case(begins("evaluate", "model"), CODE.PLAN_UNKNOWN),
    "calibration of no run": Case(begins("calibrate", "graph"), CODE.PLAN_UNKNOWN),
    "a stage of no sum": Case(begins("unmask", "secagg", purpose="train"), CODE.PLAN_UNKNOWN),
}
# What these would really cost is worked out by a worker, from the plan alone.
PRICED = {
    "a round above the cap": Case(
        of(privacy=privacy(epsilon=None, noise_multiplier=1.0), rounds=RoundsPlan(count=1)),
        CODE.BUDGET,
        "policy.epsilon_round",
    ),
    "rounds above the task's cap": Case(
        of(privacy=privacy(epsilon=None, noise_multiplier=2.0), rounds=RoundsPlan(count=500)),
        CODE.BUDGET,
        "policy.epsilon_task",
    ),
    "costs more than it claims": Case(of(privacy=privacy(epsilon=0.01)), CODE.PLAN_INVALID, "the plan claims"),
}


def poisoned(plan: RoundPlan, start: dict[str, np.ndarray]) -> dict[str, Case]:
    """Work of this run on something that is no model of it, or that its plan does not have."""
    good, first = weights.encode(start), min(start)

    def train(model: bytes, code: RefusalCode = CODE.MODEL_INVALID, **changes: Any) -> Case:
        return Case(lambda centre: centre.work("train", plan, {"model": model}, **changes), code)

    def altered(value: np.ndarray) -> bytes:
        return weights.encode({**start, first: value})

    nan, scale = altered(np.full_like(start[first], np.nan)), {"mean": [50.0, 5.0], "scale": [20.0, 0.0]}
    return {
        "NaN": train(nan),
        "NaN, to evaluate": Case(lambda centre: centre.work("evaluate", plan, {"model": nan}), CODE.MODEL_INVALID),
        "infinity": train(altered(np.full_like(start[first], -np.inf))),
        "another shape": train(altered(start[first][:1])),
        "another type": train(altered(start[first].astype(np.float64))),
        "a name too many": train(weights.encode({**start, "backdoor": start[first]})),
        "a name too few": train(weights.encode({name: start[name] for name in start if name != first})),
        "no weights": train(b"no weights at all"),
        "no model": Case(lambda centre: centre.work("train", plan, {}), CODE.MALFORMED),
        "other weights than it says": train(good, model_hash="0" * 64),
        "other weights to start from": train(altered(start[first] + 1), round=1),
        "a round too many": train(good, CODE.WRONG_RUN, round=3),
        "another plan": train(good, CODE.PLAN_INVALID, plan_hash="0" * 64),
        "no normalisation": train(good, CODE.MALFORMED, body={}),
        "scale of zero": train(good, CODE.MALFORMED, body={"normalisation": scale}),
        "a stage of no sum": Case(
            lambda centre: centre.work("share", plan, {"secagg": b""}, purpose="train"), CODE.PROTECTION
        ),
        "no graph": Case(lambda centre: centre.work("calibrate", plan, {"graph": b"none"}), CODE.MODEL_INVALID),
        "statistics without noise": Case(lambda centre: centre.work("statistics", plan, {}, round=0), CODE.POLICY),
    }


def later() -> str:
    """When another instruction expires."""
    return instants.text(instants.now() + timedelta(seconds=90))
