"""Measuring the way: bytes in, bytes out, both bounded, one measurement of a site at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from fedsite.server.link.guard import BODY_LIMITS, Listener, Target
from fedsite.server.link.guarded import SITE_SCOPE_KEY
from fedsite.server.link.ping import MAX_BYTES, Ping


def as_site(ping: Ping, site: str = "a") -> Any:
    """The application as the guard hands requests on."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope[SITE_SCOPE_KEY] = site
        await ping(scope, receive, send)

    return app


def test_it_takes_bytes_and_returns_as_many_as_were_asked_for() -> None:
    client = TestClient(as_site(Ping()))
    for wanted in (0, 1, 65_536, 65_537, 1_000_000):
        answer = client.post(f"/ping?bytes={wanted}", content=b"x" * 100_000)
        assert (answer.status_code, len(answer.content), answer.headers["content-length"]) == (200, wanted, str(wanted))
    assert client.post("/ping").content == b""
    assert len(set(client.post("/ping?bytes=65536").content)) == 256  # nothing to compress


@pytest.mark.parametrize("wanted", ["-1", "x", "1e3", "", "²", str(MAX_BYTES + 1), "9" * 400])
def test_other_numbers_are_refused(wanted: str) -> None:
    answer = TestClient(as_site(Ping())).post(f"/ping?bytes={wanted}")
    assert (answer.status_code, answer.content) == (400, b"")


def test_the_guard_bounds_the_question() -> None:
    assert BODY_LIMITS[Listener.PUBLIC, Target.PING] == MAX_BYTES


def test_a_site_measures_once_at_a_time_and_again_after_it_broke_off() -> None:
    ping = Ping()

    async def run() -> None:
        going, more = asyncio.Event(), asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield b"x"
            going.set()
            await more.wait()
            yield b"y"

        def client(site: str) -> httpx.AsyncClient:
            transport = httpx.ASGITransport(app=as_site(ping, site))
            return httpx.AsyncClient(transport=transport, base_url="http://server")

        async with client("a") as one, client("a") as two, client("b") as other:
            first = asyncio.create_task(one.post("/ping", content=body()))
            await going.wait()
            assert (await two.post("/ping")).status_code == 429
            assert (await other.post("/ping")).status_code == 200
            more.set()
            assert (await first).status_code == 200
            assert (await two.post("/ping")).status_code == 200
            broken = asyncio.create_task(one.post("/ping", content=body()))
            more.clear()
            await asyncio.sleep(0.05)
            broken.cancel()
            await asyncio.gather(broken, return_exceptions=True)
            assert (await two.post("/ping")).status_code == 200

    asyncio.run(run())
