"""How many bytes are sent to measure a line, and what is said of a slow one."""

from __future__ import annotations

import httpx
import pytest

from fedsite.client import doctor_speed


class Slow(doctor_speed.Line):
    """A line of so many bytes a second."""

    def __init__(self, speed: float) -> None:
        self.asked: list[int] = []
        self._speed = speed

    def ping(self, send: int, back: int, seconds: float) -> float:
        self.asked.append(send or back)
        if (send + back) / self._speed > seconds:
            raise httpx.ReadTimeout("too slow to be measured")
        return (send + back) / self._speed


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


def test_a_slow_line_is_measured_with_fewer_bytes_and_a_dead_one_is_told() -> None:
    fast, slow = Slow(1e8), Slow(2e4)
    assert fast.speed(5_000_000, up=True, seconds=20) == pytest.approx(1e8)
    assert fast.asked == [doctor_speed.SMALL, 5_000_000]
    assert slow.speed(5_000_000, up=False, seconds=20) == pytest.approx(2e4)
    assert max(slow.asked) <= 200_000
    assert fast.speed(1 << 40, up=True, seconds=1e9) == pytest.approx(1e8)
    assert max(fast.asked) == doctor_speed.LARGEST
    with pytest.raises(httpx.ReadTimeout):
        Slow(10.0).speed(5_000_000, up=True, seconds=20)
    assert doctor_speed.slow(10_000_000, 1e6) is None
    found = doctor_speed.slow(10_000_000, 2e4)
    assert found is not None
    assert "500 s for one update" in found.text
