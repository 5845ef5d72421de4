"""Two doors of one process: a public TLS listener that asks for a client certificate, and plain HTTP on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fedsite.protocol.errors import ConfigError
from fedsite.server.link.guarded import PEER_SCOPE_KEY, App, Receive, Scope, Send

KEEP_ALIVE_S = 75  # longer than an idle agent's slowest poll, so that it never pays for a new TLS handshake
DRAIN_S = 2  # seconds for requests under way when the process is told to stop


class PeerCertificateProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose applications see the connection's client certificate in the scope."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Read the certificate once for each connection; the handshake has already checked its chain."""
        super().connection_made(transport)
        connection = transport.get_extra_info("ssl_object")
        certificate = connection.getpeercert(binary_form=True) if connection is not None else None
        inner = cast(App, self.app)

        async def with_peer(scope: Scope, receive: Receive, send: Send) -> None:
            scope[PEER_SCOPE_KEY] = certificate
            await inner(scope, receive, send)

        self.app = cast(Any, with_peer)


def tls_context(certificate: Path, key: Path, authority: str) -> ssl.SSLContext:
    """TLS 1.3 with our certificate; a client may show one, which then has to come from our authority (PEM)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(cadata=authority)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ConfigError: the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen(512)
    except OSError as error:
        found.close()
        reasons = {
            errno.EADDRINUSE: f"port {port} on {host} is in use",
            errno.EACCES: f"port {port} needs root",
            errno.EADDRNOTAVAIL: f"{host} is not an address of this machine",
        }
        raise ConfigError(
            reasons.get(error.errno or 0, f"cannot listen on {host}:{port}: {error.strerror}"),
            allowed="a free port from 1024 to 65535",
            next_step="fedsite server up --port PORT, or stop what uses it (ss -ltnp)",
        ) from None
    return found


class _Server(uvicorn.Server):
    """Signals are the process's business: two servers cannot both own them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(
    *,
    public: App,
    public_socket: socket.socket,
    context: ssl.SSLContext,
    loopback: App,
    loopback_socket: socket.socket,
    ready: Callable[[], None],
    stopping: Callable[[], None],
) -> None:
    """Serve both until SIGTERM or SIGINT, then call `stopping`. Only the loopback server runs the lifespan."""
    inner = _Server(_config(loopback, lifespan="on"))
    outer = _Server(
        _config(
            public,
            lifespan="off",
            http=PeerCertificateProtocol,
            ssl_context_factory=lambda _config, _default: context,
        )
    )
    factory = inner.config.get_loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_serve_both(inner, loopback_socket, outer, public_socket, ready, stopping))


def _config(app: App, **options: Any) -> uvicorn.Config:
    return uvicorn.Config(
        cast(Any, app),
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
        **options,
    )


async def _serve_both(
    inner: uvicorn.Server,
    inner_socket: socket.socket,
    outer: uvicorn.Server,
    outer_socket: socket.socket,
    ready: Callable[[], None],
    stopping: Callable[[], None],
) -> None:
    loop = asyncio.get_running_loop()

    def stop() -> None:
        inner.should_exit = outer.should_exit = True
        stopping()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    # Loopback first: the public door opens on a started application only.
    inner_task = asyncio.create_task(inner.serve(sockets=[inner_socket]))
    while not inner.started and not inner_task.done():
        await asyncio.sleep(0.01)
    if inner_task.done():
        await inner_task
        return
    outer_task = asyncio.create_task(outer.serve(sockets=[outer_socket]))
    while not outer.started and not outer_task.done():
        await asyncio.sleep(0.01)
    ready()
    await asyncio.wait({inner_task, outer_task}, return_when=asyncio.FIRST_COMPLETED)
    stop()
    await asyncio.gather(inner_task, outer_task)
