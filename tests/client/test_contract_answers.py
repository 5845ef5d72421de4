"""All that a centre learns of data that breaks its contract is one code of a public list: no value, count or name."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedsite.client import reference
from fedsite.client.health import last_check
from fedsite.client.settings import DataSettings
from fedsite.client.work import pipe
from fedsite.client.work.operations import Operations
from fedsite.client.work.worker import answer_to
from fedsite.client.work.worker_link import WorkerError
from fedsite.protocol import instants
from fedsite.protocol.errors import RefusalCode
from fedsite.protocol.plan import PrivacyPlan
from fedsite.telemetry import contract
from fedsite.telemetry.location import DataLocation
from fedsite.telemetry.task import read_task

DOCUMENT: dict[str, Any] = {
    "schema": "fedsite.task/1",
    "name": "toy",
    "data": {"file": "toy.csv", "entity": "unit", "time": "moment"},
    "channels": [{"name": "kelvins", "unit": "degC", "minimum": 0.0, "maximum": 100.0}],
    "rate": {"seconds": 10.0, "unit": "s"},
    "window": {"length": 4, "minimum": 20},
    "label": {"kind": "column", "column": "state", "classes": ["good", "bad"]},
    "split": {"kind": "time", "fraction": 0.3},
    "model": {"name": "mlp", "options": {"hidden": [4]}},
    "loss": "cross_entropy",
    "metric": {"name": "accuracy", "better": "higher"},
}
HEADER = "unit,moment,kelvins,state"
SECRET = "zeppelin"  # stands in names and values of every broken file
ALLOWED = {RefusalCode.DATA_MISSING, RefusalCode.DATA_CONTRACT, RefusalCode.TOO_FEW_WINDOWS}
Rows = list[list[str]]


class Apart:
    """The real operations, over the same answers that cross the worker's pipe."""

    def __init__(self) -> None:
        self.operations = Operations().table()

    def call(
        self, operation: str, arguments: Mapping[str, Any], blobs: Mapping[str, bytes], *, timeout_s: float
    ) -> pipe.Message:
        request = pipe.Message(header={"operation": operation, "arguments": dict(arguments)}, blobs=blobs)
        answer = answer_to(request, self.operations)
        if answer.header.get("ok") is not True:
            found, code = str(answer.header["found"]), RefusalCode(str(answer.header["code"]))
            error = WorkerError(found, refusal=code)
            error.broken = tuple(answer.header["broken"])
            raise error
        return answer


def rows(count: int = 200, *, age: float = 0.0) -> Rows:
    start = time.time() - age - 10 * count
    return [[SECRET, f"{start + 10 * i:.1f}", f"{20 + i % 7}", "good" if i % 8 > 3 else "bad"] for i in range(count)]


def _set(column: int, value: str, every: int = 1) -> Callable[[Rows], Rows]:
    return lambda table: [
        [value if at == column and row % every == 0 else cell for at, cell in enumerate(cells)]
        for row, cells in enumerate(table)
    ]


BREACHES: dict[str, tuple[str, Callable[[Rows], Rows]]] = {
    "column-missing": (f"unit,moment,{SECRET},state", lambda table: table),
    "not-a-number": (HEADER, _set(2, SECRET, 50)),
    "range": (HEADER, _set(2, "4711.25", 50)),
    "unit": (f"unit,moment,kelvins [{SECRET}],state", lambda table: table),
    "all-missing": (HEADER, _set(2, "")),
    "class": (HEADER, _set(3, SECRET, 30)),
    "time": (HEADER, _set(1, SECRET, 30)),
    "sampling-rate": (HEADER, lambda table: table[::6]),
    "too-few-windows": (HEADER, lambda table: table[:10]),
    "stale": (HEADER, lambda table: rows(age=1e6)),
}


@pytest.fixture(scope="module")
def worker() -> Apart:
    return Apart()


def _asked(kit: Any, worker: Apart, folder: Path, header: str, table: Rows) -> tuple[Any, Any]:
    path = folder / f"{SECRET}.csv"
    path.write_text("\n".join([header, *(",".join(row) for row in table)]) + "\n")
    kit.settings = replace(kit.settings, data=DataSettings(path=str(path), oldest="2d"))
    kit.worker = worker
    plan = kit.centre.plan(task=DOCUMENT, privacy=PrivacyPlan(mode="none"))
    asked = kit.centre.prepare(kit.site, plan)
    return kit.handler(require_privacy=False).handle(asked), asked


@pytest.mark.parametrize("name", BREACHES)
def test_one_code_and_nothing_else_leaves(kit: Any, worker: Apart, tmp_path: Path, name: str) -> None:
    header, change = BREACHES[name]
    reply, asked = _asked(kit, worker, tmp_path, header, change(rows()))
    where = DataLocation(path=tmp_path / f"{SECRET}.csv", oldest_s=172_800.0)
    assert name in contract.codes(contract.check(read_task(DOCUMENT), where, now=time.time()))
    answer = kit.centre.open(kit.site, reply, asked)
    assert (answer.outcome, answer.code in ALLOWED) == ("refused", True)
    (kept,) = last_check.read(kit.site.directory)  # the operator's screens say which kinds
    assert (kept.task, name in kept.codes) == ("toy", True)
    assert (dict(reply.blobs), dict(answer.body)) == ({}, {})
    # The rest of a reply is the same whatever was wrong: what it answers, for whom, and when.
    told = json.loads(reply.header)
    body = json.dumps({key: value for key, value in told.items() if key not in ("signature", "instruction")})
    for word in (SECRET, "kelvins", "moment", "state", "4711", "toy", "degC", *(set(BREACHES) - set(ALLOWED))):
        assert word not in body, word


def test_good_data_is_answered_without_a_word_about_it(kit: Any, worker: Apart, tmp_path: Path) -> None:
    reply, asked = _asked(kit, worker, tmp_path, HEADER, rows())
    answer = kit.centre.open(kit.site, reply, asked)
    assert (answer.outcome, dict(reply.blobs), dict(answer.body)) == ("ok", {}, {})
    (kept,) = last_check.read(kit.site.directory)
    assert (kept.task, kept.codes) == ("toy", ())
    assert kept.checked is not None


def test_drift_is_for_the_operator_alone(kit: Any, worker: Apart, tmp_path: Path) -> None:
    task, path = read_task(DOCUMENT), tmp_path / "before.csv"
    path.write_text("\n".join([HEADER, *(",".join(row) for row in _set(2, "80")(rows()))]) + "\n")
    before = contract.inspect(task, DataLocation(path=path))
    assert before.summary is not None
    reference.keep(kit.site.directory, task, before.summary, instants.now())
    reply, asked = _asked(kit, worker, tmp_path, HEADER, rows())
    known = reference.load(kit.site.directory, task)
    found = contract.inspect(task, DataLocation(path=tmp_path / f"{SECRET}.csv"), reference=known)
    assert [str(finding.code) for finding in found.findings] == ["drift"]
    assert contract.codes(found.findings) == ()
    answer = kit.centre.open(kit.site, reply, asked)
    assert (answer.outcome, dict(reply.blobs), dict(answer.body)) == ("ok", {}, {})
