"""`fedsite server up`: the guarded SuperLink and superexec as children, until somebody says stop."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from fedsite.protocol import documents, instants, storage
from fedsite.protocol.errors import ConfigError, FedsiteError
from fedsite.server.children import Child, stop_all
from fedsite.server.home import ServerHome

READY_S = 90.0  # longest start of the link: a loaded machine imports slowly
SCHEMA = "fedsite.server/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where the link listens."""

    port: int
    loopback: int


class Launcher(AbstractContextManager["Launcher"]):
    """Owns the children."""

    def __init__(self, home: ServerHome, *, host: str, port: int) -> None:
        self._home = home
        self._host = host
        self._ports = Ports(port=port, loopback=0)
        environment = child_environment(home)
        self._link = Child(
            name="flower_link",
            command=self._link_command,
            environment=environment,
            log=home.logs / "flower_link.log",
            capture=True,
        )
        self._superexec = Child(
            name="flower-superexec",
            command=self._superexec_command,
            environment=environment,
            log=home.logs / "flower-superexec.log",
        )
        self._stop = threading.Event()

    def start(self) -> Ports:
        """Start both; returns where they listen.

        Raises:
            ConfigError: a port is taken, or another launcher runs here.
            FedsiteError: a child does not come up.
        """
        self._claim()
        self._link.start()
        self._ports = self._read_ready()
        self._superexec.start()
        self._write_running()
        return self._ports

    def watch(self, every_s: float = 0.25) -> None:
        """Supervise until `stop`.

        Raises:
            FedsiteError: a child died too often.
        """
        while not self._stop.wait(every_s):
            now = time.monotonic()
            if self._link.check(now):
                self._ports = self._read_ready()
                self._write_running()
            self._superexec.check(now)

    def stop(self) -> None:
        """Make `watch` return."""
        self._stop.set()

    def __exit__(self, *_exc: object) -> None:
        """Leave no process behind, and no server.json."""
        stop_all([self._superexec, self._link])
        running = self._home.running
        if _launcher_of(running) == os.getpid():
            running.unlink(missing_ok=True)

    def _link_command(self) -> list[str]:
        return [
            sys.executable,
            "-m",
            "fedsite.server.link.flower_link",
            f"--state={self._home.path}",
            f"--host={self._host}",
            f"--port={self._ports.port}",
            # After a restart superexec and every ServerApp must find it where it was.
            f"--loopback-port={self._ports.loopback}",
            f"--parent-pid={os.getpid()}",
        ]

    def _superexec_command(self) -> list[str]:
        return [
            sys.executable,
            "-m",
            "fedsite.server.link.flower_superexec",
            str(os.getpid()),
            "--insecure",
            f"--runtime-api-address=127.0.0.1:{self._ports.loopback}",
            f"--superexec-auth-secret-file={self._home.superexec_secret}",
        ]

    def _read_ready(self) -> Ports:
        """The link's one line: its ports, or why it cannot start."""
        output = self._link.output
        until = time.monotonic() + READY_S
        line = b""
        while time.monotonic() < until and not self._stop.is_set():
            if select.select([output], [], [], 0.2)[0]:
                line = output.readline()
                break
        if self._stop.is_set():
            raise KeyboardInterrupt
        try:
            value: dict[str, Any] = json.loads(line)
        except ValueError:
            raise FedsiteError("the link did not start", next_step=f"look into {self._link.log}") from None
        if "error" in value:
            fields = value["error"]
            kind = ConfigError if value.get("exit_code") == int(ConfigError.exit_code) else FedsiteError
            raise kind(str(fields["found"]), allowed=str(fields["allowed"]), next_step=str(fields["next_step"]))
        return Ports(port=int(value["port"]), loopback=int(value["loopback"]))

    def _claim(self) -> None:
        other = _launcher_of(self._home.running)
        if other is not None and _alive(other):
            raise ConfigError(
                f"the server is running already (pid {other})",
                allowed="one launcher for each state directory",
                next_step=f"stop it (kill {other}), or set FEDSITE_HOME to another directory",
            )

    def _write_running(self) -> None:
        value = {
            "schema": SCHEMA,
            "address": self._home.federation().address,
            "port": self._ports.port,
            "loopback": f"127.0.0.1:{self._ports.loopback}",
            "pid": os.getpid(),
            "link_pid": self._link.pid,
            "superexec_pid": self._superexec.pid,
            "started": instants.text(instants.now()),
        }
        storage.write_atomic(self._home.running, documents.canonical(value))


def child_environment(home: ServerHome) -> dict[str, str]:
    """The environment of every child: Flower kept quiet and inside our state, our own programs first on PATH."""
    return {
        **os.environ,
        "FEDSITE_HOME": str(home.path.parent),
        "FLWR_HOME": str(home.flower_home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }


def run(home: ServerHome, *, host: str, port: int, ready: Callable[[Ports], None]) -> None:
    """Serve until Ctrl-C or SIGTERM; `ready` is called once both children are up.

    Raises:
        ConfigError: a port is taken, or the server runs already.
        FedsiteError: a child does not come up or stay up.
    """
    launcher = Launcher(home, host=host, port=port)

    def stop(_number: int, _frame: FrameType | None) -> None:
        launcher.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # under nohup the server outlives its terminal
        signal.signal(signal.SIGHUP, stop)
    with launcher:
        try:
            ready(launcher.start())
            launcher.watch()
        except KeyboardInterrupt:
            return


def _launcher_of(path: Path) -> int | None:
    try:
        return int(json.loads(path.read_bytes())["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()
