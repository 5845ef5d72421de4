"""A real federation for tests: `fedsite server up` and `fedsite up` as processes on loopback, stopped by pid."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedsite.client.identity.enrolment import open_connection
from fedsite.client.link.flower_fleet import FleetLink
from fedsite.protocol import instants, tokens
from fedsite.server.home import ServerHome
from fedsite.server.link.admin_client import AdminClient
from tests.lifeline import lifeline

START_S = 120.0  # longest start of a process on a loaded machine


@dataclass(slots=True)
class Result:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def value(self) -> Any:
        """The JSON value it printed."""
        return json.loads(self.stdout.strip().splitlines()[-1])


@dataclass(slots=True)
class Federation:
    """One central server and its sites, each with a FEDSITE_HOME of its own below `directory`."""

    directory: Path
    port: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    server: subprocess.Popen[str] | None = None
    agents: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """FEDSITE_HOME of the server."""
        return self.directory / "central"

    @property
    def state(self) -> Path:
        """The server's state directory."""
        return self.home / "server"

    def site_home(self, name: str) -> Path:
        """FEDSITE_HOME of a site."""
        return self.directory / "sites" / name

    def copy_site(self, name: str, to: Path) -> Path:
        """FEDSITE_HOME of a site as it is now, without what its running agent listens on."""
        return Path(shutil.copytree(self.site_home(name), to, symlinks=True, ignore=shutil.ignore_patterns("*.sock")))

    def site_state(self, name: str) -> Path:
        """A site's state directory."""
        return self.site_home(name) / "site"

    @property
    def loopback(self) -> str:
        """host:port of the loopback listener."""
        return str(self.info["loopback"])

    def start(self) -> Federation:
        """Set the server up and wait until it is ready."""
        self.port = self.port or free_port()
        if not (self.state / "federation.json").exists():
            done = self.cli("server", "init", "--name", "test", "--address", f"127.0.0.1:{self.port}")
            assert done.code == 0, done.stderr
        self.server = self.popen("server", "up", "--json", home=self.home)
        line = self.server.stdout.readline() if self.server.stdout else ""
        assert line, f"the server did not start: {self.log('server')}"
        self.info = json.loads(line)
        return self

    def stop(self) -> None:
        """End every process that was started here, politely first."""
        for process in [*self.agents.values(), self.server]:
            if process is not None:
                end(process)
        self.agents.clear()
        self.server = None

    def __enter__(self) -> Federation:
        return self if self.server is not None else self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def cli(self, *arguments: str, home: Path | None = None, stdin: str = "", timeout_s: float = START_S) -> Result:
        """Run one `fedsite` command to its end; at the server's home unless `home` says another."""
        done = subprocess.run(
            command(*arguments),
            env=self._environment(home or self.home),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            preexec_fn=lifeline(),
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def popen(self, *arguments: str, home: Path) -> subprocess.Popen[str]:
        """Start one `fedsite` command in a session of its own; stderr goes to a log beside its home."""
        home.mkdir(parents=True, exist_ok=True)
        return self.start_process(command(*arguments), home, home / f"{arguments[0]}.stderr", stdout=subprocess.PIPE)

    def start_process(
        self, words: Sequence[str], home: Path, log: Path, *, stdout: int = subprocess.DEVNULL
    ) -> subprocess.Popen[str]:
        """Start these words at a home in a session of their own; stderr goes to a log."""
        with log.open("a") as errors:
            return subprocess.Popen(
                words,
                env=self._environment(home),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=errors,
                text=True,
                start_new_session=True,
                preexec_fn=lifeline(),
            )

    def token(self, expires_s: float = 3600.0) -> str:
        """A new token; made in this process, which is what `fedsite token create` does, a second sooner."""
        home = ServerHome(self.state)
        return tokens.create(home.federation(), home.signing_key(), expires_s=expires_s, now=instants.now())

    def join_site(self, name: str) -> Path:
        """Enrol a site with a new token; returns its FEDSITE_HOME."""
        done = self.cli("join", "-", "--name", name, "--json", home=self.site_home(name), stdin=self.token() + "\n")
        assert done.code == 0, done.stderr
        return self.site_home(name)

    @contextlib.contextmanager
    def link(self, name: str) -> Iterator[FleetLink]:
        """A joined site's own way to the server, held by the test in the place of an agent."""
        with FleetLink(open_connection(self.site_state(name))) as found:
            found.activate()
            yield found

    def start_agent(self, name: str, *overrides: str) -> subprocess.Popen[str]:
        """Start a joined site's agent."""
        self.agents[name] = self.popen("up", *overrides, home=self.site_home(name))
        return self.agents[name]

    def wait_online(self, *names: str, timeout_s: float = START_S) -> None:
        """Wait until these sites are online."""
        until = time.monotonic() + timeout_s
        online: set[str] = set()
        with AdminClient.open(self.state) as server:
            while time.monotonic() < until:
                online = {site["name"] for site in server.sites() if site["state"] == "online"}
                if online >= set(names):
                    return
                time.sleep(0.1)
        raise AssertionError(f"online: {sorted(online)}, wanted {names}; {self.log(*names)}")

    def log(self, *names: str) -> str:
        """The end of the logs of the server ("server") or of sites, for a failing test's message."""
        paths = []
        for name in names:
            paths += (
                [self.home / "server.stderr", *sorted((self.state / "logs").glob("*.log"))] if name == "server" else []
            )
            paths += sorted(self.site_home(name).glob("*.stderr"))
        return "\n".join(f"== {path.name}\n{path.read_text()[-2000:]}" for path in paths if path.exists())

    def _environment(self, home: Path) -> dict[str, str]:
        return {**os.environ, "OMP_NUM_THREADS": "1", **self.environment, "FEDSITE_HOME": str(home)}


def command(*arguments: str) -> list[str]:
    """The `fedsite` of this interpreter."""
    return [sys.executable, "-m", "fedsite.client.cli", *arguments]


def free_port() -> int:
    """A TCP port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end(process: subprocess.Popen[str], *, grace_s: float = 60.0) -> int:
    """Ask a process to end, then make it; returns its exit code."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=grace_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
    return int(process.returncode)
