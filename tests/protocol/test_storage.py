"""Files are whole or absent, private from creation, and disk errors say what to do."""

import errno
import os
import stat
from pathlib import Path

import pytest

from fedsite.protocol import storage
from fedsite.protocol.audit_file import AuditFile
from fedsite.protocol.errors import ExitCode, StorageError
from fedsite.protocol.keys import SigningKey


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"FEDSITE_HOME": "/srv/fedsite", "XDG_STATE_HOME": "/x"}, Path("/srv/fedsite")),
        ({"FEDSITE_HOME": "", "XDG_STATE_HOME": "/x"}, Path("/x/fedsite")),
        ({}, Path.home() / ".local" / "state" / "fedsite"),
    ],
)
def test_state_home(environment: dict[str, str], expected: Path) -> None:
    assert storage.state_home(environment) == expected


def test_state_home_is_absolute() -> None:
    assert storage.state_home({"FEDSITE_HOME": "here"}).is_absolute()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_directories_and_files_are_private(tmp_path: Path) -> None:
    folder = storage.private_directory(tmp_path / "a" / "b")
    storage.write_atomic(folder / "secret", b"1")
    storage.write_atomic(folder / "public", b"2", mode=0o644)
    assert (mode(folder), mode(folder / "secret"), mode(folder / "public")) == (0o700, 0o600, 0o644)
    assert sorted(item.name for item in folder.iterdir()) == ["public", "secret"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may write for others")
def test_what_root_writes_for_an_agent_is_its_agent_s(tmp_path: Path) -> None:
    """An administrator who pauses, or says yes, as root would otherwise lock the service's user out."""
    os.chown(tmp_path, 12345, 12346)
    folder = storage.private_directory(tmp_path / "site" / "approvals")
    storage.write_atomic(folder / "yes", b"1")
    AuditFile(tmp_path / "audit", SigningKey.generate(), owner="site").append("rejected", {})
    for path in tmp_path.rglob("*"):
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 12346), path
    # What has another name too, or lies where the user's link points to, is not given away.
    outside = tmp_path.parent / "outside"
    outside.mkdir()
    (tmp_path / "link").symlink_to(outside)
    storage.write_atomic(tmp_path / "link" / "file", b"1")
    assert (outside / "file").stat().st_uid == 0
    os.link(outside / "file", tmp_path / "second")
    handle = os.open(tmp_path / "second", os.O_RDONLY)
    storage.give(handle, tmp_path / "second")
    os.close(handle)
    assert (outside / "file").stat().st_uid == 0


def test_an_open_directory_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    storage.private_directory(tmp_path)
    assert mode(tmp_path) == 0o700


def test_a_directory_of_everybody_is_left_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    with pytest.raises(StorageError, match="shared"):
        storage.private_directory(tmp_path)
    assert mode(tmp_path) == 0o1777


def test_a_write_replaces_everything(tmp_path: Path) -> None:
    path = tmp_path / "x"
    storage.write_atomic(path, b"long old content")
    storage.write_atomic(path, b"new")
    assert storage.read(path) == b"new"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "x"
    storage.write_atomic(path, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(storage.os, call, full)
    with pytest.raises(StorageError) as raised:
        storage.write_atomic(path, b"new")
    assert str(path) in raised.value.found
    assert "No space left" in raised.value.found
    assert "df -h" in raised.value.next_step
    assert raised.value.exit_code is ExitCode.STORAGE
    assert [item.read_bytes() for item in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (errno.EROFS, "FEDSITE_HOME"),
        (errno.EACCES, "owner"),
        (errno.EIO, "dmesg"),
        (errno.EFBIG, "ulimit -f"),
        (9999, "ls -ld"),
    ],
)
def test_every_disk_error_has_a_remedy(number: int, word: str) -> None:
    with pytest.raises(StorageError) as raised, storage.storage_errors(Path("/x")):
        raise OSError(number, "reason")
    assert word in raised.value.next_step
    assert "/x: reason" in raised.value.found


def test_read_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="missing") as missing:
        storage.read(tmp_path / "missing")
    assert missing.value.allowed == "a file that is there"
    with pytest.raises(StorageError):
        storage.read(tmp_path)
    (tmp_path / "x").write_bytes(b"12345")
    with pytest.raises(StorageError, match="at most 4 bytes"):
        storage.read(tmp_path / "x", limit=4)
    with pytest.raises(StorageError):
        storage.private_directory(tmp_path / "x" / "below")
