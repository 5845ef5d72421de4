"""A site that takes part by files is known as one, and what waits to be carried is told; nothing asks for an agent."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedsite.client.carried import exchange, standing
from fedsite.client.carried.answers import CarriedAnswers
from fedsite.client.carried.standing import Standing
from fedsite.client.health import facts as health_facts
from fedsite.client.health import overview, status_screen
from fedsite.client.health.doctor import Doctor
from fedsite.client.identity import site
from fedsite.protocol import documents
from fedsite.protocol.errors import ConfigError, IntegrityError
from tests.cli.test_site_commands import fedsite, join_on_disk
from tests.client.carried.test_exchange import _file, _take
from tests.client.conftest import NOW, Kit


def _two_answers(kit: Kit) -> None:
    plan = kit.centre.plan()
    _take(kit, _file(kit, kit.centre.prepare(kit.site, plan), kit.centre.train(kit.site, plan)))
    for number, path in enumerate(sorted((kit.site.directory / "exchange").glob("*.answer"))):
        made = (NOW + timedelta(seconds=number)).timestamp()
        os.utime(path, (made, made))


def test_answers_wait_until_they_are_in_a_file_and_count_until_they_expire(kit: Kit) -> None:
    directory, answers = kit.site.directory, CarriedAnswers(kit.site.directory)
    assert standing.look(directory, NOW) == Standing()
    _two_answers(kit)
    ends = NOW + timedelta(seconds=60)
    assert standing.look(directory, NOW) == Standing(waiting=2, since=NOW, until=ends)
    found = exchange.export(kit.site, answers, NOW)
    # A file that could not be written to the stick leaves them waiting.
    assert standing.look(directory, NOW).waiting == 2
    standing.note_exported(directory, [item.instruction for item in found.answers[:1]], NOW)
    look = standing.look(directory, NOW)
    assert (look.waiting, look.exported, look.exported_at) == (1, 1, NOW)
    standing.note_exported(directory, [item.instruction for item in found.answers], NOW)
    assert standing.look(directory, NOW) == Standing(exported=2, exported_at=NOW)
    assert standing.look(directory, ends) == Standing(exported_at=NOW)
    assert len(list((directory / "exchange").glob("*.answer"))) == 2  # looking removes nothing
    for path in (directory / "exchange").glob("*.answer"):
        path.write_bytes(b"x")
    with pytest.raises(IntegrityError):
        standing.look(directory, NOW)


def test_each_state_has_its_words(kit: Kit) -> None:
    assert standing.finding(Standing(exported_at=NOW), NOW) is None
    day = NOW + timedelta(days=1)
    waits = standing.finding(Standing(waiting=2, since=NOW, until=day, exported=1, exported_at=NOW), day)
    assert waits is not None
    assert waits.title == "2 answers wait to be carried"
    counts = "the first counts until 2026-03-02T12:00:00Z"
    assert waits.text == f"the oldest was made 24 h ago; {counts}; the last file was made 24 h ago"
    assert "fedsite exchange export FILE" in waits.remedy
    sent = standing.finding(Standing(exported=1, exported_at=NOW), day)
    assert sent is not None
    assert (sent.title, sent.text) == ("an answer is in the last file", "the last file was made 24 h ago")


def test_a_carried_site_lacks_neither_agent_nor_server_nor_certificate(tmp_path: Path) -> None:
    directory = join_on_disk(tmp_path)
    state = json.loads((directory / "site.json").read_bytes())
    (directory / "site.json").write_bytes(documents.canonical({**state, "expires": "2026-01-01T00:00:00Z"}))
    assert {"agent", "certificate"} <= _codes(directory)
    standing.mark(directory)
    assert _codes(directory).isdisjoint({"agent", "certificate", "carried"})
    who = site.load(directory)
    facts = health_facts.read(who, NOW)
    value = overview.value(who, facts, overview.findings(facts))
    empty = {"waiting": 0, "since": None, "until": None, "exported": 0, "exported_at": None}
    assert value["carried"] == empty
    shown = "\n".join(status_screen.lines(value, NOW))
    assert "carried      by files; nothing to export" in shown
    assert "certificate" not in shown
    measured = Doctor(directory).examine()
    assert measured["network"] is None
    assert "takes part by files" in next(step["text"] for step in measured["steps"] if step["name"] == "server")
    (directory / "exchange" / "exported.json").write_bytes(b"x")
    assert "exchange" in _codes(directory)
    assert "agent" not in _codes(directory)
    standing.unmark(directory)
    standing.unmark(directory)
    assert "agent" in _codes(directory)


def test_an_export_notes_what_is_in_its_file_once_that_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = join_on_disk(tmp_path)
    packed: Any = SimpleNamespace(data=b"data", sequence=1, answers=[SimpleNamespace(instruction="ab" * 32)])
    monkeypatch.setattr(exchange, "export", lambda *_: packed)
    (directory / "exchange").mkdir(mode=0o700)

    def full(data: bytes) -> None:
        raise ConfigError("the stick is full")

    with pytest.raises(ConfigError):
        exchange.pack_answers(directory, full)
    assert not (directory / "exchange" / "exported.json").exists()
    exchange.pack_answers(directory, lambda data: None)
    assert documents.parse((directory / "exchange" / "exported.json").read_bytes())["answers"] == ["ab" * 32]


def test_a_request_whose_answer_is_not_here_yet_is_what_every_command_names(tmp_path: Path) -> None:
    directory = tmp_path / "site"
    directory.mkdir(mode=0o700)
    (directory / "joining.json").write_bytes(b"{}")
    for command in ("status", "up"):
        done = fedsite(tmp_path, command)
        assert done.returncode == 2
        assert "fedsite join --answer FILE" in done.stderr


def _codes(directory: Path) -> set[str]:
    facts = health_facts.read(site.load(directory), NOW)
    return {finding.code for finding in overview.findings(facts)}
