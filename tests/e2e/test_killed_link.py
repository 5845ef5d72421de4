"""The server's processes, killed: the link comes back where it was, and stopping leaves nobody behind."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedsite.protocol.errors import UnreachableError
from fedsite.server import home as homes
from tests.e2e import leftovers


def test_a_killed_link_comes_back_where_it_was_and_stopping_leaves_nobody_behind(
    federations: Any, tmp_path: Path
) -> None:
    with federations.Federation(tmp_path) as running:
        running.join_site("alpha")
        with running.link("alpha") as link:
            os.kill(running.info["link_pid"], signal.SIGKILL)
            until = time.monotonic() + 120
            while time.monotonic() < until:
                with contextlib.suppress(UnreachableError):
                    assert link.pull(wait_s=0) is None
                    break
                time.sleep(0.1)
            else:
                raise AssertionError(running.log("server"))
        # It serves before the launcher has written down who it is.
        after = homes.read_running(homes.ServerHome(running.state))
        while after["link_pid"] == running.info["link_pid"]:
            assert time.monotonic() < until, running.log("server")
            time.sleep(0.02)
            after = homes.read_running(homes.ServerHome(running.state))
        assert (after["loopback"], after["port"]) == (running.info["loopback"], running.info["port"])
        # A launcher that is killed takes its children with it, and the next one starts over what it left.
        _wait_gone(running, lambda: os.kill(after["pid"], signal.SIGKILL))
        assert (running.state / "server.json").exists()
        running.server.wait()
        running.start()
        _wait_gone(running, lambda: running.server.send_signal(signal.SIGINT))
        assert running.server.wait() == 0
    assert not (running.state / "server.json").exists()


def _wait_gone(running: Any, act: Callable[[], object]) -> None:
    """Do something that ends the server, and wait until none of its processes is left."""
    now = homes.read_running(homes.ServerHome(running.state))
    act()
    until = time.monotonic() + 60
    left = [now[name] for name in ("pid", "link_pid", "superexec_pid")]
    while left and time.monotonic() < until:
        left = [pid for pid in left if leftovers.alive(pid)]
        time.sleep(0.05)
    assert not left, running.log("server")
