"""Files that come late, again or out of order, and imports killed at any write: nothing is lost or paid twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fedsite.protocol import messages
from fedsite.protocol.errors import RefusalCode
from tests.client.carried.test_exchange import _file, _replies, _take
from tests.client.conftest import FakeWorker, Kit
from tests.site_place import killed


def test_an_older_file_after_a_newer_one_does_what_is_left_and_nothing_again(kit: Kit) -> None:
    plan = kit.centre.plan()
    prepare, train = kit.centre.prepare(kit.site, plan), kit.centre.train(kit.site, plan)
    older, newer = _file(kit, prepare, sequence=1), _file(kit, prepare, train, sequence=2)
    assert [item.state for item in _take(kit, newer)] == ["answered", "answered"]
    spent, replies = kit.spent(), _replies(kit)
    assert [item.state for item in _take(kit, older)] == ["before"]
    assert (kit.spent(), _replies(kit)) == (spent, replies)


def test_a_file_of_a_run_that_has_ended_begins_nothing_anew(kit: Kit) -> None:
    plan = kit.centre.plan()
    first = _file(kit, kit.centre.prepare(kit.site, plan), kit.centre.train(kit.site, plan), sequence=1)
    _take(kit, first)
    _take(kit, _file(kit, kit.centre.ask(kit.site, "finish", plan, body={"outcome": "completed"}), sequence=2))
    spent, calls = kit.spent(), len(kit.worker.calls)
    assert [(item.state, item.code) for item in _take(kit, first)] == [("before", RefusalCode.REPLAYED)] * 2
    assert kit.spent() == spent
    assert len(kit.worker.calls) == calls
    assert [messages.read_reply(frame.header).kind for frame in _replies(kit)] == ["finish"]


@pytest.mark.parametrize("step", [14, pytest.param(1, marks=pytest.mark.slow)])
def test_an_import_killed_at_any_write_is_repeated_and_pays_once(kit: Kit, tmp_path: Path, step: int) -> None:
    plan = kit.centre.plan()
    data = _file(kit, kit.centre.prepare(kit.site, plan), kit.centre.train(kit.site, plan))

    def at(name: str) -> Kit:
        place = tmp_path / name
        place.mkdir()
        return replace(kit, site=replace(kit.site, directory=place), worker=FakeWorker())

    whole = at("whole")
    _take(whole, data)
    for die_at in range(1, 100, step):
        here = at(f"case-{die_at}")
        died = killed(lambda here=here: _take(here, data), die_at)
        for _ in range(2):
            _take(here, data)
        replies = [messages.read_reply(frame.header) for frame in _replies(here)]
        assert {(reply.kind, reply.outcome) for reply in replies} == {("prepare", "ok"), ("train", "ok")}, die_at
        assert here.spent() == whole.spent(), f"killed at step {die_at}"
        if not died:
            break
    assert die_at == 29  # every file that is written or removed, before and after, and once to the end
