"""How fast bytes go to the server and back, through its `/ping`: with as many as an update has, in bounded time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Final

import httpx

from fedsite.client.health import checks as health_checks
from fedsite.client.health.findings import Finding
from fedsite.protocol.errors import ExitCode

SMALL: Final = 64 << 10  # bytes of the first measurement
LARGEST: Final = 16 << 20  # bytes that /ping takes
SLOW_S: Final = 60.0  # for one update, from which it is worth a word
_AFTER: Final = ("proxy", "resolve", "connect", "tls", "intercepted", "clock", "server-certificate", "accepted")


class Line:
    """A kept-alive connection to the server."""

    def __init__(self, http: httpx.Client, address: str) -> None:
        self._http = http
        self._url = f"https://{address}/ping"

    def ping(self, send: int, back: int, seconds: float) -> float:
        """Seconds that so many bytes there and back take.

        Raises:
            httpx.HTTPError: refused, broken, or not over after `seconds`.
        """
        began = time.monotonic()
        with self._http.stream(
            "POST",
            f"{self._url}?bytes={back}",
            content=_noise(send, began + seconds),
            headers={"content-length": str(send)},
            timeout=seconds,
        ) as answer:
            answer.raise_for_status()
            for _ in answer.iter_raw(SMALL):
                _in_time(began + seconds)
        return time.monotonic() - began

    def speed(self, size: int, *, up: bool, seconds: float) -> float:
        """Bytes a second, from as many of `size` bytes as there is time for."""
        size = min(size, LARGEST)
        first = min(SMALL, size)
        speed = first / self._took(first, up, seconds)
        # Half the time, because a first measurement may have been lucky.
        rest = min(size, round(speed * seconds / 2))
        return speed if rest <= first else rest / self._took(rest, up, seconds)

    def _took(self, size: int, up: bool, seconds: float) -> float:
        return max(self.ping(size if up else 0, 0 if up else size, seconds), 1e-6)


def failed(error: Exception) -> Finding:
    """No speed was measured."""
    return Finding(
        code="throughput",
        severity="warning",
        title="the speed could not be measured",
        text=(str(error) or type(error).__name__)[:160],
        remedy="repeat fedsite doctor; is the link stable?",
        depends_on=_AFTER,
        exit_code=ExitCode.UNREACHABLE,
    )


def slow(payload: int, speed: float) -> Finding | None:
    """Whether an update of `payload` bytes takes long at `speed` bytes a second."""
    if payload <= SLOW_S * speed:
        return None
    return Finding(
        code="throughput",
        severity="warning",
        title="the link is slow",
        text=f"{health_checks.size(round(speed))} a second: {payload / speed:.0f} s for one update of "
        f"{health_checks.size(payload)}",
        remedy="use a faster link, or tell the central team: rounds may end without this site",
        depends_on=_AFTER,
        exit_code=ExitCode.UNREACHABLE,
    )


def _noise(size: int, until: float) -> Iterator[bytes]:
    """Random bytes, which nothing on the way makes fewer."""
    block = os.urandom(min(size, SMALL))
    for start in range(0, size, SMALL):
        _in_time(until)
        yield block[: size - start]


def _in_time(until: float) -> None:
    if time.monotonic() > until:
        raise httpx.ReadTimeout("too slow to be measured")
