"""Bytes on the agent's socket that no client would write: they change nothing, and the next call is answered."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsite.client.consent import pause
from fedsite.client.local import local_limits
from fedsite.protocol import instants, local_pb2
from tests.local_agent import LocalAgent, listening

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


@pytest.fixture(scope="module")
def agent() -> Iterator[LocalAgent]:
    with listening() as running:
        yield running


@pytest.fixture(autouse=True)
def _as_before(agent: LocalAgent) -> Iterator[None]:
    yield
    agent.as_before()


MALFORMED = st.binary(max_size=300).filter(lambda data: not _parses(data, local_pb2.PauseRequest))


@settings(max_examples=60)
@given(st.sampled_from(["Status", "Watch", "Resume", "Rounds", "Score", "Pause"]), MALFORMED)
def test_malformed_messages_change_nothing(agent: LocalAgent, name: str, data: bytes) -> None:
    error = agent.refusal(name, data)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert pause.read(agent.directory, instants.now()) is None


@settings(max_examples=60)
@given(st.binary(max_size=400), st.sampled_from([b"", PREFACE, PREFACE + SETTINGS]))
def test_random_bytes_on_the_socket_change_nothing(agent: LocalAgent, data: bytes, before: bytes) -> None:
    agent.write(before + data)
    assert pause.read(agent.directory, instants.now()) is None


@settings(max_examples=40)
@given(st.data())
def test_damaged_frames_of_a_real_call_change_nothing(agent: LocalAgent, data: Any) -> None:
    whole = bytearray(PREFACE + SETTINGS + HEADERS + DATA)
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(len(PREFACE), len(whole) - 1))] = data.draw(st.integers(0, 255))
    agent.write(bytes(whole[: data.draw(st.integers(len(PREFACE), len(whole)))]))
    assert agent.well()


def test_more_connections_than_allowed_leave_those_that_are_there(agent: LocalAgent) -> None:
    assert agent.well()
    many = [socket.socket(socket.AF_UNIX) for _ in range(3 * local_limits.MAX_CONNECTIONS)]
    for one in many:
        one.settimeout(1.0)
        one.connect(str(agent.api.path))
    assert agent.well()
    for one in many:
        one.close()
    assert agent.well()


def _parses(data: bytes, kind: Any) -> bool:
    try:
        kind().ParseFromString(data)
    except Exception:
        return False
    return True


def _literal(name: bytes, value: bytes) -> bytes:
    """A header as HPACK's literal without indexing (RFC 7541, 6.2.2)."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def _frame(kind: int, flags: int, body: bytes) -> bytes:
    """An HTTP/2 frame of stream 1 (RFC 9113, 4.1)."""
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + (1).to_bytes(4, "big") + body


HEADERS = _frame(
    1,
    4,
    _literal(b":method", b"POST")
    + _literal(b":scheme", b"http")
    + _literal(b":path", b"/fedsite.local.v1.Agent/Rounds")
    + _literal(b":authority", b"localhost")
    + _literal(b"content-type", b"application/grpc")
    + _literal(b"te", b"trailers"),
)
DATA = _frame(0, 1, b"\x00\x00\x00\x00\x00")
