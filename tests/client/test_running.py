"""The agent's process renews its certificate between instructions, and says in its state file where it could not."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedsite.client import running, state_directory
from fedsite.client.carried import standing
from fedsite.client.health import facts as health_facts
from fedsite.client.identity import enrolment, pair
from fedsite.client.identity import renewal as renewing
from fedsite.client.link import flower_fleet
from fedsite.client.local import local_serving
from fedsite.client.local.activity import Board
from fedsite.client.settings import SettingsFile
from fedsite.protocol.errors import UnreachableError
from tests.centre import START
from tests.site_place import Place


class Link:
    """Connects at once and brings nothing; after two pulls the process is told to end."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.pulls = 0
        self.state: dict[str, Any] = {}

    def activate(self) -> None:
        """Always."""

    def pull(self) -> None:
        self.pulls += 1
        self.state = json.loads((self._place.directory / state_directory.STATE).read_bytes())
        if self.pulls == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def link(member: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    made, handlers = Link(member), {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(flower_fleet, "FleetLink", lambda connection: made)
    monkeypatch.setattr(flower_fleet, "poll_delay", lambda **_: 0.0)
    monkeypatch.setattr(enrolment, "open_connection", lambda directory: SimpleNamespace())
    clocked = partial(renewing.CertificateRenewal, clock=member.clock, uniform=lambda: 0.5)
    monkeypatch.setattr(renewing, "CertificateRenewal", clocked)
    yield made
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _run(directory: Path, *overrides: str) -> int:
    return running._run(directory, SettingsFile(directory, overrides), Board(pid=os.getpid()), None)


def test_a_certificate_in_the_last_third_of_its_life_is_renewed_and_used(
    member: Place, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    monkeypatch.setattr(enrolment, "use_new_pair", lambda connection, directory: used.append(pair.expires(directory)))
    before = pair.expires(member.directory)
    standing.mark(member.directory)
    assert _run(member.directory) == 0
    assert not standing.is_carried(member.directory)  # it has reached the server
    assert (member.posts, used) == ([], [])
    member.centre.now = START + timedelta(days=65)
    link.pulls = 0
    assert _run(member.directory) == 0
    assert health_facts.overrides(link.state) == []
    assert member.posts == ["/renew"]  # once, however often the agent has nothing to do
    assert used == [pair.expires(member.directory)] != [before]
    assert health_facts.RENEWAL not in link.state


def test_no_child_of_the_agent_gets_a_token(member: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSITE_TOKEN", "fedsite-eyJ")
    monkeypatch.setattr(local_serving, "serving", lambda *_: nullcontext())
    seen: list[str | None] = []

    def look(*_: Any) -> int:
        seen.append(os.environ.get("FEDSITE_TOKEN"))
        return 0

    monkeypatch.setattr(running, "_run", look)
    assert running.run(member.directory, SettingsFile(member.directory)) == 0
    assert seen == [None]


def test_a_renewal_that_failed_stands_in_the_state_file(member: Place, link: Link) -> None:
    member.centre.now = START + timedelta(days=65)
    member.failure = UnreachableError("no answer")
    assert _run(member.directory, "policy.epsilon_max=5") == 0
    assert health_facts.overrides(link.state) == ["policy.epsilon_max=5"]
    assert member.posts == ["/renew"]
    assert link.state[health_facts.RENEWAL]["text"] == "no answer"
    assert link.state["state"] == "idle"
