"""The peer of the round-latency benchmark: a stock SuperLink, two flower-supernode, and FedAvg as Flower ships it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.federation import end, free_port

APP = Path(__file__).parents[1] / "flower_peer"
LONGEST_S = 600.0


@dataclass(slots=True)
class Peer(AbstractContextManager["Peer"]):
    """SuperLink and SuperNodes as processes; each block of rounds is one `flwr run`."""

    directory: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    blocks: int = 0

    def __enter__(self) -> Peer:
        home = self.directory / "flwr"
        home.mkdir(parents=True)
        port = free_port()
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "local"\n[superlink.local]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        )
        self._start(
            "flower-superlink",
            "--insecure",
            "--host=127.0.0.1",
            f"--port={port}",
            f"--database={self.directory / 'state.db'}",
            "--disable-runtime-dependency-installation",
        )
        _wait_listening(port)
        for _ in range(2):
            self._start("flower-supernode", "--insecure", f"--superlink=127.0.0.1:{port}", f"--port={free_port()}")
        return self

    def __exit__(self, *_exc: object) -> None:
        for process in reversed(self.processes):
            end(process)

    def rounds(self, count: int) -> list[float]:
        """Seconds of each of `count` rounds.

        Raises:
            RuntimeError: they did not come to an end.
        """
        self.blocks += 1
        out = self.directory / f"block-{self.blocks}.json"
        done = subprocess.run(
            [_program("flwr"), "run", str(APP), "local", "--run-config", f'rounds={count} out="{out}"'],
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
        )
        until = time.monotonic() + LONGEST_S
        while not out.exists():
            if done.returncode != 0 or time.monotonic() > until:
                raise RuntimeError(f"the peer did not finish: {done.stdout}{done.stderr}")
            time.sleep(0.2)
        time.sleep(0.2)  # the file is written at once, but not atomically
        return [float(seconds) for seconds in json.loads(out.read_text())]

    def _start(self, program: str, *arguments: str) -> None:
        with (self.directory / f"{program}.log").open("a") as log:
            process = subprocess.Popen(
                [_program(program), *arguments],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self.processes.append(process)

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "FLWR_HOME": str(self.directory / "flwr"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "OMP_NUM_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }


def _program(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _wait_listening(port: int) -> None:
    """Until the SuperLink takes connections.

    Raises:
        TimeoutError: it never does.
    """
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port}")
