"""The local API over a real socket: every call, every limit, and that nothing on the socket harms the agent."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import grpc
import numpy as np
import pytest

from fedsite.client.consent import pause
from fedsite.client.local import local_limits, local_serving, local_socket
from fedsite.client.local.activity import Board
from fedsite.client.local.local_limits import MAX_MESSAGE
from fedsite.client.settings import Settings
from fedsite.protocol import instants, local_pb2
from fedsite.protocol.errors import ConfigError, DataError, FedsiteError, IntegrityError, StorageError, UnreachableError
from tests.local_agent import FINDING, ROUND, LocalAgent, drop, listening, short_directory


@pytest.fixture(scope="module")
def agent() -> Iterator[LocalAgent]:
    with listening() as running:
        yield running


@pytest.fixture(autouse=True)
def _as_before(agent: LocalAgent) -> Iterator[None]:
    yield
    agent.as_before()


def test_the_socket_is_the_owners_alone(agent: LocalAgent) -> None:
    assert stat.S_IMODE(agent.api.path.lstat().st_mode) == 0o600


def test_status_is_the_value_that_the_command_prints_and_typed(agent: LocalAgent) -> None:
    value = agent.client().status()
    assert (value["schema"], value["findings"]) == ("fedsite.status/2", [FINDING])
    told = local_pb2.SiteStatus.FromString(agent.call("Status", b"")[0])
    (finding,) = told.findings
    assert (finding.code, finding.severity, list(finding.depends_on)) == ("disk", "warning", ["settings"])
    assert (told.activity.pid, told.activity.state) == (17, value["agent"]["state"])
    assert not told.HasField("pause")


def test_pause_and_resume_say_what_changed_and_what_ends_first(agent: LocalAgent) -> None:
    client = agent.client()
    agent.board.report({"state": "working", "kind": "train", "run_id": "R1", "round": 2})
    told = client.pause(timedelta(hours=2), "maintenance")
    assert told.changed
    assert told.pause is not None
    assert told.pause["reason"] == "maintenance"
    assert told.working == {"kind": "train", "run_id": "R1", "round": 2}
    held = pause.read(agent.directory, instants.now())
    assert held is not None
    assert held.until == held.since + timedelta(hours=2)
    status = local_pb2.SiteStatus.FromString(agent.call("Status", b"")[0])
    assert status.pause.reason == "maintenance"
    agent.board.report({"state": "idle"})
    again = client.pause(None)
    assert (again.changed, again.pause and again.pause["until"], again.working) == (True, None, None)
    assert client.resume().changed is True
    assert client.resume() == type(again)(pause=None, changed=False, working=None)


def test_a_pause_out_of_range_changes_nothing(agent: LocalAgent) -> None:
    with pytest.raises(ConfigError, match="a pause of"):
        agent.client().pause(timedelta(days=400))
    with pytest.raises(ConfigError, match="a reason of 201"):
        agent.client().pause(None, "x" * 201)
    assert pause.read(agent.directory, instants.now()) is None


def test_rounds_are_the_commands_value_and_typed(agent: LocalAgent) -> None:
    assert agent.client().rounds()["rounds"] == [ROUND]
    (row,) = local_pb2.RoundList.FromString(agent.call("Rounds", b"")[0]).rounds
    assert (row.run_id, row.task, row.state, row.plan_hash) == ("R1", "pump", "waiting", "00ff")


def test_of_more_rounds_than_fit_the_newest_are_told(agent: LocalAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [{**ROUND, "run_id": f"R{number}"} for number in range(3000)]
    monkeypatch.setattr(agent, "runs", many)
    assert agent.client().rounds()["rounds"] == many[-1000:]
    long = [{**run, "task": "ä" * 2000} for run in many]
    monkeypatch.setattr(agent, "runs", long)
    found = agent.client().rounds()["rounds"]
    assert 50 < len(found) < 400
    assert found == long[-len(found) :]


def test_a_window_larger_than_a_message_is_not_scored_here(agent: LocalAgent) -> None:
    with pytest.raises(UnreachableError, match="resource exhausted"):
        agent.client().scoring().scores([np.ones((1, MAX_MESSAGE, 1), np.float32)])


def test_a_watch_tells_at_once_and_whenever_something_changed(agent: LocalAgent) -> None:
    agent.board.report({"state": "idle"})
    watch = agent.client().watch()
    assert next(watch)["agent"]["state"] == "idle"
    agent.board.report({"state": "working"})
    assert next(watch)["agent"]["state"] == "working"
    agent.client().pause(None)
    next(watch)
    pause.end(agent.directory, instants.now())  # by a hand that is not the API's
    next(watch)
    watch.close()


def test_watchers_share_a_look_and_a_fifth_is_told_so(agent: LocalAgent) -> None:
    watches = [agent.client().watch() for _ in range(local_limits.CALLS["Watch"])]
    before = agent.looks
    for watch in watches:
        next(watch)
    assert agent.looks <= before + 1
    error = agent.refusal("Watch", b"")
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(UnreachableError, match="resource exhausted"):
        next(agent.client().watch())
    assert agent.client().status()  # others have their own places
    for watch in watches:
        watch.close()  # and their places are free: every other test asks for that


def test_scores_come_for_windows_in_order_however_many(agent: LocalAgent) -> None:
    scorer = agent.client().scoring(task="pump")
    x = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    first, second = scorer.scores([x, x[:1]])
    assert first.values.tolist() == [15.0, 51.0, 87.0, 123.0]
    assert (second.values.tolist(), second.milliseconds, scorer.version) == ([15.0], 0.5, "1.0")
    large = np.ones((5, 200, 500), np.float32)  # 400 kB a window: two go into a message
    (found,) = scorer.scores([large])
    assert found.values.tolist() == [100_000.0] * 5
    assert found.milliseconds == 1.5
    with pytest.raises(DataError, match="windows of shape"):
        scorer.scores([np.ones((2, 3), np.float32)])


@pytest.mark.parametrize("kind", [ConfigError, DataError, IntegrityError, StorageError, FedsiteError])
def test_an_error_of_the_agent_is_the_same_error_here(agent: LocalAgent, kind: type[FedsiteError]) -> None:
    agent.failure = kind("disk “d” is full", allowed="space", next_step="df -h")
    with pytest.raises(kind) as caught:
        agent.client().status()
    told = caught.value
    assert (told.found, told.allowed, told.next_step) == ("disk “d” is full", "space", "df -h")
    assert told.exit_code == kind.exit_code


def test_a_defect_says_its_kind_and_nothing_else(agent: LocalAgent) -> None:
    agent.failure = ValueError("a reading: 17.3")
    error = agent.refusal("Status", b"")
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "ValueError")


def test_long_texts_of_errors_are_cut(agent: LocalAgent) -> None:
    agent.failure = ConfigError("ä" * 100_000, allowed="ß" * 100_000, next_step="€" * 100_000)
    with pytest.raises(ConfigError) as caught:
        agent.client().status()
    assert 100 < len(caught.value.found) < 1000


@pytest.mark.parametrize("name", ["Status", "Watch", "Pause", "Resume", "Rounds"])
def test_a_call_without_its_message_is_refused(agent: LocalAgent, name: str) -> None:
    assert agent.refusal(name).code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("name", ["Status", "Pause", "Score"])
def test_messages_too_large_or_compressed_are_refused(agent: LocalAgent, name: str) -> None:
    error = agent.refusal(name, b"\x2a" + b"x" * (MAX_MESSAGE + 1))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    error = agent.refusal(name, b"\x00" * 100_000, compression=grpc.Compression.Gzip)
    assert error.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL)


def test_unknown_calls_and_large_metadata_are_refused(agent: LocalAgent) -> None:
    assert agent.refusal("Shutdown", b"").code() == grpc.StatusCode.UNIMPLEMENTED
    error = agent.refusal("Status", b"", metadata=[("x", "y" * 20_000)])
    assert error.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL)


def test_a_message_that_never_comes_ends_the_call(agent: LocalAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedsite.client.local.local_api.REQUEST_S", 0.1)
    never = threading.Event()

    def nothing() -> Iterator[bytes]:
        never.wait(60.0)
        yield b""

    method = agent.channel.stream_stream(f"/{local_limits.SERVICE}/Pause")
    with pytest.raises(grpc.RpcError) as caught:
        list(method(nothing(), timeout=30.0))
    assert caught.value.code() == grpc.StatusCode.CANCELLED
    never.set()
    assert pause.read(agent.directory, instants.now()) is None


def test_the_agents_loop_never_waits_for_a_watcher_that_does_not_read(agent: LocalAgent) -> None:
    watch = agent.channel.stream_stream(f"/{local_limits.SERVICE}/Watch")(iter([b""]))
    next(watch)
    for number in range(2000):
        agent.board.report({"state": "working", "round": number, "error": "x" * 1000})
    assert agent.client().status()["agent"]["state"] == "working"
    watch.cancel()


@pytest.mark.parametrize("name", ["with space", "100%", "a?b#c", "Größe", "%41"])
def test_any_directory_will_do(name: str) -> None:
    directory = short_directory()
    try:
        with LocalAgent(directory / name) as running:
            assert running.well()
            assert (directory / name / "agent.sock").exists()
            with LocalAgent(directory / name) as second:  # the first was killed, its socket is still there
                assert second.well()
    finally:
        drop(directory)


def test_a_socket_that_cannot_be_made_is_told_and_the_agent_does_without(tmp_path: Path) -> None:
    (tmp_path / "agent.sock").write_text("in the way")
    with pytest.raises(StorageError, match="no socket at"), LocalAgent(tmp_path):
        pass
    with local_serving.serving(tmp_path, Settings(), Board(pid=17)) as path:
        assert path is None


def test_closing_lets_everybody_go_and_takes_the_socket_away() -> None:
    directory = short_directory()
    try:
        with LocalAgent(directory) as running:
            watch = running.client().watch()
            next(watch)
            running.api.close()
            with pytest.raises(UnreachableError):
                next(watch)
            assert running.scoring.closed >= 1
            assert local_socket.find(directory) is None
            with pytest.raises(UnreachableError, match="did not answer"):
                running.client().status()
    finally:
        drop(directory)
