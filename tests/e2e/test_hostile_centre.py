"""A hostile centre behind the real server: what it may not ask is refused by code, before any data is read.

Server, TLS, agent and worker are processes of their own; each answer is the one that came over the wire. The kernel
tells when the site's data is opened.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedsite.protocol import audit_logs, ids, weights
from fedsite.protocol.messages import MAX_HEADER, read_reply
from fedsite.protocol.plan import ModelPlan
from fedsite.telemetry.task import load_task
from tests.e2e import bundles, toy
from tests.e2e.hostile_cases import AT_THE_GATE, CODE, PRICED, Case, later, poisoned
from tests.e2e.hostile_centre import FOLDER, SERVER_APP, Centre, Opened, privacy

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify tells that data is opened: Linux has it")

RULES = """\
data: {{path: {data}}}
policy:
  tasks: [toy]
  strategies: [fedavg]
  models: [{model}]
  epsilon_max: 5
  epsilon_round: 1.5
  epsilon_task: 4.5
  cohort_min: 3
  steps_max: 100
  bytes_max: 262144
  approval: automatic
"""


@pytest.fixture(scope="module")
def start() -> dict[str, np.ndarray]:
    """The weights that the site's operator allows a run to start from."""
    shapes = {"layers.0.bias": (4,), "layers.0.weight": (4, 8), "layers.2.bias": (1,), "layers.2.weight": (1, 4)}
    return {name: np.full(shape, 0.1, np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def centre(federations: Any, start: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Centre]:
    """A running federation of one site, and the centre's own program in the place of the round loop."""
    folder = tmp_path_factory.mktemp("hostile")
    task_file, data = toy.write(folder)
    talk = folder / "talk"
    talk.mkdir()
    digest = hashlib.sha256(weights.encode(start)).hexdigest()
    with federations.Federation(folder / "f", environment={FOLDER: str(talk)}) as running:
        rules = RULES.format(data=data, model=digest)
        (running.join_site("alpha") / "site" / "site.yaml").write_text(rules)
        running.start_agent("alpha")
        running.wait_online("alpha")
        bundles.start(running, server=SERVER_APP)
        model = ModelPlan(name="mlp", options={"hidden": [4]}, init_hash=digest)
        found = Centre(running, "alpha", talk, data, load_task(str(task_file)).document, model, rules)
        yield found
        found.end()


@pytest.fixture
def opened(centre: Centre) -> Iterator[Opened]:
    """Whether the site's data was opened in this test."""
    with Opened(centre.data) as found:
        yield found


@pytest.mark.parametrize("name", AT_THE_GATE)
def test_it_is_refused_before_anything_could_read_data(centre: Centre, opened: Opened, name: str) -> None:
    before = centre.workers()
    refused(centre, AT_THE_GATE[name])
    assert not opened
    assert centre.workers() == before


@pytest.mark.parametrize("name", PRICED)
def test_what_it_costs_is_refused_before_data_is_read(centre: Centre, opened: Opened, name: str) -> None:
    refused(centre, PRICED[name])
    assert not opened
    assert not spent(centre)


def test_a_run_that_nobody_agreed_to_waits_for_a_person(centre: Centre, opened: Opened) -> None:
    centre.rule("approval: automatic", "approval: once")
    try:
        refused(centre, Case(lambda centre: centre.prepare(), CODE.APPROVAL))
    finally:
        centre.rule("approval: automatic", "approval: automatic")
    assert not opened


def test_an_accepted_run_can_still_ask_too_much(centre: Centre, opened: Opened, start: dict[str, np.ndarray]) -> None:
    """And what is honest does reach for the data, before, in between and after: so the rest did not."""
    plan = centre.plan(privacy=privacy(evaluation_noise=20.0, calibration_noise=20.0))
    frame = centre.prepare(plan)
    first = centre.send(frame)
    assert (read_reply(first.header).outcome, bool(opened)) == ("ok", True)
    assert spent(centre) == {plan.run_id}

    # What was answered once is sent again, and nothing else under its number.
    entries = len(centre.audit())
    assert centre.send(frame) == first
    assert len(centre.audit()) == entries
    refused(centre, Case(lambda centre: centre.prepare(plan, expires=later()), CODE.REPLAYED))
    other = dataclasses.replace(plan, seed=9)
    refused(centre, Case(lambda centre: centre.prepare(other, attempt=2), CODE.WRONG_RUN))

    # Whoever reads the data from here on has to open it.
    os.utime(centre.data)
    for name, case in poisoned(plan, start).items():
        refused(centre, case)
        assert not opened, name
    before = charged(centre)
    assert not before

    good = weights.encode(start)
    frame = centre.work("train", plan, {"model": good}, round=1)
    trained = centre.send(frame)
    assert (read_reply(trained.header).outcome, bool(opened)) == ("ok", True)
    assert len(charged(centre)) == 1
    os.utime(centre.data)
    assert centre.send(frame) == trained
    assert not opened
    assert len(charged(centre)) == 1
    assert centre.answer(centre.ask("finish", plan, {}, round=2)).outcome == "ok"


def test_what_no_transport_of_ours_would_send_is_dropped_and_the_agent_goes_on(centre: Centre, opened: Opened) -> None:
    """The site has no header that it could answer to."""
    honest, read = centre.prepare(), len(centre.log())
    unanswered = [
        centre.say(replace(honest, header=b" " * (MAX_HEADER + 1))),
        centre.say(replace(honest, blobs={str(number): b"x" for number in range(65)})),
    ]
    centre.logged("a message that is no instruction was dropped", len(unanswered), since=read)
    refused(centre, AT_THE_GATE["expired"])
    assert not any(answer.exists() for answer in unanswered)
    assert not opened


def test_the_agent_still_works_and_its_audit_log_is_whole(centre: Centre) -> None:
    assert centre.answer(centre.prepare(centre.plan())).outcome == "ok"
    (log,) = audit_logs.check([centre.running.site_state(centre.name) / "audit"])
    assert log.verdict.ok


def refused(centre: Centre, case: Case) -> None:
    """Ask, and hear no: with this code alone, which the site's audit log holds, for a reason its own log tells."""
    read = len(centre.log())
    reply = centre.answer(case.ask(centre))
    assert (reply.outcome, reply.code) == ("refused", case.code)
    assert not reply.blobs
    assert set(reply.body) <= {"audit"}
    last = centre.audit()[-1]
    assert (last["kind"], last["facts"]["code"]) == ("refused", case.code)
    assert ids.run_bytes(last["facts"]["run_id"])
    assert case.why in centre.log()[read:]


def spent(centre: Centre) -> set[str]:
    """The runs that something is set aside for."""
    return {row[0] for row in ledger(centre, "SELECT run_id FROM run WHERE finished IS NULL")}


def charged(centre: Centre) -> set[str]:
    """What was paid for."""
    return {row[0] for row in ledger(centre, "SELECT release FROM spent")}


def ledger(centre: Centre, query: str) -> list[tuple[Any, ...]]:
    """Rows of the site's budget."""
    path = centre.running.site_state(centre.name) / "budget.db"
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        return database.execute(query).fetchall()
