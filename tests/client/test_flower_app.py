"""The ClientApp where it cannot answer; what it does when it can is shown with a real SuperNode (tests/e2e)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("flwr", reason="flwr is not installed: pip install -e '.[dev]'")

from fedsite.client import flower_app
from fedsite.protocol.messages import Frame
from fedsite.protocol.records import to_record

INSTRUCTION: Any = SimpleNamespace(content=to_record(Frame(header=b"{}", signature=b"s" * 64)))


def test_what_goes_wrong_at_a_site_stays_in_its_own_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FEDSITE_HOME", str(tmp_path))
    (tmp_path / "site").mkdir(mode=0o700)
    with pytest.raises(RuntimeError) as raised:
        flower_app.answer(INSTRUCTION, SimpleNamespace())  # type: ignore[arg-type]
    assert str(tmp_path) not in str(raised.value)
    assert "has not joined" in caplog.text
