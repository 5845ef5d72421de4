"""The administration secret goes to our own running server and to nobody else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedsite.protocol import documents, instants, storage
from fedsite.protocol.errors import UnreachableError
from fedsite.server import home as homes
from fedsite.server.link.admin_client import AdminClient


@pytest.fixture
def home(tmp_path: Path) -> homes.ServerHome:
    found = homes.ServerHome(tmp_path / "server")
    homes.create(found, name="test", address="127.0.0.1:9443", now=instants.now())
    return found


def running(home: homes.ServerHome, pid: int | None) -> None:
    value = {"schema": "fedsite.server/1", "loopback": "127.0.0.1:1", "link_pid": pid}
    storage.write_atomic(home.running, documents.canonical(value))


def test_a_server_that_crashed_is_not_spoken_to(home: homes.ServerHome) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for pid in (gone.pid, None, 0, -1):
        running(home, pid)
        with pytest.raises(UnreachableError, match="not running"):
            AdminClient(home)
    running(home, os.getpid())
    with AdminClient(home) as client, pytest.raises(UnreachableError, match="does not answer"):
        client.status()
