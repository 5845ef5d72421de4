"""Through a CONNECT proxy to the federation's server: the proxy carries bytes, only the pinned authority counts."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from fedsite.client.link import proxy
from fedsite.client.link.flower_client import http_client, transport_error
from fedsite.protocol import certificates
from fedsite.protocol.certificates import Authority
from fedsite.protocol.errors import ConfigError, FedsiteError, TrustError, UnreachableError
from fedsite.protocol.keys import TlsKey
from tests.connect_proxy import ConnectProxy

HOST, PORT = "fedsite.test", 9443
ADDRESS = f"{HOST}:{PORT}"
OURS, OTHERS = (certificates.make_authority(digit * 32, "test", datetime.now(UTC)) for digit in "01")


@pytest.mark.parametrize(
    ("environment", "host", "expected"),
    [
        ({}, HOST, ""),
        ({"HTTPS_PROXY": "http://gate:3128"}, HOST, "gate:3128"),
        ({"HTTPS_PROXY": "gate:3128"}, HOST, "gate:3128"),
        ({"https_proxy": "http://small:1", "HTTPS_PROXY": "http://large:2"}, HOST, "small:1"),
        ({"ALL_PROXY": "https://gate"}, HOST, "gate:443"),
        ({"HTTP_PROXY": "http://gate:3128"}, HOST, ""),
        ({"HTTPS_PROXY": ""}, HOST, ""),
        ({"HTTPS_PROXY": "http://gate:3128"}, "127.0.0.1", ""),
        ({"HTTPS_PROXY": "http://gate:3128"}, "::1", ""),
        ({"HTTPS_PROXY": "http://gate:3128"}, "localhost", ""),
        ({"HTTPS_PROXY": "http://gate:3128", "NO_PROXY": "*"}, HOST, ""),
        ({"HTTPS_PROXY": "http://gate:3128", "NO_PROXY": "a.org, Fedsite.test"}, HOST, ""),
        ({"HTTPS_PROXY": "http://gate:3128", "NO_PROXY": ".test"}, HOST, ""),
        ({"HTTPS_PROXY": "http://gate:3128", "NO_PROXY": "*.test"}, HOST, ""),
        ({"HTTPS_PROXY": "http://gate:3128", "NO_PROXY": "site.test"}, HOST, "gate:3128"),
        ({"HTTPS_PROXY": "http://gate:3128", "NO_PROXY": f"{HOST}:{PORT}"}, HOST, ""),
        ({"HTTPS_PROXY": "http://gate:3128", "NO_PROXY": f"{HOST}:1"}, HOST, "gate:3128"),
        ({"HTTPS_PROXY": "http://gate:3128", "no_proxy": "10.0.0.0/8"}, "10.2.3.4", ""),
        ({"HTTPS_PROXY": "http://gate:3128", "no_proxy": "10.0.0.0/8"}, "11.2.3.4", "gate:3128"),
        ({"HTTPS_PROXY": "http://gate:3128", "NO_PROXY": f"10.2.3.4:{PORT}"}, "10.2.3.4", ""),
        ({"HTTPS_PROXY": "http://gate:3128", "NO_PROXY": "fd00::/8"}, "fd00::1", ""),
    ],
)
def test_which_proxy_the_environment_means(environment: dict[str, str], host: str, expected: str) -> None:
    assert proxy.named(proxy.choose(host, PORT, environment)) == expected


@pytest.mark.parametrize("text", ["socks5://u:secret@gate:1080", "http://", "http://[::1", "http://gate:secret"])
def test_a_proxy_that_is_none_is_named_without_its_password(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        proxy.choose(HOST, PORT, {"HTTPS_PROXY": text})
    assert "HTTPS_PROXY" in str(error.value)
    assert "secret" not in str(error.value)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[int]:
    """Shows a certificate of our authority for `ADDRESS`, and answers ok; its port."""
    with _served(tmp_path, OURS) as port:
        yield port


def get(authority: Authority = OURS) -> str:
    """One request as the agent makes it, its failures in our words."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.load_verify_locations(cadata=authority.certificate)
    try:
        with http_client(HOST, tls, PORT) as http:
            return http.get(f"https://{ADDRESS}/").text
    except (httpx.HTTPError, OSError) as error:
        raise transport_error(error, ADDRESS) from None


def failure(kind: type[FedsiteError]) -> str:
    with pytest.raises(kind) as error:
        get()
    return str(error.value)


def test_a_request_goes_through_the_proxy(server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with ConnectProxy({ADDRESS: server}) as gate:
        monkeypatch.setenv("HTTPS_PROXY", gate.url)
        assert get() == "ok"
        assert gate.asked == [f"CONNECT {ADDRESS} HTTP/1.1"]


def test_a_password_is_used_and_not_told(server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with ConnectProxy({ADDRESS: server}, password="site:open sesame") as gate:
        monkeypatch.setenv("HTTPS_PROXY", gate.url.replace("//", "//site:open%20sesame@"))
        assert get() == "ok"
        monkeypatch.setenv("HTTPS_PROXY", gate.url.replace("//", "//site:wrong@"))
        told = failure(UnreachableError)
        assert f"through the proxy 127.0.0.1:{gate.port}: 407" in told
        assert "wrong" not in told


def test_a_proxy_that_is_not_there_or_does_not_lead_there_is_named(
    server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ConnectProxy({"elsewhere:1": server}) as gate:
        monkeypatch.setenv("HTTPS_PROXY", gate.url)
        assert f"through the proxy 127.0.0.1:{gate.port}: 403" in failure(UnreachableError)
    assert f"through the proxy 127.0.0.1:{gate.port}" in failure(UnreachableError)


def test_a_proxy_that_opens_connections_is_noticed_whatever_this_host_trusts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _served(tmp_path, OTHERS) as port, ConnectProxy({ADDRESS: port}) as gate:
        monkeypatch.setenv("HTTPS_PROXY", gate.url)
        (tmp_path / "others.crt").write_text(OTHERS.certificate)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "others.crt"))
        told = failure(TrustError)
        assert "this federation's authority did not issue" in told
        assert f"the proxy 127.0.0.1:{gate.port} opens connections" in told


def test_the_proxys_own_certificate_is_checked_against_this_hosts_authorities_alone(
    server: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ConnectProxy({ADDRESS: server}, tls=_context(tmp_path, OTHERS, "127.0.0.1:1")) as gate:
        monkeypatch.setenv("HTTPS_PROXY", gate.url)
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        assert f"the proxy 127.0.0.1:{gate.port} shows a certificate that this host does not know" in failure(
            TrustError
        )
        (tmp_path / "others.crt").write_text(OTHERS.certificate)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "others.crt"))
        assert get() == "ok"
        with pytest.raises(TrustError, match="authority did not issue"):
            get(OTHERS)  # what the host trusts for its proxy is of no use inside, and the other way round


def _context(folder: Path, authority: Authority, address: str) -> ssl.SSLContext:
    key = TlsKey.generate()
    key.save(folder / "tls.key")
    (folder / "tls.crt").write_text(certificates.issue_server(authority, key, address, datetime.now(UTC)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context


@contextlib.contextmanager
def _served(folder: Path, authority: Authority) -> Iterator[int]:
    context = _context(folder, authority, ADDRESS)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                plain, _ = listener.accept()
                with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as client:
                    client.recv(1 << 16)
                    client.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.close()
