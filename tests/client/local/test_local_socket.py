"""Where the socket is: for its owner alone, in any directory, in the place of one that a killed agent left."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from fedsite.client.local import local_socket
from fedsite.protocol import documents
from fedsite.protocol.errors import StorageError, TrustError


def bound(path: Path) -> socket.socket:
    found = socket.socket(socket.AF_UNIX)
    with local_socket.private_creation():
        found.bind(str(path))
    return found


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """A state directory whose path no socket can have."""
    directory = tmp_path / ("d" * 60) / ("e" * 60)
    directory.mkdir(parents=True, mode=0o700)
    return directory


def test_the_socket_is_in_the_state_directory_and_its_owners(tmp_path: Path) -> None:
    path = local_socket.prepare(tmp_path)
    assert path == tmp_path / "agent.sock"
    assert local_socket.find(tmp_path) is None
    with bound(path):
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
        assert local_socket.find(tmp_path) == path
    local_socket.remove(path)
    assert local_socket.find(tmp_path) is None
    local_socket.remove(path)  # gone already


def test_a_killed_agents_socket_makes_room(tmp_path: Path) -> None:
    bound(local_socket.prepare(tmp_path)).close()
    assert (tmp_path / "agent.sock").exists()
    with bound(local_socket.prepare(tmp_path)):
        pass


def test_what_is_no_socket_is_neither_removed_nor_used(tmp_path: Path) -> None:
    (tmp_path / "agent.sock").write_text("mine")
    assert local_socket.find(tmp_path) is None
    path = local_socket.prepare(tmp_path)
    assert path.read_text() == "mine"
    (tmp_path / "elsewhere").mkdir()
    with bound(tmp_path / "elsewhere" / "agent.sock"):
        path.unlink()
        path.symlink_to(tmp_path / "elsewhere" / "agent.sock")
        assert local_socket.find(tmp_path) is None


def test_a_path_too_long_is_replaced_by_a_private_directory(long: Path, tmp_path: Path) -> None:
    runtime = {"XDG_RUNTIME_DIR": str(tmp_path)}
    path = local_socket.prepare(long, runtime)
    assert path.parent.parent == tmp_path
    assert len(os.fsencode(path)) <= local_socket.LONGEST
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert local_socket.find(long) is None
    (long / "agent.json").write_bytes(documents.canonical({"state": "idle", "socket": str(path)}))
    with bound(path):
        assert local_socket.find(long) == path
        again = local_socket.prepare(long, runtime)  # that agent was killed
        assert again != path
        assert not path.parent.exists()
    local_socket.remove(again)
    assert not again.parent.exists()


@pytest.mark.parametrize("text", ["/etc/passwd", "agent.sock", "/tmp/x/agent.sock", 7, None, "/tmp/fedsite-x/y.sock"])
def test_a_state_file_never_names_anything_else(long: Path, text: object) -> None:
    (long / "agent.json").write_bytes(documents.canonical({"state": "idle", "socket": text}))
    assert local_socket.find(long) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a socket away")
def test_somebody_elses_socket_is_not_talked_to(tmp_path: Path) -> None:
    path = local_socket.prepare(tmp_path)
    with bound(path):
        os.chown(path, 12345, 12345)
        with pytest.raises(TrustError, match="belongs to user 12345"):
            local_socket.find(tmp_path)


def test_a_place_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        local_socket.prepare(tmp_path / "file" / "site")
