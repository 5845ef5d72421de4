"""What lies on a stick may be anything: only files are read and replaced, and no link is followed off it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedsite.protocol import exchange_medium
from fedsite.protocol.errors import ConfigError, DocumentError, RefusalCode, StorageError
from fedsite.protocol.exchange_file import MAX_FILE


def test_a_file_is_written_for_its_owner_alone_and_replaces_another(tmp_path: Path) -> None:
    path = tmp_path / "stick"
    for data in (b"old", b"new"):
        exchange_medium.write_parcel(path, data)
    assert exchange_medium.read_parcel(path) == b"new"
    assert path.stat().st_mode & 0o077 == 0
    assert [item.name for item in tmp_path.iterdir()] == ["stick"]
    with pytest.raises(ConfigError, match="no file"):
        exchange_medium.read_parcel(tmp_path / "none")


@pytest.mark.parametrize("kind", ["a symbolic link", "a directory", "a device, pipe or socket"])
def test_something_else_in_place_of_the_file_is_named_and_left_alone(tmp_path: Path, kind: str) -> None:
    path, secret = tmp_path / "stick", tmp_path / "secret"
    secret.write_bytes(b"of this host")
    if kind == "a symbolic link":
        path.symlink_to(secret)
    elif kind == "a directory":
        path.mkdir()
    else:
        os.mkfifo(path)  # whoever opened it would wait for ever
    before = path.lstat()
    with pytest.raises(ConfigError, match=kind):
        exchange_medium.read_parcel(path)
    with pytest.raises(ConfigError, match=kind):
        exchange_medium.write_parcel(path, b"data")
    assert path.lstat() == before
    assert secret.read_bytes() == b"of this host"


def test_a_device_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="device"):
        exchange_medium.read_parcel(Path("/dev/zero"))


def test_a_link_that_waits_for_the_next_export_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"of this host")
    (tmp_path / ".stick.new").symlink_to(secret)
    exchange_medium.write_parcel(tmp_path / "stick", b"data")
    assert secret.read_bytes() == b"of this host"
    assert exchange_medium.read_parcel(tmp_path / "stick") == b"data"
    assert not (tmp_path / "stick").is_symlink()


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stick"
    with path.open("wb") as file:
        file.truncate(MAX_FILE + 1)
    monkeypatch.setattr(exchange_medium, "read", None)
    with pytest.raises(DocumentError, match=f"{MAX_FILE + 1} bytes") as refused:
        exchange_medium.read_parcel(path)
    assert refused.value.refusal is RefusalCode.TOO_LARGE


def test_a_medium_that_is_full_keeps_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stick"
    exchange_medium.write_parcel(path, b"old")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        exchange_medium.write_parcel(path, b"new")
    assert exchange_medium.read_parcel(path) == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["stick"]
