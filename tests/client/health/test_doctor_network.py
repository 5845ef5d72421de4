"""The way to the server, measured against servers that are not what they should be."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fedsite.client.health import doctor_network
from fedsite.client.health.doctor_network import Way
from fedsite.client.health.findings import Finding
from fedsite.client.link.flower_client import site_tls
from fedsite.protocol import certificates, documents, instants, shape
from fedsite.protocol.enrolment import Offer
from fedsite.protocol.errors import ExitCode
from fedsite.protocol.federation import Federation
from fedsite.protocol.keys import SigningKey, TlsKey
from tests.authority import AUTHORITY

Serve = Callable[[socket.socket], None]


def federation(port: int) -> Federation:
    key = SigningKey.generate()
    return Federation(
        id=key.public.id, name="test", address=f"127.0.0.1:{port}", ca_certificate=AUTHORITY.certificate,
        signing_key=key.public.text,
    )  # fmt: skip


@contextlib.contextmanager
def listening(serve: Serve) -> Iterator[int]:
    """A port on which each connection is given to `serve`."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def loop() -> None:
            while True:
                try:
                    taken, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=handle, args=(taken,), daemon=True).start()

        def handle(taken: socket.socket) -> None:
            with taken, contextlib.suppress(OSError, ssl.SSLError):
                serve(taken)

        threading.Thread(target=loop, daemon=True).start()
        yield server.getsockname()[1]


@dataclass
class Host:
    """A TLS server that answers every request with the same bytes."""

    folder: Path
    authority: certificates.Authority = AUTHORITY
    ahead: timedelta = timedelta(0)  # of its clock
    days: int = 300
    issued: datetime | None = None
    offer: bytes | None = None
    status: str = "200 OK"
    port: int = 0

    def __call__(self, taken: socket.socket) -> None:
        with self.context().wrap_socket(taken, server_side=True) as secure:
            while True:
                asked = b""
                while b"\r\n\r\n" not in asked:
                    part = secure.recv(65_536)
                    if not part:
                        return
                    asked += part
                head, _, sent = asked.partition(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
                while length is not None and len(sent) < int(length[1]):
                    sent += secure.recv(65_536)
                body = self.body()
                secure.sendall(f"HTTP/1.1 {self.status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)

    def context(self) -> ssl.SSLContext:
        key = TlsKey.generate()
        issued = self.issued or instants.now()
        pem = certificates.issue_server(self.authority, key, f"127.0.0.1:{self.port or 1}", issued, days=self.days)
        path = self.folder / f"{threading.get_ident()}-{time.monotonic_ns()}.pem"
        path.write_bytes(key.pem + pem.encode())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def body(self) -> bytes:
        if self.offer is not None:
            return self.offer
        offer = Offer(federation=shape.plain(federation(9)), time=instants.text(instants.now() + self.ahead))
        return documents.canonical(shape.plain(offer))


def way(port: int, **changes: Any) -> Way:
    return Way(federation(port), **{"step_s": 1.0, "measure_s": 1.0, **changes})


def met(port: int, **changes: Any) -> Finding | None:
    """What the steps up to the handshake say."""
    found = way(port, **changes)
    return found.resolve() or found.connect() or found.handshake()


def test_a_server_of_ours_is_well(tmp_path: Path) -> None:
    with listening(Host(tmp_path)) as port:
        found = way(port)
        assert (found.resolve(), found.connect(), found.handshake()) == (None, None, None)
    assert found.found.addresses == ("127.0.0.1",)
    assert found.found.tls.startswith("TLSv1")
    assert len(found.found.fingerprint) == 64
    assert abs(found.found.clock_ahead_s or 9.0) < 1.5


def test_a_box_that_opens_the_connection_is_named_with_its_authority(tmp_path: Path) -> None:
    other = certificates.make_authority("ab" * 16, "Proxy Inc", datetime.now(UTC))
    with listening(Host(tmp_path, authority=other, ahead=timedelta(hours=3))) as port:
        found = met(port)
    assert found is not None
    assert (found.code, found.severity, found.exit_code) == ("intercepted", "error", ExitCode.TRUST)
    assert "Proxy Inc" in found.text


@pytest.mark.parametrize(
    ("ahead", "severity", "words"),
    [
        (timedelta(hours=1), "error", "behind the server's"),
        (timedelta(hours=-1), "error", "ahead of the server's"),
        (timedelta(seconds=-4.5), "warning", "ahead of the server's"),
    ],
)
def test_a_clock_that_is_wrong_is_named_with_its_distance(
    tmp_path: Path, ahead: timedelta, severity: str, words: str
) -> None:
    with listening(Host(tmp_path, ahead=ahead)) as port:
        found = met(port)
    assert found is not None
    assert (found.code, found.severity) == ("clock", severity)
    assert words in found.text


def test_a_clock_years_off_is_not_taken_for_an_expired_certificate(tmp_path: Path) -> None:
    with listening(Host(tmp_path)) as port:
        found = met(port, clock=lambda: instants.now() + timedelta(days=2000))
    assert found is not None
    assert found.code == "clock"


def test_an_expired_certificate_of_ours_is_the_servers_own_trouble(tmp_path: Path) -> None:
    with listening(Host(tmp_path, issued=instants.now() - timedelta(days=30), days=10)) as port:
        found = met(port)
    assert found is not None
    assert (found.code, found.exit_code) == ("server-certificate", ExitCode.TRUST)


def silent(taken: socket.socket) -> None:
    taken.recv(1)
    time.sleep(20)


def dripping(taken: socket.socket) -> None:
    """Never ends, never lets a single wait run out."""
    for _ in range(100):
        taken.sendall(b"\x16")
        time.sleep(0.3)


def talkative(taken: socket.socket) -> None:
    taken.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
    taken.recv(100)


def gone(taken: socket.socket) -> None:
    """Hangs up."""


@pytest.mark.parametrize("serve", [silent, dripping, talkative, gone])
def test_a_port_that_is_half_open_or_another_programs_is_told_in_bounded_time(serve: Serve) -> None:
    began = time.monotonic()
    with listening(serve) as port:
        found = met(port)
    assert found is not None
    assert (found.code, found.severity, found.exit_code) == ("tls", "error", ExitCode.UNREACHABLE)
    assert found.remedy
    assert time.monotonic() - began < 8


@pytest.mark.parametrize("offer", [b"", b"hello", b"{}", b'{"schema":"fedsite.offer/1"}', b"\xff" * 100_000])
def test_a_server_that_offers_nonsense_is_named(tmp_path: Path, offer: bytes) -> None:
    with listening(Host(tmp_path, offer=offer)) as port:
        found = met(port)
    assert found is not None
    assert found.code == "tls"


def test_a_closed_port_and_a_name_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    found = met(port)
    assert found is not None
    assert (found.code, found.exit_code) == ("connect", ExitCode.UNREACHABLE)

    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(doctor_network.socket, "getaddrinfo", unknown)
    found = met(port)
    assert found is not None
    assert (found.code, found.text) == ("resolve", "127.0.0.1: Name or service not known")
    monkeypatch.setattr(doctor_network.socket, "getaddrinfo", lambda *_, **__: time.sleep(30))
    began = time.monotonic()
    found = met(port)
    assert found is not None
    assert "no answer in 1 s" in found.text
    assert time.monotonic() - began < 5


def test_a_proxy_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "ftp://user:secret@proxy")
    found = Way(replace(federation(9), address="fl.example.org:9443")).resolve()
    assert found is not None
    assert found.code == "proxy"
    assert "secret" not in found.text + found.remedy


@pytest.mark.parametrize(
    ("status", "admitted", "measured"),
    [
        ("200 OK", None, None),
        ("401 Unauthorized", "accepted", "throughput"),
        ("403 Forbidden\r\nfedsite-refused: 1", "accepted", "throughput"),
        ("404 Not Found\r\nfedsite-refused: 1", None, "throughput"),  # a server from before /ping
        ("500 Internal Server Error", "accepted", "throughput"),
        ("429 Too Many Requests", "accepted", "throughput"),
    ],
)
def test_what_the_server_says_to_a_ping(
    tmp_path: Path, status: str, admitted: str | None, measured: str | None
) -> None:
    host = Host(tmp_path, status=status, offer=b"")
    with listening(host) as port:
        found = way(port)
        tls = site_tls(federation(port))
        admission, speed = found.accepted(tls), found.throughput(tls, 1000)
    assert (admission and admission.code, speed and speed.code) == (admitted, measured)
    assert (found.found.latency_ms is None) == (status != "200 OK")


def test_a_server_that_never_answers_a_ping_costs_bounded_time(tmp_path: Path) -> None:
    class Mute(Host):
        def __call__(self, taken: socket.socket) -> None:
            with self.context().wrap_socket(taken, server_side=True) as secure:
                secure.recv(65_536)
                dripping(secure)

    began = time.monotonic()
    with listening(Mute(tmp_path)) as port:
        tls = site_tls(federation(port))
        found = way(port, measure_s=0.5)
        admission, speed = found.accepted(tls), found.throughput(tls, 1000)
    assert (admission and admission.code, speed and speed.code) == ("accepted", "throughput")
    assert time.monotonic() - began < 10
