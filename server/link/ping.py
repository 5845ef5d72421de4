"""`POST /ping?bytes=N`: takes a body and answers with N bytes, so that a site can measure the way here and back.

Nothing is kept of either. A site measures once at a time: a measurement that runs against itself says nothing.
"""

from __future__ import annotations

import os
from http import HTTPStatus
from urllib.parse import parse_qs

from fedsite.server.link.guarded import SITE_SCOPE_KEY, Receive, Scope, Send

MAX_BYTES = 16 << 20  # in the answer; the guard bounds the question
_BLOCK = os.urandom(64 << 10)  # random, so that nothing on the way makes it smaller


class Ping:
    """An ASGI application; the guard has recognised the site before."""

    def __init__(self) -> None:
        self._under_way: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        site = str(scope.get(SITE_SCOPE_KEY))
        wanted = _wanted(scope["query_string"])
        if wanted is None:
            await _answer(send, HTTPStatus.BAD_REQUEST, 0)
        elif site in self._under_way:
            await _answer(send, HTTPStatus.TOO_MANY_REQUESTS, 0)
        else:
            self._under_way.add(site)
            try:
                if await _read(receive):
                    await _answer(send, HTTPStatus.OK, wanted)
            finally:
                self._under_way.discard(site)


async def _read(receive: Receive) -> bool:
    """Take the body to its end before the first byte goes back; False where the site hung up."""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return False
        more = bool(message.get("more_body", False))
    return True


async def _answer(send: Send, status: HTTPStatus, size: int) -> None:
    """A whole answer of `size` bytes."""
    headers = [
        (b"content-type", b"application/octet-stream"),
        (b"content-length", str(size).encode("ascii")),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    for start in range(0, size, len(_BLOCK)):
        await send({"type": "http.response.body", "body": _BLOCK[: size - start], "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _wanted(query: bytes) -> int | None:
    """The number of bytes asked for; None where it is none that is allowed."""
    text = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("bytes", ["0"])[0]
    found = int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else MAX_BYTES + 1
    return found if found <= MAX_BYTES else None
