"""`fedsite doctor` on the way to the server: each step is measured, in bounded time, and says what it rests on.

Nothing is believed of a server whose certificate the federation's authority did not issue, not even its time.
"""

from __future__ import annotations

import errno
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final, NoReturn, TypeVar

import httpx

from fedsite.client.health import checks as health_checks
from fedsite.client.health import doctor_speed
from fedsite.client.health import findings as health
from fedsite.client.health.doctor_speed import Line
from fedsite.client.health.findings import Finding
from fedsite.client.link import proxy
from fedsite.client.link.flower_client import REFUSED_HEADER, http_client, status_error, transport_error
from fedsite.protocol import certificates, instants
from fedsite.protocol.enrolment import MAX_BYTES, parse_offer
from fedsite.protocol.errors import ExitCode, FedsiteError
from fedsite.protocol.federation import Federation

STEP_S: Final = 5.0  # for a name, a connection, a handshake, a short answer
MEASURE_S: Final = 20.0  # for all bytes of one direction

Clock = Callable[[], datetime]
T = TypeVar("T")
BROKEN: Final = (httpx.HTTPError, OSError, RuntimeError, ValueError)  # what a server, or a proxy, makes httpx raise
_REACHED: Final = ("proxy", "resolve", "connect")
_TRUSTED: Final = (*_REACHED, "tls", "intercepted", "clock", "server-certificate")


@dataclass(slots=True, kw_only=True)
class Network:
    """What was measured; None where it could not be."""

    address: str
    proxy: str = ""
    addresses: tuple[str, ...] = ()
    connect_ms: float | None = None
    tls: str = ""  # protocol version
    fingerprint: str = ""  # SHA-256 of the certificate that was shown, hex
    clock_ahead_s: float | None = None
    latency_ms: float | None = None
    payload_bytes: int | None = None
    upload_bytes_s: float | None = None
    download_bytes_s: float | None = None


class Way:
    """Measures the way from this host to the federation's server, one step after the other."""

    def __init__(
        self,
        federation: Federation,
        *,
        clock: Clock = instants.now,
        step_s: float = STEP_S,
        measure_s: float = MEASURE_S,
    ) -> None:
        """`clock` is this host's; `step_s` and `measure_s` bound each wait, in seconds."""
        self.found = Network(address=federation.address)
        self._federation = federation
        self._clock = clock
        self._step_s = step_s
        self._measure_s = measure_s
        self._next = federation.host, federation.port  # what to connect to: the server, or a proxy

    def resolve(self) -> Finding | None:
        """The addresses of the server, or of the proxy in front of it."""
        try:
            chosen = proxy.choose(self._federation.host, self._federation.port)
        except FedsiteError as error:
            return health.from_error("proxy", "the proxy cannot be used", error)
        if chosen is not None:
            self.found.proxy = proxy.named(chosen)
            host, _, port = self.found.proxy.rpartition(":")
            self._next = host, int(port)
        host, port_number = self._next
        try:
            self.found.addresses = within(self._step_s, lambda: _resolve(host, port_number))
        except (OSError, UnicodeError) as error:
            return Finding(
                code="resolve",
                severity="error",
                title="the name is not known",
                text=f"{host}: {getattr(error, 'strerror', None) or error}",
                remedy="check the name and this host's resolver (getent hosts NAME; /etc/resolv.conf)",
                depends_on=("proxy",),
                exit_code=ExitCode.UNREACHABLE,
            )
        return None

    def connect(self) -> Finding | None:
        """The first address that takes a connection."""
        reason = "no address"
        for address in self.found.addresses[:3]:
            began = time.monotonic()
            try:
                with socket.create_connection((address, self._next[1]), timeout=self._step_s):
                    self.found.connect_ms = (time.monotonic() - began) * 1000
                    return None
            except OSError as error:
                reason = f"{address}: {error.strerror or error}"
        return Finding(
            code="connect",
            severity="error",
            title="no connection",
            text=f"port {self._next[1]} of {reason}",
            remedy="is the server up (fedsite server up)? may this host connect to it (firewall, HTTPS_PROXY)?",
            depends_on=("proxy", "resolve"),
            exit_code=ExitCode.UNREACHABLE,
        )

    def handshake(self) -> Finding | None:
        """The certificate that is shown, against the one authority this site was told to trust; then the time."""
        began = self._clock()
        try:
            der, version, offer = within(self._step_s * 2, self._look)
            self.found.tls, self.found.fingerprint = version, certificates.fingerprint(der)
            foreign = self._foreign(der)
            if foreign is not None:
                return foreign
            took = (self._clock() - began).total_seconds()
            theirs = instants.read(parse_offer(offer).time) + timedelta(seconds=0.5)  # whole seconds were cut off
        except FedsiteError as error:
            return health.from_error("tls", "another program answers", error, depends_on=_REACHED)
        except BROKEN as error:
            why = transport_error(error, self.found.address)
            return health.from_error("tls", "no secure connection", why, depends_on=_REACHED)
        self.found.clock_ahead_s = (began - theirs).total_seconds() + took / 2
        return health_checks.clock(self.found.clock_ahead_s, 0.5 + took / 2) or self._dated(der)

    def _look(self) -> tuple[bytes, str, bytes]:
        """The certificate (DER) that is shown, the protocol's version, and the offer."""
        unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        unverified.check_hostname = False
        unverified.verify_mode = ssl.CERT_NONE  # to see whose it is; it is checked afterwards
        with (
            http_client(self._federation.host, unverified, self._federation.port) as http,
            http.stream("GET", f"https://{self._federation.address}/enrol", timeout=self._step_s) as answer,
        ):
            seen = answer.extensions["network_stream"].get_extra_info("ssl_object")
            return seen.getpeercert(True), seen.version() or "", next(answer.iter_bytes(4 * MAX_BYTES), b"")

    def accepted(self, tls: ssl.SSLContext) -> Finding | None:
        """Whether the server takes this site's certificate, and how long a short answer takes."""
        try:
            self.found.latency_ms = within(self._step_s * 2, lambda: self._asked(tls)) * 1000
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.NOT_FOUND and REFUSED_HEADER in error.response.headers:
                return None  # an older server: it knows the site, and no measuring
            refusal = status_error(error.response, self.found.address)
        except BROKEN as error:
            refusal = transport_error(error, self.found.address)
        else:
            return None
        return health.from_error("accepted", "the server refuses this site", refusal, depends_on=_TRUSTED)

    def _asked(self, tls: ssl.SSLContext) -> float:
        with http_client(self._federation.host, tls, self._federation.port) as http:
            line = Line(http, self.found.address)
            line.ping(0, 0, self._step_s)  # which makes the connection
            return line.ping(0, 0, self._step_s)

    def throughput(self, tls: ssl.SSLContext, payload: int) -> Finding | None:
        """How fast one update of `payload` bytes goes up, and as much comes down."""
        try:
            up, down = within(self._measure_s * 5, lambda: self._speeds(tls, payload))
        except BROKEN as error:
            return doctor_speed.failed(error)
        self.found.payload_bytes, self.found.upload_bytes_s, self.found.download_bytes_s = payload, up, down
        return doctor_speed.slow(payload, min(up, down))

    def _speeds(self, tls: ssl.SSLContext, payload: int) -> tuple[float, float]:
        with http_client(self._federation.host, tls, self._federation.port) as http:
            line = Line(http, self.found.address)
            line.ping(0, 0, self._step_s)
            up = line.speed(payload, up=True, seconds=self._measure_s)
            return up, line.speed(payload, up=False, seconds=self._measure_s)

    def _foreign(self, der: bytes) -> Finding | None:
        """Whether somebody else's certificate is shown: a box on the way opens the connection, or another server."""
        start, end = certificates.dates(der)
        try:
            # Dates are judged apart: they may be wrong because this host's clock is.
            certificates.check(der, self._federation, start + (end - start) / 2, role="server")
        except FedsiteError:
            issuer = certificates.load(der).issuer.rfc4514_string()[:80]
            return Finding(
                code="intercepted",
                severity="error",
                title="another authority's certificate",
                text=f"{self.found.address} shows one issued by {issuer}, SHA-256 {self.found.fingerprint[:16]}…",
                remedy="have the proxy or firewall let this address through unopened; if the server was set up "
                "anew, ask for a new token. Nothing was sent",
                depends_on=_REACHED,
                exit_code=ExitCode.TRUST,
            )
        return None

    def _dated(self, der: bytes) -> Finding | None:
        start, end = certificates.dates(der)
        if start <= self._clock() < end:
            return None
        return Finding(
            code="server-certificate",
            severity="error",
            title="the server's certificate is out of date",
            text=f"valid from {instants.text(start)} to {instants.text(end)}",
            remedy="tell the central team",
            depends_on=("clock",),
            exit_code=ExitCode.TRUST,
        )


def _resolve(host: str, port: int) -> tuple[str, ...]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(item[4][0]) for item in found))


def within(seconds: float, call: Callable[[], T]) -> T:
    """What `call` gives or raises; what takes longer is left behind, because a resolver or a drip knows no limit.

    Raises:
        TimeoutError: no answer in that time.
    """
    answers: queue.Queue[Callable[[], T]] = queue.Queue()

    def run() -> None:
        try:
            found = call()
            answers.put(lambda: found)
        except Exception as error:
            answers.put(partial(_again, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        return answers.get(timeout=seconds)()
    except queue.Empty:
        raise TimeoutError(errno.ETIMEDOUT, f"no answer in {seconds:.0f} s") from None


def _again(error: Exception) -> NoReturn:
    raise error
