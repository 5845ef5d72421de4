"""The rules in front of the SuperLink, without a network."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.server.link.guard import FLEET_ROUTES, Allow, Asked, Deny, Listener, Target, decide
from fedsite.server.link.guarded import PEER_SCOPE_KEY, Guard

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = "admin-secret"


@dataclass(frozen=True)
class _Site:
    site_id: str
    revoked: str | None = None
    expires: datetime = NOW + timedelta(days=1)
    supernode: bool = False


class _Registry:
    """Certificates are b"cert-NAME", node keys b"key-NAME"."""

    def __init__(self, *sites: _Site) -> None:
        self._sites = {site.site_id: site for site in sites}

    def by_certificate(self, der: bytes) -> _Site | None:
        return self._sites.get(der.removeprefix(b"cert-").decode())

    def by_node_key(self, key: bytes) -> _Site | None:
        return self._sites.get(key.removeprefix(b"key-").decode())


SITES = _Registry(
    _Site("a"),
    _Site("b"),
    _Site("gone", revoked="2025-12-31T00:00:00Z"),
    _Site("old", expires=NOW - timedelta(seconds=1)),
    _Site("plain", supernode=True),
    _Site("plain-gone", supernode=True, revoked="2025-12-31T00:00:00Z"),
    _Site("plain-old", supernode=True, expires=NOW - timedelta(seconds=1)),
)


def _asked(path: str, certificate: str | None = None, key: str | None = None, **more: Any) -> Allow | Deny:
    asked = Asked(
        **{
            "listener": Listener.PUBLIC,
            "method": "POST",
            "path": path,
            "certificate": None if certificate is None else f"cert-{certificate}".encode(),
            "node_key": None if key is None else base64.b64encode(f"key-{key}".encode()).decode(),
            **more,
        }
    )
    return decide(asked, SITES, secret=SECRET, now=NOW)


def _status(verdict: Allow | Deny) -> int:
    return int(verdict.status) if isinstance(verdict, Deny) else 200


PULL = "/v1/fleet/pull-messages"


@pytest.mark.parametrize("path", sorted(FLEET_ROUTES))
def test_a_site_reaches_every_fleet_route_with_both_of_its_keys(path: str) -> None:
    assert _asked(path, "a", "a") == Allow(target=Target.FLOWER, site_id="a")


@pytest.mark.parametrize(
    ("certificate", "key", "status"),
    [
        (None, "a", 401),  # no certificate
        (None, None, 401),
        ("a", None, 403),  # no node key
        ("a", "b", 403),  # another site's node key
        ("b", "a", 403),  # another site's certificate
        ("nobody", "a", 403),
        ("gone", "gone", 403),  # revoked
        ("a", "gone", 403),
        ("old", "old", 403),  # expired while the connection stayed open
    ],
)
def test_a_fleet_call_without_two_keys_of_one_valid_site_is_refused(
    certificate: str | None, key: str | None, status: int
) -> None:
    assert _status(_asked(PULL, certificate, key)) == status


def test_a_supernode_without_certificate_is_admitted_only_where_it_was_allowed() -> None:
    assert _asked(PULL, None, "plain") == Allow(target=Target.FLOWER, site_id="plain")
    assert _status(_asked(PULL, None, "plain-gone")) == 401
    assert _status(_asked(PULL, None, "plain-old")) == 401
    assert _status(_asked("/releases/v1/model.onnx", None, "plain", method="GET")) == 401
    assert _status(_asked("/v1/fleet/register-node", None, "plain")) == 401


@pytest.mark.parametrize(
    "path",
    [
        "/v1/fleet/register-node",
        "/v1/fleet/unregister-node",
        "/v1/fleet/",
        "/v1/fleet/pull-messages/",
        "/v1/control/start-run",
        "/v1/runtime/acquire-task",
        "/admin/sites",
        "/health",
        "/docs",
        "/openapi.json",
        "/",
        "//v1/fleet/pull-messages",
        "/v1/fleet/../control/start-run",
    ],
)
def test_nothing_else_exists_on_the_public_port(path: str) -> None:
    assert _status(_asked(path, "a", "a")) == 404
    assert _status(_asked(path)) == 401
    assert _status(_asked(path, "a", "a", bearer=SECRET)) == 404


@pytest.mark.parametrize("path", ["/renew", "/leave"])
def test_a_site_speaks_of_its_own_certificate_under_that_certificate(path: str) -> None:
    assert _asked(path, "a") == Allow(target=Target.ENROLMENT, site_id="a")
    assert _asked(path, "a", "b") == Allow(target=Target.ENROLMENT, site_id="a")  # a node key adds nothing here
    assert _status(_asked(path, "a", method="GET")) == 404
    assert _status(_asked(path + "/", "a")) == 404
    assert _status(_asked(path)) == 401
    assert _status(_asked(path, None, "plain")) == 401
    for name in ("gone", "old", "nobody"):
        assert _status(_asked(path, name)) == 403
    assert _status(_asked(path, "a", listener=Listener.LOOPBACK, bearer=SECRET)) == 404


def test_only_certificate_holders_may_measure_the_way() -> None:
    assert _asked("/ping", "a") == Allow(target=Target.PING, site_id="a")
    assert _status(_asked("/ping")) == 401
    assert _status(_asked("/ping", "gone")) == 403
    assert _status(_asked("/ping", "old")) == 403
    assert _status(_asked("/ping", None, "plain")) == 401  # a plain node's own process measures no way here
    assert _status(_asked("/ping", "a", method="GET")) == 404
    assert _status(_asked("/ping/", "a")) == 404
    assert _status(_asked("/ping", listener=Listener.LOOPBACK, bearer=SECRET)) == 404


def test_enrolment_is_open_and_releases_are_for_certificate_holders() -> None:
    assert _asked("/enrol") == Allow(target=Target.ENROLMENT)
    assert _asked("/enrol", method="GET") == Allow(target=Target.ENROLMENT)
    assert _status(_asked("/enrol", method="DELETE")) == 405
    assert _asked("/releases/1/model.onnx", "a", method="GET") == Allow(target=Target.RELEASES, site_id="a")
    assert _status(_asked("/releases/1/model.onnx", method="GET")) == 401
    assert _status(_asked("/releases/1/model.onnx", "gone", method="GET")) == 403
    assert _status(_asked("/releases/1/model.onnx", "a")) == 404  # POST


@pytest.mark.parametrize("path", ["/v1/control/start-run", "/admin/sites"])
def test_loopback_administration_needs_the_secret(path: str) -> None:
    assert _status(_asked(path, listener=Listener.LOOPBACK)) == 401
    assert _status(_asked(path, listener=Listener.LOOPBACK, bearer="admin-secreT")) == 401
    assert _status(_asked(path, listener=Listener.LOOPBACK, bearer="é")) == 401
    assert isinstance(_asked(path, listener=Listener.LOOPBACK, bearer=SECRET), Allow)


def test_loopback_leaves_runtime_to_its_own_tokens_and_has_no_fleet() -> None:
    assert _asked("/v1/runtime/acquire-task", listener=Listener.LOOPBACK) == Allow(target=Target.FLOWER)
    assert _status(_asked(PULL, "a", "a", listener=Listener.LOOPBACK, bearer=SECRET)) == 404
    assert _status(_asked("/docs", listener=Listener.LOOPBACK, bearer=SECRET)) == 404


@given(path=st.text(max_size=40), key=st.text(max_size=20), method=st.sampled_from(["GET", "POST", "PUT"]))
def test_without_a_certificate_only_enrolment_is_ever_allowed(path: str, key: str, method: str) -> None:
    asked = Asked(listener=Listener.PUBLIC, method=method, path=path, node_key=key)
    verdict = decide(asked, _Registry(_Site("a")), secret=SECRET, now=NOW)
    assert isinstance(verdict, Deny) or (path == "/enrol" and verdict.target is Target.ENROLMENT)


async def _call(
    path: str, headers: list[tuple[bytes, bytes]], body: list[bytes], listener: Listener = Listener.PUBLIC
) -> tuple[int, list[bytes]]:
    """One request through the shell to an application that reads its body; (status, what it read)."""
    seen: list[bytes] = []
    sent: list[Any] = []
    pieces = iter(body)
    left = len(body)

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            seen.append(message["body"])
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Any:
        nonlocal left
        left -= 1
        return {"type": "http.request", "body": next(pieces), "more_body": left > 0}

    async def send(message: Any) -> None:
        sent.append(message)

    guard = Guard(listener, dict.fromkeys(Target, app), SITES, secret=SECRET, clock=lambda: NOW)
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, PEER_SCOPE_KEY: b"cert-a"}
    await guard(scope, receive, send)
    return sent[0]["status"], seen


def test_a_body_is_cut_off_where_its_limit_is_whatever_the_header_says() -> None:
    piece = b"x" * (40 << 10)
    assert asyncio.run(_call("/enrol", [], [piece]))[0] == 200
    status, seen = asyncio.run(_call("/enrol", [], [piece, piece, piece]))
    assert (status, len(seen)) == (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, 1)
    status, seen = asyncio.run(_call("/enrol", [(b"content-length", b"70000")], [piece]))
    assert (status, seen) == (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, [])
    assert asyncio.run(_call("/enrol", [(b"content-length", b"-1")], [piece]))[0] == 413


def test_a_header_that_comes_twice_is_refused() -> None:
    key = (b"Flwr-Public-Key", base64.b64encode(b"key-a"))
    assert asyncio.run(_call(PULL, [key], [b""]))[0] == 200
    assert asyncio.run(_call(PULL, [key, (b"flwr-public-key", b"other")], [b""]))[0] == 400


def test_websockets_and_the_public_lifespan_go_nowhere() -> None:
    async def fail(*_arguments: Any) -> None:
        raise AssertionError("reached")

    guard = Guard(Listener.PUBLIC, dict.fromkeys(Target, fail), SITES, secret=SECRET, clock=lambda: NOW)
    for kind in ("websocket", "lifespan"):
        asyncio.run(guard({"type": kind, "path": PULL}, fail, fail))
