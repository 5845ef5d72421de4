"""The guard as an ASGI application: asks the rules on every request, limits the body while it streams, passes on."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from datetime import datetime
from http import HTTPStatus
from typing import Any

from fedsite.server.link.guard import BODY_LIMITS, Asked, Deny, Listener, Registry, Target, decide

_LOG = logging.getLogger(__name__)

NODE_KEY_HEADER = "flwr-public-key"
PEER_SCOPE_KEY = "fedsite.peer"  # DER of the client certificate, put there by the TLS protocol class
SITE_SCOPE_KEY = "fedsite.site"  # id of the site the guard recognised

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """ASGI shell around the rules, one for each listener, in front of the same applications."""

    def __init__(
        self,
        listener: Listener,
        targets: Mapping[Target, App],
        registry: Registry,
        *,
        secret: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._listener = listener
        self._targets = targets
        self._registry = registry
        self._secret = secret
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Decide, limit the body, pass on."""
        if scope["type"] == "lifespan" and self._listener is Listener.LOOPBACK:
            await self._targets[Target.FLOWER](scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = _single_headers(scope)
        if headers is None:
            await _answer(send, HTTPStatus.BAD_REQUEST)
            return
        asked = Asked(
            listener=self._listener,
            method=scope["method"],
            path=scope["path"],
            certificate=scope.get(PEER_SCOPE_KEY),
            node_key=headers.get(NODE_KEY_HEADER),
            bearer=headers.get("authorization", "").removeprefix("Bearer ") or None,
        )
        verdict = decide(asked, self._registry, secret=self._secret, now=self._clock())
        if isinstance(verdict, Deny):
            _LOG.warning("%s refused %s: %s", self._listener, asked.path[:80], verdict.reason)
            await _answer(send, verdict.status)
            return
        scope[SITE_SCOPE_KEY] = verdict.site_id
        limit = BODY_LIMITS.get((self._listener, verdict.target), 0)
        await _limited(self._targets[verdict.target], scope, receive, send, limit, headers.get("content-length"))


class _TooLargeError(Exception):
    """The body grew above its limit while it was read."""


async def _limited(app: App, scope: Scope, receive: Receive, send: Send, limit: int, declared: str | None) -> None:
    """Run `app` with a body that may not grow above `limit` bytes, whatever its header says."""
    if declared is not None and (not declared.isdigit() or int(declared) > limit):
        await _answer(send, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return
    seen = 0
    started = False

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > limit:
                raise _TooLargeError
        return message

    async def noted(message: Message) -> None:
        # Flower's own middleware turns the interruption into an answer of its own: ours goes out instead.
        nonlocal started
        if seen <= limit:
            started = True
            await send(message)

    try:
        await app(scope, counted, noted)
    except Exception:
        if seen <= limit:
            raise
    if seen > limit and not started:
        await _answer(send, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


def _single_headers(scope: Scope) -> dict[str, str] | None:
    """The headers the rules read; None when one comes twice, because Flower might read the other."""
    found: dict[str, str] = {}
    for raw_name, value in scope["headers"]:
        name = raw_name.decode("latin-1").lower()
        if name in (NODE_KEY_HEADER, "authorization", "content-length"):
            if name in found:
                return None
            found[name] = value.decode("latin-1")
    return found


async def _answer(send: Send, status: HTTPStatus) -> None:
    body = f'{{"status":{int(status)},"detail":"{status.phrase}"}}'.encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"fedsite-refused", b"1"),  # the site must not take it for an answer of Flower's
    ]
    if status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": body})
