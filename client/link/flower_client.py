"""HTTPS to the central server: one kept-alive client with the site's certificate, and its failures in our words."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import httpx
from flwr.supercore.runtime_version_compatibility import (
    RuntimeVersionMetadata,
    get_runtime_version_incompatibility_exit_message,
)
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedsite.client.link import bounds, clocks, proxy
from fedsite.protocol import instants
from fedsite.protocol.errors import FedsiteError, IntegrityError, RefusalCode, TrustError, UnreachableError
from fedsite.protocol.federation import Federation, host_port
from fedsite.protocol.keys import NodeKey

WAIT_HEADER = "fedsite-wait"  # seconds the server may hold an empty pull
REFUSED_HEADER = "fedsite-refused"  # on the answers of the server's guard, so that they are not taken for Flower's
NOT_ALLOWED = (400, 403, 404, 409, 412, 422)  # what Flower answers when its state forbids a call
TIMEOUT_S = 30.0
KEEP_ALIVE_S = 70.0  # below the server's, so that the site's end closes first


class _WaitInterceptor:
    """Tell the server how long it may hold an empty pull."""

    def __init__(self) -> None:
        self.wait_s = 0.0

    def intercept(self, context: object, call_next: object) -> httpx.Response:
        """Add the header to pulls, and time for the answer."""
        request: httpx.Request = context.request  # type: ignore[attr-defined]
        if self.wait_s > 0 and request.url.path.endswith("/pull-messages"):
            request.headers[WAIT_HEADER] = f"{self.wait_s:.1f}"
            request.extensions["timeout"] = httpx.Timeout(TIMEOUT_S, read=TIMEOUT_S + self.wait_s).as_dict()
        return call_next(context)  # type: ignore[operator]


class _VersionInterceptor:
    """Tell the server which Flower this is; of another one it may have nothing. Flower's own would end the process."""

    def __init__(self) -> None:
        self._headers = dict(RuntimeVersionMetadata.from_local_component("SuperNode").as_metadata())

    def intercept(self, context: object, call_next: object) -> httpx.Response:
        """Add the headers, and say it in our words when they are the reason of a refusal."""
        request: httpx.Request = context.request  # type: ignore[attr-defined]
        request.headers.update(self._headers)
        answer: httpx.Response = call_next(context)  # type: ignore[operator]
        told = get_runtime_version_incompatibility_exit_message(answer.text) if answer.is_error else None
        if told is not None:
            raise UnreachableError(
                f"the server runs another release: {' '.join(told.split())[:300]}",
                allowed="releases of fedsite on the same minor release of Flower",
                next_step="ask the central team for theirs (fedsite --version), install it here, start the agent again",
                refusal=RefusalCode.PROTOCOL_VERSION,
            )
        return answer


class _FleetClient(FleetHttpClient):
    """Flower's client over our own HTTP client, whose connections outlive the pauses between polls."""

    def __init__(
        self, base: str, *, http: httpx.Client, interceptors: Sequence[object], verify: ssl.SSLContext
    ) -> None:
        super().__init__(base, interceptors=interceptors, verify=verify)
        self._client.close()
        self._client: httpx.Client = http

    def use(self, http: httpx.Client) -> None:
        """Send the next requests with another client."""
        self._client = http


class Connection:
    """One site's HTTPS connections to its federation."""

    def __init__(
        self,
        federation: Federation,
        *,
        tls: ssl.SSLContext,
        node_key: NodeKey,
        node_id: int,
        expires: datetime | None = None,
    ) -> None:
        """`expires` is the end of the certificate in `tls`: a server that sees it later hangs up without a word."""
        self.federation = federation
        self.expires = expires
        self.node_key = node_key
        self.node_id = node_id
        self._http = http_client(federation.host, tls, federation.port)
        self._before: httpx.Client | None = None  # a heartbeat may still be under way on it
        self._base = f"https://{federation.address}"
        self._wait = _WaitInterceptor()
        self.fleet = _FleetClient(
            self._base,
            http=self._http,
            interceptors=[
                _VersionInterceptor(),
                NodeAuthHttpInterceptor(node_key.private, node_key.public),
                self._wait,
            ],
            verify=tls,
        )

    @contextlib.contextmanager
    def patience(self, wait_s: float) -> Iterator[None]:
        """Let pulls inside be held by the server for `wait_s` seconds."""
        self._wait.wait_s = wait_s
        try:
            yield
        finally:
            self._wait.wait_s = 0.0

    def get(self, path: str, *, limit: int) -> bytes:
        """Download at most `limit` bytes.

        Raises:
            UnreachableError, TrustError: as `translated`.
            IntegrityError: it is not there, or larger.
        """
        parts: list[bytes] = []
        size = 0
        asked = {bounds.ASKED: limit + 1}
        with translated(self), self._http.stream("GET", f"{self._base}{path}", extensions=asked) as answer:
            if answer.status_code == httpx.codes.NOT_FOUND:
                raise IntegrityError(
                    f"the server has no {path}",
                    next_step="ask the central team: fedsite runs show RUN names the release",
                )
            answer.raise_for_status()
            for part in answer.iter_bytes(1 << 20):
                size += len(part)
                if size > limit:
                    raise IntegrityError(f"{path} is larger than {limit} bytes", allowed=f"at most {limit} bytes")
                parts.append(part)
        return b"".join(parts)

    def use(self, tls: ssl.SSLContext, expires: datetime) -> None:
        """Make connections with another certificate from the next request on; what is under way ends as it began."""
        self._close_before()
        self._before, self._http = self._http, http_client(self.federation.host, tls, self.federation.port)
        self.fleet.use(self._http)
        self.expires = expires

    def close(self) -> None:
        """Close every connection."""
        self._close_before()
        self._http.close()

    def _close_before(self) -> None:
        if self._before is not None:
            self._before.close()


def http_client(host: str, tls: ssl.SSLContext, port: int = 443) -> httpx.Client:
    """An HTTP client for one host, through the proxy that the environment names for it; nothing else is taken of it.

    What it gets back is bounded (`bounds`): not every host it asks has shown who it is.

    Raises:
        ConfigError: the environment names no usable proxy.
    """
    limits = httpx.Limits(keepalive_expiry=KEEP_ALIVE_S)
    return httpx.Client(
        transport=bounds.transport(tls, proxy.choose(host, port), limits),
        headers={"accept-encoding": "identity"},
        timeout=TIMEOUT_S,
        follow_redirects=False,
        trust_env=False,
        event_hooks={"response": [bounds.bound]},
    )


def site_tls(federation: Federation, certificate: str | None = None, key: str | None = None) -> ssl.SSLContext:
    """TLS 1.3 towards a server of this federation; with the site's certificate and key (paths) once it has them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=federation.ca_certificate)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


@contextlib.contextmanager
def translated(connection: Connection, *, pass_status: tuple[int, ...] = ()) -> Iterator[None]:
    """Turn failures of the transport into our errors; an HTTP status in `pass_status` goes through as it is.

    Raises:
        UnreachableError: no connection, no answer, none that can be read, or the server is in trouble.
        TrustError: one end does not accept the other's certificate or key.
        IntegrityError: the run it is about is over.
    """
    address = connection.federation.address
    try:
        yield
    except FedsiteError:
        raise
    except httpx.HTTPStatusError as error:
        if error.response.status_code in pass_status and REFUSED_HEADER not in error.response.headers:
            raise
        raise status_error(error.response, address) from None
    except (httpx.HTTPError, OSError, RuntimeError, ValueError) as error:  # ValueError: an answer that is no message
        if connection.expires is not None and datetime.now(UTC) >= connection.expires:
            raise TrustError(
                f"this site's certificate expired at {instants.text(connection.expires)}",
                next_step="ask the central team for a new token, then fedsite join file:TOKENFILE",
            ) from None
        raise transport_error(error, address) from None


def transport_error(error: BaseException, address: str) -> FedsiteError:
    """Say whether it was the network, a proxy in between, or the trust."""
    through = _proxy(address)
    if through and proxy.refused_proxy(error):
        return TrustError(
            f"the proxy {through} shows a certificate that this host does not know",
            allowed="an authority of this host, or of the file in SSL_CERT_FILE",
            next_step="set SSL_CERT_FILE to the proxy's authority; it counts for the proxy alone",
        )
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause)
        if (wrong := clocks.certificate(cause, address)) is not None:
            return wrong
        if isinstance(cause, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in text:
            return TrustError(
                f"{address} shows a certificate that this federation's authority did not issue",
                next_step=(
                    f"the proxy {through} opens connections: ask its operator to let {address} through unopened"
                    if through
                    else "check the address; if the server was set up anew, join again with a new token"
                ),
            )
        if "alert" in text and ("certificate" in text or "unknown ca" in text):
            return TrustError(
                f"{address} does not accept this site's certificate ({text[:120]})",
                next_step="ask the central team for a new token and join again: fedsite join file:TOKENFILE",
            )
        cause = cause.__cause__ or cause.__context__
    reason = str(error) or type(error).__name__
    if through:
        return UnreachableError(
            f"no answer from {address} through the proxy {through}: {reason[:160]}",
            allowed="a proxy that connects to it (CONNECT)",
            next_step="check HTTPS_PROXY, with USER:PASSWORD@ before its host where it asks for them, and NO_PROXY",
        )
    return UnreachableError(
        f"no answer from {address}: {reason[:160]}",
        next_step="check that the server is up (fedsite server up) and that this host may connect to it",
    )


def status_error(answer: httpx.Response, address: str) -> FedsiteError:
    """Our error for an HTTP status of the server."""
    status = answer.status_code
    if status == httpx.codes.UNAUTHORIZED:
        return clocks.refused(answer.headers.get("date")) or TrustError(
            f"{address} does not accept this site's keys",
            next_step="fedsite status; then ask the central team for a new token and join again",
        )
    if status == httpx.codes.FORBIDDEN and REFUSED_HEADER not in answer.headers:
        return IntegrityError("the run is over", refusal=RefusalCode.WRONG_RUN)
    if status == httpx.codes.FORBIDDEN:
        return TrustError(
            f"{address} refuses this site: it was revoked, its certificate has expired, its keys do not match, "
            "or the server was set back to a backup from before it joined",
            next_step="ask the central team for a new token and join again: fedsite join file:TOKENFILE",
        )
    return UnreachableError(
        f"{address} answered with HTTP {status}", next_step="the server's log says more: $FEDSITE_HOME/server/logs"
    )


def _proxy(address: str) -> str:
    """Which proxy is between here and an address, for a message."""
    with contextlib.suppress(FedsiteError):
        return proxy.named(proxy.choose(*host_port(address)))
    return ""
