"""The agent's own API on a unix socket (protocol/local.proto): status, watch, pause, resume, rounds, score.

It runs in threads of its own and never holds the agent's loop up: what it tells it reads from the board and from files,
what it changes is a file that the loop reads before the next instruction. Whatever comes over the socket, the worst it
gets is an error: no message is believed before it is parsed, every call has a bound on its size and its time, and there
are only so many at once (local_limits.py).
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc

from fedsite.client.local import local_socket
from fedsite.client.local.local_calls import Calls
from fedsite.client.local.local_errors import DETAILS, encode, status_of
from fedsite.client.local.local_limits import (
    CALLS,
    MAX_CONNECTIONS,
    MAX_MESSAGE,
    MAX_METADATA,
    REQUEST_S,
    SERVICE,
    WINDOWS_S,
)
from fedsite.protocol.errors import DocumentError, FedsiteError, StorageError

_log = logging.getLogger(__name__)

_LOOK_S: Final = 1.0  # between two looks for calls that take too long

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_metadata_size", MAX_METADATA),
    ("grpc.absolute_max_metadata_size", MAX_METADATA),
    ("grpc.max_concurrent_streams", 16),
    ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
    ("grpc.server_handshake_timeout_ms", 5_000),
    ("grpc.max_connection_idle_ms", 600_000),
    ("grpc.compression_enabled_algorithms_bitset", 1),  # none: a small message may not become a large one
    ("grpc.so_reuseport", 0),
    (
        "grpc.http2.bdp_probe",
        0,
    ),  # a fast caller is held up, and does not fill our memory
    ("grpc.http2.lookahead_bytes", 1 << 16),
)


@dataclass(slots=True)
class _Call:
    """One call that is being answered."""

    name: str
    cancel: Callable[[], Any]
    until: float  # monotonic; infinite where it may take its time


@dataclass(slots=True)
class _Live:
    """The calls that are being answered, and those that wait too long for their next message."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    calls: list[_Call] = field(default_factory=list)

    @contextmanager
    def entered(self, name: str, cancel: Callable[[], Any]) -> Iterator[_Call]:
        """Count a call while it is answered.

        Raises:
            _TooManyError: there are as many as may be.
        """
        group = name if name in CALLS else ""
        call = _Call(name=group, cancel=cancel, until=time.monotonic() + REQUEST_S)
        with self.lock:
            if sum(other.name == group for other in self.calls) >= CALLS[group]:
                raise _TooManyError(f"{CALLS[group]} calls of this kind at once")
            self.calls.append(call)
        try:
            yield call
        finally:
            with self.lock:
                self.calls.remove(call)

    def end_late(self, now: float) -> None:
        """Cancel what has waited too long."""
        with self.lock:
            late = [call for call in self.calls if now > call.until]
        for call in late:
            call.cancel()


class _TooManyError(Exception):
    """No more calls of this kind now."""


class LocalApi:
    """The server on the socket."""

    def __init__(self, path: Path, calls: Calls) -> None:
        """Prepare, without listening.

        Args:
            path: of the socket (local_socket.prepare).
            calls: answers what was asked.
        """
        self.path = path
        self._calls = calls
        self._live = _Live()
        self._ended = threading.Event()
        self._server: Any = None

    def start(self) -> None:
        """Listen; called before this process has other threads.

        Raises:
            StorageError: the socket cannot be made.
        """
        threads = futures.ThreadPoolExecutor(sum(CALLS.values()), thread_name_prefix="local-api")
        self._server = grpc.server(
            threads,
            handlers=(grpc.method_handlers_generic_handler(SERVICE, self._handlers()),),
            options=_OPTIONS,
            maximum_concurrent_rpcs=sum(CALLS.values()),
        )
        try:
            with local_socket.private_creation():
                bound = self._server.add_insecure_port(local_socket.target(self.path))
            if not bound:
                raise RuntimeError("not bound")
        except RuntimeError as error:
            raise StorageError(
                f"no socket at {self.path} ({str(error).splitlines()[0][:200]})",
                allowed="a directory whose file system has sockets",
                next_step="set FEDSITE_HOME to a directory on a local disk",
            ) from None
        self._server.start()
        threading.Thread(target=self._look, name="local-api-time", daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether any call is being answered."""
        return bool(self._live.calls)

    def close(self) -> None:
        """Stop listening, let go of every caller, and take the socket away; never raises."""
        self._ended.set()
        self._calls.close()
        if self._server is not None:
            self._server.stop(0.2).wait(2.0)
        local_socket.remove(self.path)

    def _handlers(self) -> dict[str, Any]:
        # On the wire a call with one message is a stream of one; taking all as streams, a caller who announces a
        # message and never sends it is noticed like any other.
        return {
            name: grpc.stream_stream_rpc_method_handler(self._answering(name, answer))
            for name, answer in self._calls.table().items()
        }

    def _answering(self, name: str, answer: Callable[..., Iterator[Any]]) -> Callable[[Any, Any], Iterator[bytes]]:
        def serve(requests: Any, context: Any) -> Iterator[bytes]:
            context.add_callback(self._calls.left)
            try:
                with self._live.entered(name, context.cancel) as call:
                    for reply in answer(_timed(requests, call, WINDOWS_S), context.is_active):
                        yield reply.SerializeToString()
            except _TooManyError as error:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
            except FedsiteError as error:
                _end(context, error)
            except Exception as error:
                if not context.is_active():
                    return  # the caller has gone, which ends the stream with an exception of gRPC's
                if hasattr(error, "found"):
                    _end(context, error)
                _log.exception("a call of the local API failed: %s", name)
                context.abort(grpc.StatusCode.INTERNAL, type(error).__name__)

        return serve

    def _look(self) -> None:
        while not self._ended.wait(_LOOK_S):
            with suppress(Exception):
                self._live.end_late(time.monotonic())
                self._calls.rest()


def _timed(requests: Any, call: _Call, between_s: float) -> Iterator[bytes]:
    """The messages of a call, each with a time until which it has to be there whole."""
    for request in requests:
        call.until = float("inf")
        if not isinstance(request, bytes):
            raise DocumentError("a message that is no bytes")
        yield request
        call.until = time.monotonic() + between_s


def _end(context: Any, error: BaseException) -> None:
    """End a call with an error as the commands print it."""
    context.set_trailing_metadata(((DETAILS, encode(error)),))
    context.abort(status_of(error), str(getattr(error, "found", ""))[:300])


os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what strangers write on the socket is not worth a line each
