"""What an answer may be, whoever gives it: so large, not packed, and not drop by drop.

A server, or a proxy before there is a server, that sends a byte now and then would hold a request for ever: the time
limit of a read begins anew with each. So what has begun to come has to go on at `SLOWEST` bytes a second.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpcore
import httpx

ANSWER_BYTES = 32 << 20  # an object of a message has 5 MiB
ASKED = "fedsite_bytes"  # extension of a request that asks for more
SLOWEST = 1000.0  # bytes a second
PATIENCE_S = 60.0  # before that counts


class _Body(httpx.SyncByteStream):
    """The body of an answer, up to so many bytes."""

    def __init__(self, body: httpx.SyncByteStream, limit: int) -> None:
        self._body = body
        self._limit = limit

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for part in self._body:
            size += len(part)
            if size > self._limit:
                raise httpx.RemoteProtocolError(f"an answer of more than {self._limit} bytes")
            yield part

    def close(self) -> None:
        self._body.close()


def bound(answer: httpx.Response) -> None:
    """Refuse a packed body, whose size nobody knows, and bound the others; a hook, called before the body is read.

    Raises:
        httpx.RemoteProtocolError: it is packed, or, as it is read, too large.
    """
    packed = answer.headers.get("content-encoding", "identity")
    if packed.lower() != "identity":
        raise httpx.RemoteProtocolError(f"an answer packed with {packed[:40]!r}, which nobody asked for")
    assert isinstance(answer.stream, httpx.SyncByteStream)
    answer.stream = _Body(answer.stream, int(answer.request.extensions.get(ASKED, ANSWER_BYTES)))


def transport(
    tls: ssl.SSLContext, proxy: httpx.Proxy | None, limits: httpx.Limits, *, clock: Callable[[], float] = time.monotonic
) -> httpx.HTTPTransport:
    """Connections, through the proxy if there is one, whose answers have to go on once they have begun."""
    found = httpx.HTTPTransport(verify=tls, trust_env=False, proxy=proxy, limits=limits)
    found._pool._network_backend = _Backend(clock)  # httpx passes none on
    return found


class _Stream(httpcore.NetworkStream):
    """A connection; what comes back is counted from its first byte, anew after each write."""

    def __init__(self, stream: httpcore.NetworkStream, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._began: float | None = None
        self._size = 0

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self._stream.read(max_bytes, timeout)
        now = self._clock()
        if self._began is None:
            self._began, self._size = now, 0
        self._size += len(data)
        if now - self._began > PATIENCE_S + self._size / SLOWEST:
            raise httpcore.ReadTimeout(f"{self._size} bytes of an answer in {now - self._began:.0f} s")
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._began = None
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, timeout), self._clock)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Backend(httpcore.SyncBackend):
    """Makes such connections."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def connect_tcp(self, *arguments: Any, **names: Any) -> httpcore.NetworkStream:
        return _Stream(super().connect_tcp(*arguments, **names), self._clock)
