"""The local API of a real agent over its real socket: for its owner alone, unharmed by anything, gone with it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedsite.client.device.slots import Slots
from fedsite.client.identity import site
from fedsite.client.local import local_client
from fedsite.protocol import release
from fedsite.protocol.errors import UnreachableError
from fedsite.server.home import ServerHome
from tests.e2e import leftovers
from tests.e2e.federation import end
from tests.e2e.toy_federation import LONGEST_S, Toys
from tests.toy_release import linear, signed

NAME = "anna"
FEATURES = 11  # of the task pump
IDLE_MB = 120


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toys]:
    """A federation of one site whose agent runs."""
    with Toys(tmp_path_factory.mktemp("local")) as running:
        settings = running.prepare_site(NAME) / "site" / "site.yaml"
        sources = f"{{toy: {{path: {running.directory / 'toy.csv'}}}, pump: {{site: pump-0}}}}"
        settings.write_text(f"data: {{tasks: {sources}}}\npolicy: {{require_privacy: false}}\n")
        running.start_agent(NAME)
        running.wait_online(NAME)
        yield running


def test_the_socket_is_the_owners_alone_and_a_second_agent_is_refused(toys: Toys) -> None:
    path = toys.site_state(NAME) / "agent.sock"
    assert stat.S_ISSOCK(path.lstat().st_mode)
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    done = toys.cli("up", home=toys.site_home(NAME))
    assert done.code == 2
    assert "an agent runs already" in done.stderr
    with local_client.connect(path.parent) as agent:
        assert agent is not None
        assert agent.status()["agent"]["pid"] == toys.agents[NAME].pid


def test_whatever_is_written_to_the_socket_the_agent_stays_as_it_was(toys: Toys) -> None:
    directory, rng = toys.site_state(NAME), random.Random(4)
    before = files(directory)
    for number in range(60):
        noise = rng.randbytes(rng.randrange(1, 3000))
        prefix = (b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n")[number % 3]
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(5.0)
            raw.connect(str(directory / "agent.sock"))
            try:
                raw.sendall(prefix + noise)
                raw.shutdown(socket.SHUT_WR)
                raw.recv(4096)
            except OSError:
                continue  # it hung up on us
    assert files(directory) == before
    with local_client.connect(directory) as agent:
        assert agent is not None
        assert agent.status()["pause"] is None
    assert leftovers.alive(toys.agents[NAME].pid)
    assert "Traceback" not in toys.log(NAME)


def test_the_commands_say_the_same_with_the_agent_and_without(toys: Toys) -> None:
    home, directory = toys.site_home(NAME), toys.site_state(NAME)
    put_release(toys)
    by_agent = toys.cli("score", "--json", home=home)
    assert by_agent.code == 0, by_agent.stderr
    assert any("fedsite.client.device.score_child" in leftovers.line(process) for process in leftovers.below(home))
    with local_client.connect(directory) as agent:
        assert agent is not None
        told = agent.status(), agent.rounds()
    end(toys.agents.pop(NAME))
    assert not (directory / "agent.sock").exists()
    assert leftovers.after(home) == []
    alone = toys.cli("score", "--json", home=home)
    assert without(by_agent.value, "latency_ms") == without(alone.value, "latency_ms")
    status = toys.cli("status", "--json", home=home).value
    assert set(told[0]) == set(status)
    assert told[0]["model"] == status["model"]
    assert toys.cli("rounds", "--json", home=home).value == told[1]
    toys.start_agent(NAME)
    toys.wait_online(NAME)


def test_a_pause_outlives_the_agent_and_the_next_one_takes_its_socket(toys: Toys) -> None:
    home, directory = toys.site_home(NAME), toys.site_state(NAME)
    told = toys.cli("pause", "1h", "--reason", "maintenance", "--json", home=home)
    assert (told.code, told.value["paused"], told.value["changed"]) == (0, True, True)
    agent = toys.agents.pop(NAME)
    os.kill(agent.pid, signal.SIGKILL)
    agent.wait()
    assert (directory / "agent.sock").exists()
    with local_client.connect(directory) as nobody:
        assert nobody is None
    toys.start_agent(NAME)
    with answering(toys) as client:
        assert next(value for value in client.watch() if value["agent"]["state"] == "idle")["pause"] == {
            name: told.value[name] for name in ("since", "until", "reason")
        }
    toys.wait_online(NAME)
    assert toys.cli("resume", "--json", home=home).value["changed"] is True
    assert toys.cli("resume", "--json", home=home).value["changed"] is False


@pytest.mark.slow
def test_a_run_waits_for_a_paused_site_and_goes_on_with_it(toys: Toys) -> None:
    home, directory = toys.site_home(NAME), toys.site_state(NAME)
    assert toys.cli("pause", "--reason", "maintenance", home=home).code == 0
    watch = toys.watch(toys.launch("protection=sealed", "rounds.minimum=1", "rounds.count=1"))
    refused = watch.until(lambda event: event["kind"] == "reply")
    assert (refused["outcome"], refused["code"]) == ("refused", "not-now")
    with local_client.connect(directory) as client:
        assert client is not None
        seen = client.watch()
        assert next(seen)["pause"]["reason"] == "maintenance"
        assert toys.cli("resume", "--json", home=home).value["paused"] is False
        states = {json.dumps(value["pause"]): value["agent"]["state"] for value in until_worked(seen)}
        assert "working" in states.values()
    assert watch.finished()["outcome"] == "completed"


def test_an_idle_agent_is_small_and_ends_with_those_who_watch_it(toys: Toys) -> None:
    if os.path.exists("/proc/self/smaps_rollup"):
        lines = Path(f"/proc/{toys.agents[NAME].pid}/smaps_rollup").read_text().splitlines()
        (resident,) = (int(line.split()[1]) for line in lines if line.startswith("Rss:"))
        assert resident / 1000 < IDLE_MB
    with local_client.connect(toys.site_state(NAME)) as client:
        assert client is not None
        seen = client.watch()
        next(seen)
        assert end(toys.agents.pop(NAME)) == 0
        with pytest.raises(UnreachableError):
            for _ in seen:
                pass
    assert not (toys.site_state(NAME) / "agent.sock").exists()


@contextlib.contextmanager
def answering(toys: Toys) -> Iterator[local_client.LocalClient]:
    """The agent that was started last, once it answers: the server takes a killed one for online for a while."""
    until = time.monotonic() + LONGEST_S
    while time.monotonic() < until:
        with local_client.connect(toys.site_state(NAME)) as client:
            if client is not None and told_pid(client) == toys.agents[NAME].pid:
                yield client
                return
        time.sleep(0.1)
    raise AssertionError(f"no answer: {toys.log(NAME)}")


def told_pid(client: local_client.LocalClient) -> int | None:
    with contextlib.suppress(UnreachableError):
        return client.status()["agent"].get("pid")
    return None


def until_worked(seen: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What a watch tells until the agent has begun to work."""
    for value in seen:
        yield value
        if value["agent"]["state"] == "working":
            return


def put_release(toys: Toys) -> None:
    """Install a release of the task pump, as a run would."""
    home = ServerHome(toys.state)
    centre = SimpleNamespace(federation=home.federation(), key=home.signing_key())
    weight = np.random.default_rng(1).normal(size=(FEATURES, 5)).astype(np.float32)
    model = linear(weight)
    data = signed(centre, model, weight)
    directory = toys.site_state(NAME)
    Slots(directory, site.load_federation(directory)).install(
        data, model, expected_hash=release.manifest_hash(data), self_test=lambda slot: None
    )


def files(directory: Path) -> dict[str, bytes]:
    """What the state directory holds, but for what the agent writes while it waits."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "agent.json"
    }


def without(value: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: item for key, item in value.items() if key != name}
