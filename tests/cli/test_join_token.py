"""Where `fedsite join` takes the token from: it is read once, in bounded time, and left in no environment."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from fedsite.client.commands.join import read_token
from fedsite.protocol.errors import ConfigError


@pytest.mark.parametrize(("mode", "warns"), [(0o600, False), (0o640, True), (0o644, True)])
def test_a_token_that_others_may_read_is_taken_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: int, warns: bool
) -> None:
    path = tmp_path / "token"
    path.write_text("a token\n")
    path.chmod(mode)
    assert read_token(f"file:{path}") == "a token"
    assert ("chmod 600" in capsys.readouterr().err) is warns


def test_a_token_from_the_environment_goes_to_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSITE_TOKEN", " a token ")
    assert read_token(None) == "a token"
    assert "FEDSITE_TOKEN" not in os.environ
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(ConfigError, match="no token was given"):
        read_token(None)


def test_what_has_no_end_is_read_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(read_token("file:/dev/zero")) <= 8192
    monkeypatch.setattr("sys.stdin", io.StringIO("x" * 10**6))
    assert len(read_token("-")) <= 8192


def test_a_file_that_holds_no_token_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "empty").write_bytes(b" \n")
    for name, words in (("binary", "not text"), ("empty", "empty"), ("gone", "No such file")):
        with pytest.raises(ConfigError, match=words):
            read_token(f"file:{tmp_path / name}")
