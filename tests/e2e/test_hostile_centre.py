"""A hostile centre at a real agent's gate: everything it may not ask is refused by code before any data is read.

The centre signs with the federation's own key: it is not a forger, it asks for too much. The site is the agent's own
assembly with its real worker, budget, log and rules; its data is an empty folder that notices when it is opened.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsite.client import assembly
from fedsite.client.identity.site import Site
from fedsite.client.settings import SettingsFile
from fedsite.models import vector
from fedsite.protocol import documents, ids, instants, sealing, signing, weights
from fedsite.protocol.errors import RefusalCode
from fedsite.protocol.federation import Federation
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.messages import Frame, Header, ReplyHeader
from fedsite.protocol.plan import LocalPlan, ModelPlan, PrivacyPlan, ProtectionPlan, RoundPlan, RoundsPlan
from fedsite.protocol.secagg.manifest import Terms
from fedsite.telemetry.task import load_task
from tests.authority import AUTHORITY
from tests.e2e import toy

RULES = """
data: {{path: {data}}}
policy: {{epsilon_max: 5, cohort_min: 3, models: [mlp], bytes_max: 262144, hours: []}}
"""


@dataclass
class Hostile:
    """The federation's own keys, and one site that trusts them."""

    key: SigningKey
    site: Site
    parts: assembly.Parts
    data: Path
    task: dict[str, Any]
    run_key: sealing.RunKey

    def plan(self, **changes: Any) -> RoundPlan:
        """A plan the site would accept, if its data could be read."""
        values: dict[str, Any] = {
            "federation": self.site.federation.id,
            "run_id": ids.ulid(),
            "created": instants.text(instants.now()),
            "task": self.task,
            "model": ModelPlan(name="mlp", options={"hidden": [4], "activation": "tanh"}),
            "local": LocalPlan(steps=2, sampling_rate=0.2),
            "privacy": PrivacyPlan(mode="sample", epsilon=4.0, noise_multiplier=4.0),
            "protection": ProtectionPlan(),
            "rounds": RoundsPlan(count=2, minimum=3),
        }
        return RoundPlan(**(values | changes))

    def ask(self, kind: str, plan: RoundPlan, blobs: dict[str, bytes], **changes: Any) -> Frame:
        """A signed instruction."""
        values: dict[str, Any] = {
            "kind": kind,
            "federation": plan.federation,
            "site_id": self.site.id,
            "run_id": plan.run_id,
            "round": 0 if kind == "prepare" else 1,
            "attempt": 1,
            "plan_hash": plan.hash,
            "run_key": self.run_key.public if plan.protection.mode == "sealed" else "",
            "expires": instants.text(instants.now() + timedelta(seconds=60)),
        }
        return signing.sign_instruction(Header(**(values | changes)), blobs, self.key)

    def prepare(self, plan: RoundPlan, **changes: Any) -> Frame:
        """The instruction that begins a run."""
        return self.ask("prepare", plan, {"plan": plan.encode()}, **changes)

    def answer(self, frame: Frame) -> ReplyHeader:
        """What the agent says, its signature checked."""
        reply = self.parts.handler.handle(frame)
        return signing.open_reply(reply, self.site.key.public, instruction=frame.header)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    """A site that has joined, as `fedsite join` leaves it, with the toy data."""
    folder = tmp_path_factory.mktemp("hostile")
    task_file, data = toy.write(folder)
    key, identity = SigningKey.generate(), SigningKey.generate()
    federation = Federation(
        id=key.public.id,
        name="test",
        address="localhost:1",
        ca_certificate=AUTHORITY.certificate,
        signing_key=key.public.text,
    )
    directory = folder / "site"
    directory.mkdir(mode=0o700)
    (directory / "federation.json").write_bytes(federation.encode())
    identity.save(directory / "identity.key")
    facts = {"site_id": identity.public.id, "name": "alpha", "expires": "2100-01-01T00:00:00Z"}
    (directory / "site.json").write_bytes(documents.canonical(facts))
    (directory / "site.yaml").write_text(RULES.format(data=data))
    parts = assembly.assemble(directory, SettingsFile(directory), lambda path, limit: b"")
    task = load_task(str(task_file)).document
    yield Hostile(key=key, site=parts.site, parts=parts, data=data, task=task, run_key=sealing.make_run_key())
    parts.worker.close()


@pytest.fixture
def empty(hostile: Hostile) -> Iterator[Callable[[], bool]]:
    """Puts an empty folder in the data's place: whoever opens it finds no data, and is noticed. Tells whether."""
    whole = hostile.data.read_bytes()
    hostile.data.unlink()
    hostile.data.mkdir()
    before = os.stat(hostile.data).st_atime_ns
    yield lambda: os.stat(hostile.data).st_atime_ns != before
    hostile.data.rmdir()
    hostile.data.write_bytes(whole)


Case = Callable[[Hostile], Frame]


def forged(hostile: Hostile) -> Frame:
    frame = hostile.prepare(hostile.plan())
    return replace(frame, signature=SigningKey.generate().sign(frame.header))


def altered(hostile: Hostile) -> Frame:
    frame = hostile.prepare(hostile.plan())
    return replace(frame, blobs={"plan": hostile.plan(seed=9).encode()})


def expired(hostile: Hostile) -> Frame:
    return hostile.prepare(hostile.plan(), expires=instants.text(instants.now() - timedelta(seconds=120)))


def claims_more_than_the_cap(hostile: Hostile) -> Frame:
    return hostile.prepare(hostile.plan(privacy=PrivacyPlan(mode="sample", epsilon=6.0, noise_multiplier=4.0)))


def costs_more_than_the_cap(hostile: Hostile) -> Frame:
    # It claims nothing, and would cost far more than 5.
    return hostile.prepare(hostile.plan(privacy=PrivacyPlan(mode="sample", noise_multiplier=0.3)))


def costs_more_than_it_claims(hostile: Hostile) -> Frame:
    return hostile.prepare(hostile.plan(privacy=PrivacyPlan(mode="sample", epsilon=0.01, noise_multiplier=2.0)))


def below_the_cohort(hostile: Hostile) -> Frame:
    return hostile.prepare(hostile.plan(protection=ProtectionPlan(terms=Terms(min_cohort=2, min_survivors=2))))


def unknown_model(hostile: Hostile) -> Frame:
    return hostile.prepare(hostile.plan(model=ModelPlan(name="transformer")))


def unprotected(hostile: Hostile) -> Frame:
    return hostile.prepare(hostile.plan(protection=ProtectionPlan(mode="none")))


def not_private(hostile: Hostile) -> Frame:
    return hostile.prepare(hostile.plan(privacy=PrivacyPlan()))


def oversized(hostile: Hostile) -> Frame:
    return hostile.ask("prepare", hostile.plan(), {"plan": b" " * 300_000})


def of_no_run(hostile: Hostile) -> Frame:
    return hostile.ask("train", hostile.plan(), {"model": b""})


@pytest.mark.parametrize(
    ("case", "code"),
    [
        (forged, RefusalCode.SIGNATURE),
        (altered, RefusalCode.MALFORMED),
        (expired, RefusalCode.EXPIRED),
        (claims_more_than_the_cap, RefusalCode.BUDGET),
        (costs_more_than_the_cap, RefusalCode.BUDGET),
        (costs_more_than_it_claims, RefusalCode.PLAN_INVALID),
        (below_the_cohort, RefusalCode.COHORT),
        (unknown_model, RefusalCode.POLICY),
        (unprotected, RefusalCode.PROTECTION),
        (not_private, RefusalCode.POLICY),
        (oversized, RefusalCode.TOO_LARGE),
        (of_no_run, RefusalCode.PLAN_UNKNOWN),
    ],
)
def test_what_it_may_not_ask_is_refused_before_data_is_read(
    hostile: Hostile, empty: Callable[[], bool], case: Case, code: RefusalCode
) -> None:
    reply = hostile.answer(case(hostile))
    assert (reply.outcome, reply.code) == ("refused", code)
    assert not empty()


def test_an_honest_plan_does_reach_for_the_data(hostile: Hostile, empty: Callable[[], bool]) -> None:
    """So the others were refused before that."""
    assert hostile.answer(hostile.prepare(hostile.plan())).code == RefusalCode.DATA_MISSING
    assert empty()


def test_a_run_that_was_accepted_can_still_ask_too_much(hostile: Hostile, request: pytest.FixtureRequest) -> None:
    plan = hostile.plan(protection=ProtectionPlan(mode="sealed"))
    frame = hostile.prepare(plan)
    assert hostile.answer(frame).outcome == "ok"
    # From here on nothing it asks may touch the data.
    touched = request.getfixturevalue("empty")
    body = {"normalisation": {"mean": [50.0, 5.0], "scale": [20.0, 3.0]}, "evaluate": False}
    module = vector.state(_module(plan))
    good = weights.encode(module)
    nan = weights.encode({name: np.full_like(value, np.nan) for name, value in module.items()})
    other = weights.encode({"w": np.zeros(3, np.float32)})

    def train(model: bytes, **changes: Any) -> RefusalCode | None:
        values = {"model_hash": hashlib.sha256(model).hexdigest(), "body": body} | changes
        return hostile.answer(hostile.ask("train", plan, {"model": model}, **values)).code

    assert train(nan) == RefusalCode.MODEL_INVALID
    assert train(other) == RefusalCode.MODEL_INVALID
    assert train(b"no weights at all") == RefusalCode.MODEL_INVALID
    assert train(good, model_hash="0" * 64) == RefusalCode.MODEL_INVALID
    assert train(good, round=3) == RefusalCode.WRONG_RUN
    assert train(good, plan_hash="0" * 64) == RefusalCode.PLAN_INVALID
    assert train(good, body={"normalisation": {"mean": [1.0], "scale": [0.0]}}) == RefusalCode.MALFORMED
    assert not touched()
    # And an honest one does reach for it.
    assert train(good) not in (None, RefusalCode.MODEL_INVALID)


def test_a_replayed_instruction_gets_the_same_bytes_and_a_changed_one_nothing(hostile: Hostile) -> None:
    plan = hostile.plan()
    frame = hostile.prepare(plan)
    first = hostile.parts.handler.handle(frame)
    assert hostile.parts.handler.handle(frame) == first
    changed = hostile.prepare(plan, expires=instants.text(instants.now() + timedelta(seconds=90)))
    assert hostile.answer(changed).code == RefusalCode.REPLAYED


def _module(plan: RoundPlan) -> Any:
    from fedsite.client.work import rounds as work
    from fedsite.telemetry.task import read_task

    return work.build(plan, read_task(plan.task))
