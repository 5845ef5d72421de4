"""Answers that are too large, packed, or come drop by drop: broken off by name, wherever on the way they come from."""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest

from fedsite.client.link import bounds
from fedsite.client.link.flower_client import http_client

HEAD = b"HTTP/1.1 200 OK\r\nconnection: close\r\n"
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass
class Told:
    """A port, and what allows its next part: that the last one was read."""

    port: int
    read: threading.Semaphore = field(default_factory=threading.Semaphore)


@contextlib.contextmanager
def says(*parts: bytes) -> Iterator[Told]:
    """Whoever asks gets these parts, each in a read of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    told = Told(int(listener.getsockname()[1]))

    def serve() -> None:
        with contextlib.suppress(OSError):
            client, _ = listener.accept()
            with client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.recv(1 << 16)
                for part in parts:
                    told.read.acquire(timeout=5.0)
                    client.sendall(part)
                told.read.acquire(timeout=5.0)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield told
    finally:
        told.read.release(len(parts) + 1)
        listener.close()


def get(told: Told, *, step_s: float, limit: int = bounds.ANSWER_BYTES, proxy: bool = False) -> bytes:
    """One request, where each read takes `step_s` seconds."""
    seconds = 0.0

    def clock() -> float:
        nonlocal seconds
        seconds += step_s
        told.read.release()
        return seconds

    here = f"http://127.0.0.1:{told.port}"
    made = bounds.transport(TLS, httpx.Proxy(here) if proxy else None, httpx.Limits(), clock=clock)
    with httpx.Client(transport=made, trust_env=False, event_hooks={"response": [bounds.bound]}) as http:
        return http.get("https://fedsite.test/" if proxy else here, extensions={bounds.ASKED: limit}).content


def drops(data: bytes) -> list[bytes]:
    return [data[place : place + 1] for place in range(len(data))]


def test_a_byte_every_half_minute_is_no_answer_in_its_body_or_in_its_head() -> None:
    for parts in ([HEAD + b"\r\n", *drops(b"x" * 9)], drops(HEAD)):
        with says(*parts) as server, pytest.raises(httpx.ReadTimeout, match="bytes of an answer in 87 s"):
            get(server, step_s=29.0)


def test_a_proxy_that_drips_is_no_way_out_either() -> None:
    with says(*drops(b"HTTP/1.1 200 OK\r\n")) as proxy, pytest.raises(httpx.ReadTimeout, match="of an answer in 87 s"):
        get(proxy, step_s=29.0, proxy=True)


def test_a_slow_line_that_goes_on_has_its_time() -> None:
    parts = [bytes(20_000)] * 9
    with says(HEAD + b"\r\n", *parts) as server:
        assert get(server, step_s=15.0) == b"".join(parts)


def test_an_answer_has_so_many_bytes_and_no_more() -> None:
    with says(HEAD + b"\r\n" + bytes(100)) as server:
        assert len(get(server, step_s=0.0, limit=100)) == 100
    with (
        says(HEAD + b"\r\n" + bytes(101)) as server,
        pytest.raises(httpx.RemoteProtocolError, match="more than 100 bytes"),
    ):
        get(server, step_s=0.0, limit=100)


def test_a_packed_answer_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(1 << 24))
    with (
        says(HEAD + b"content-encoding: gzip\r\n\r\n" + bomb) as server,
        pytest.raises(httpx.RemoteProtocolError, match="packed with 'gzip'"),
    ):
        get(server, step_s=0.0)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: https://elsewhere.test/\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 200_000 + b"\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x16\x03\x01\x00\x05hello\r\n",
        b"",
    ],
    ids=["407", "redirect", "huge head", "another protocol", "bytes", "nothing"],
)
def test_a_proxy_that_talks_nonsense_is_no_answer(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with says(head + b"\r\n") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        with http_client("fedsite.test", TLS) as http, pytest.raises(httpx.HTTPError):
            http.get("https://fedsite.test/")


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_nobody_is_sent_elsewhere(status: int) -> None:
    with (
        says(b"HTTP/1.1 %d Moved\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n" % status) as server,
        http_client("127.0.0.1", TLS) as http,
    ):
        assert http.get(f"http://127.0.0.1:{server.port}/").status_code == status
