"""A small HTTP proxy that knows CONNECT and nothing else, and lets names lead to ports of this machine."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass
class ConnectProxy:
    """Serves from a thread until `close`.

    Args:
        hosts: "name:port" → port here; everything else is 403.
        tls: where the proxy itself speaks TLS.
        password: "user:password" that it asks for.
    """

    hosts: Mapping[str, int]
    tls: ssl.SSLContext | None = None
    password: str = ""
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def close(self) -> None:
        """End, with every connection."""
        for one in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def __enter__(self) -> ConnectProxy:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _serve(self) -> None:
        accept(self._listener, lambda one: threading.Thread(target=self._answer, args=(one,), daemon=True).start())

    def _answer(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self.tls is not None:
                client = self.tls.wrap_socket(client, server_side=True)
            self._open.append(client)
            head = b""
            while b"\r\n\r\n" not in head and (part := client.recv(4096)):
                head += part
            words = head.decode("latin-1").split("\r\n")
            target = words[0].split(" ")[1]
            self.asked.append(words[0])
            wanted = base64.b64encode(self.password.encode()).decode()
            if self.password and f"proxy-authorization: basic {wanted}".lower() not in head.decode("latin-1").lower():
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
                client.close()
                return
            if not words[0].startswith("CONNECT ") or target not in self.hosts:
                client.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
                client.close()
                return
            server = socket.create_connection(("127.0.0.1", self.hosts[target]))
            self._open.append(server)
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            threading.Thread(target=copy, args=(server, client), daemon=True).start()
            copy(client, server)


def accept(listener: socket.socket, answer: Callable[[socket.socket], None]) -> None:
    """Give every connection to `answer`, until the listener is closed."""
    with contextlib.suppress(OSError):
        while True:
            answer(listener.accept()[0])


def copy(source: socket.socket, sink: socket.socket) -> None:
    """What comes from one end goes to the other, until either ends."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    for one in (source, sink):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
