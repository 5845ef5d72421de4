"""Durations: what is read, and what is refused by name."""

from __future__ import annotations

import pytest

from fedsite.protocol import durations
from fedsite.protocol.errors import ConfigError


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), (" 30m", 1800), ("1h", 3600), ("2d", 172_800), ("0s", 0)])
def test_a_number_and_its_unit(text: str, expected: float) -> None:
    assert durations.seconds(text) == expected


@pytest.mark.parametrize("text", ["", "2", "d", "-1h", "1.5h", "1w", "1 h", "10000000s", "٣d", "2d4h", "nan", "1e3s"])
def test_another_spelling_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.oldest") as caught:
        durations.seconds(text, "data.oldest", example="data.oldest=2d")
    assert caught.value.next_step == "data.oldest=2d"
    assert "2d" in caught.value.allowed
