"""How many bytes are sent to measure a line, and what is said of a slow one."""

from __future__ import annotations

import httpx
import pytest

from fedsite.client.health import doctor_speed


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
