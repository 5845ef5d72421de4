"""Whatever comes over the agent's socket: an answer or an error of ours, and the agent as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsite.client.consent import pause
from fedsite.client.device.score_link import ScoreLink
from fedsite.client.local.local_limits import MAX_WINDOWS
from fedsite.client.work import pipe
from fedsite.protocol import instants, local_pb2
from fedsite.protocol.errors import ConfigError, DataError, FedsiteError
from tests.local_agent import LocalAgent, drop, short_directory

NAMES = st.sampled_from(["Status", "Watch", "Pause", "Resume", "Rounds", "Score"])
ANSWERS = {
    "Status": local_pb2.SiteStatus, "Watch": local_pb2.SiteStatus, "Pause": local_pb2.Paused,
    "Resume": local_pb2.Paused, "Rounds": local_pb2.RoundList, "Score": local_pb2.Scores,
}  # fmt: skip
NAMED = (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)
SIZES = st.integers(0, (1 << 32) - 1) | st.integers(0, 4)
REASONS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
WHOLE = st.one_of(
    st.builds(local_pb2.PauseRequest, seconds=st.integers(0, (1 << 64) - 1), reason=REASONS),
    st.builds(local_pb2.Windows, task=REASONS, windows=SIZES, time=SIZES, features=SIZES, values=st.binary()),
).map(lambda message: message.SerializeToString())
# Noise, messages of other calls, and messages that were cut or overwritten.
MESSAGES = (
    st.binary(max_size=300)
    | WHOLE
    | st.builds(lambda data, at, junk: data[:at] + junk, WHOLE, st.integers(0, 99), st.binary(max_size=9))
)


def counted(operation: str, arguments: Any, blobs: Any, *, timeout_s: float) -> pipe.Message:
    """Stands for the scoring process: windows that get there are what they say."""
    windows, time, features = arguments["shape"]
    assert 4 * windows * time * features == len(blobs["x"]) > 0
    assert windows <= MAX_WINDOWS
    told = {"version": "1", "shape": [windows], "milliseconds": 1.0, "threshold": None}
    return pipe.Message(header=told, blobs={"values": b""})


@pytest.fixture(scope="module")
def agent() -> Iterator[LocalAgent]:
    directory = short_directory()
    scoring = ScoreLink(directory, memory_bytes=0)
    scoring._worker.call = counted  # type: ignore[method-assign]
    try:
        with LocalAgent(directory, scoring=scoring) as running:  # type: ignore[arg-type]
            yield running
            running.as_before()
    finally:
        drop(directory)


def ended(agent: LocalAgent) -> None:
    """End a pause that a message made; none was ever damaged."""
    held = pause.read(agent.directory, instants.now())
    assert held is None or "damaged" not in held.reason
    pause.end(agent.directory, instants.now())


@settings(deadline=None, max_examples=150)
@given(NAMES, st.lists(MESSAGES, max_size=3))
def test_a_call_ends_with_its_answer_or_an_error_of_ours(agent: LocalAgent, name: str, messages: list[bytes]) -> None:
    answered = []
    with contextlib.suppress(FedsiteError):
        answered = list(agent.calls().table()[name](iter(messages), lambda: False))
    assert all(isinstance(answer, ANSWERS[name]) for answer in answered)
    ended(agent)


@settings(deadline=None, max_examples=60)
@given(NAMES, st.lists(MESSAGES, max_size=2))
def test_over_the_socket_the_errors_are_named_and_the_agent_answers_on(
    agent: LocalAgent, name: str, messages: list[bytes]
) -> None:
    method = agent.channel.stream_stream(f"/fedsite.local.v1.Agent/{name}")
    call = method(iter(messages), timeout=20.0)
    ended_as = grpc.StatusCode.OK
    try:
        for data in call:
            ANSWERS[name].FromString(data)
            if name == "Watch":
                break
    except grpc.RpcError as error:
        ended_as = error.code()
    call.cancel()
    assert ended_as in NAMED
    ended(agent)
    assert agent.well()


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([b"", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n"]), st.binary(max_size=500))
def test_bytes_that_are_no_call_at_all(agent: LocalAgent, begin: bytes, data: bytes) -> None:
    agent.write(begin + data)
    assert agent.well()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, (1 << 64) - 1) | st.integers(0, 10**7), REASONS)
def test_a_pause_is_what_was_asked_for_or_refused(agent: LocalAgent, seconds: int, reason: str) -> None:
    asked = local_pb2.PauseRequest(seconds=seconds, reason=reason).SerializeToString()
    try:
        (told,) = agent.calls().table()["Pause"](iter([asked]), lambda: True)
    except ConfigError:
        assert pause.read(agent.directory, instants.now()) is None
        assert seconds > pause.LONGEST.total_seconds() or len(reason) > 200 or not reason.isprintable()
        return
    held = pause.read(agent.directory, instants.now())
    assert held is not None
    assert (held.until is None, told.pause.reason) == (seconds == 0, held.reason)
    if held.until is not None:
        assert (held.until - held.since).total_seconds() == seconds
    ended(agent)


@given(SIZES, SIZES, SIZES, st.binary(max_size=256))
def test_windows_that_are_not_what_they_say_never_reach_the_scoring_process(
    agent: LocalAgent, windows: int, time: int, features: int, values: bytes
) -> None:
    asked = local_pb2.Windows(windows=windows, time=time, features=features, values=values)
    if 4 * windows * time * features == len(values) > 0:
        assert list(agent.scoring.score(asked).shape) == [windows]
        return
    with pytest.raises(DataError, match="windows"):
        agent.scoring.score(asked)
