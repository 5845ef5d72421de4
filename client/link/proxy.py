"""The way out through an HTTP proxy (CONNECT), where the environment names one: HTTPS_PROXY, ALL_PROXY, NO_PROXY.

A proxy carries bytes and is believed nothing: inside, TLS goes to the federation's server, for which only the
federation's own authority counts. The proxy itself may speak TLS: then the host's authorities count for it, or those
in SSL_CERT_FILE and SSL_CERT_DIR. Nothing else of the environment is used, and no password file.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Mapping
from typing import Any

import httpx

from fedsite.protocol.errors import ConfigError

NAMES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
BYPASS = ("no_proxy", "NO_PROXY")


class _ProxyTls(ssl.SSLContext):
    """TLS to the proxy itself; its failures can be told from those of the server inside."""

    def wrap_socket(self, *arguments: Any, **names: Any) -> ssl.SSLSocket:
        """As its base, but an error is marked."""
        try:
            return super().wrap_socket(*arguments, **names)
        except ssl.SSLError as error:
            error.at_proxy = True  # type: ignore[attr-defined]
            raise


def choose(host: str, port: int, environment: Mapping[str, str] = os.environ) -> httpx.Proxy | None:
    """The proxy towards `host`; None for a direct connection, and always towards this machine itself.

    Raises:
        ConfigError: the variable holds no URL of a proxy.
    """
    name = next((name for name in NAMES if environment.get(name)), None)
    if name is None or is_loopback(host) or _bypassed(host, port, environment):
        return None
    text = environment[name]
    try:
        url = httpx.URL(text if "://" in text else f"http://{text}")
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(
            f"{name} is no proxy this program can use",  # its value may hold a password
            allowed="http://HOST:PORT or https://HOST:PORT, with USER:PASSWORD@ before HOST where it asks for them",
            next_step=f"set {name}, or unset it for a direct connection",
        )
    return httpx.Proxy(url, ssl_context=_tls() if url.scheme == "https" else None)


def named(proxy: httpx.Proxy | None) -> str:
    """Host and port, for people: never the password."""
    if proxy is None:
        return ""
    port = proxy.url.port or (443 if proxy.url.scheme == "https" else 80)
    return f"{proxy.url.host}:{port}"


def refused_proxy(error: BaseException | None) -> bool:
    """Whether a failure is about the certificate of the proxy itself."""
    while error is not None:
        if getattr(error, "at_proxy", False):
            return True
        error = error.__cause__ or error.__context__
    return False


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tls() -> ssl.SSLContext:
    context = _ProxyTls(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()  # which are SSL_CERT_FILE and SSL_CERT_DIR where these are set
    return context


def _bypassed(host: str, port: int, environment: Mapping[str, str]) -> bool:
    """Whether NO_PROXY names the host: itself, a domain it is in, a network, or everything."""
    text = next((environment[name] for name in BYPASS if environment.get(name)), "")
    return any(_covers(item.strip().lower(), host.lower(), port) for item in text.split(",") if item.strip())


def _covers(item: str, host: str, port: int) -> bool:
    if item == "*":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name, _, wanted = item.partition(":")
        domain = name.removeprefix("*").removeprefix(".")
        return wanted in ("", str(port)) and bool(domain) and (host == domain or host.endswith(f".{domain}"))
    try:
        return address in ipaddress.ip_network(item.strip("[]"), strict=False)
    except ValueError:
        name, _, wanted = item.rpartition(":")
        return wanted == str(port) and name.strip("[]") == host.strip("[]")
