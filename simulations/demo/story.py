"""The whole story on one machine: it types the public commands a central team and its sites would type, and reports.

No private path: the server, each agent, each launch and each scoring is a `fedsite …` process with a state directory of
its own. Only the baselines and the report are made here, from data that is the researcher's own.
"""

from __future__ import annotations

import contextlib
import importlib.util
import platform
import shutil
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from fedsite.protocol.errors import ConfigError, UnreachableError
from fedsite.protocol.secagg.manifest import Terms
from fedsite.protocol.storage import private_directory
from fedsite.server import settings
from fedsite.server.plans import feasible
from fedsite.simulations.demo import site_settings
from fedsite.simulations.demo.live import View
from fedsite.simulations.demo.processes import Commands
from fedsite.telemetry import contract, loading
from fedsite.telemetry.errors import TelemetryError
from fedsite.telemetry.location import DataLocation
from fedsite.telemetry.task import Task, load_task

OWN = ("sites", "seed", "out", "data.path", "keep")
ONLINE_SECONDS = 120.0
MOST_SITES = 100  # each is a process of its own, with 65 MB while it waits and more while it trains
EPSILON = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the demo itself takes; everything else is handed to `fedsite launch` as it is."""

    task: Task
    asked: settings.LaunchSettings  # what the launch will be told
    sites: int | None = None  # default: the task's own number
    seed: int = 0
    out: Path = Path("runs/demo")
    data_path: str | None = None  # a file or folder of the task's schema that holds every site
    keep: bool = False  # keep keys, databases and models below `out`
    launch: tuple[str, ...]  # overrides for `fedsite launch`
    typed: bool  # some of them were typed: a plan nobody has tried

    def data(self, site: str | None) -> DataLocation:
        """Where one site's data is, or that of all of them."""
        path = None if self.data_path is None else Path(self.data_path)
        return DataLocation(path=path, site=site, seed=self.seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What happened, before it is compared with anything."""

    run: dict[str, Any]  # `fedsite runs show --json`
    scores: dict[str, dict[str, Any]]  # site name -> `fedsite score --json`
    phases: tuple[tuple[str, float], ...]
    seconds: float


def read(arguments: Sequence[str]) -> Options:
    """Sort `key=value` arguments into the demo's own and the launch's; both are checked before anything starts.

    Raises:
        ConfigError: not of that form, an unknown key (with the nearest), or a value of the wrong kind.
    """
    own: dict[str, Any] = {}
    passed = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in ("sites", "seed"):
            own[key] = _whole(key, value)
        elif key in ("out", "data.path"):
            if not value.strip():
                raise ConfigError(f"{key} is empty", allowed="a path", next_step=f"fedsite demo {key}=PATH")
            own |= {"out": Path(value)} if key == "out" else {"data_path": value}
        elif key == "keep":
            own["keep"] = _yes(key, value)
        else:
            passed.append(argument)
    keys, typed = {item.partition("=")[0] for item in passed}, bool(passed)
    if not keys & {"privacy", "experiment"}:
        passed.append("privacy=sample")
        if not keys & {"privacy.epsilon", "privacy.noise_multiplier"}:
            passed.append(f"privacy.epsilon={EPSILON:g}")
    passed.append(f"seed={own.get('seed', 0)}")
    try:
        asked = settings.compose(passed)
    except ConfigError as error:
        error.allowed = f"{', '.join(OWN)}, {error.allowed}" if "unknown override" in error.found else error.allowed
        error.next_step = "fedsite demo --help"
        raise
    return Options(**own, task=load_task(asked.task_file or asked.task), asked=asked, launch=tuple(passed), typed=typed)


def play(options: Options, console: Console) -> Played:
    """Run the federation, from `server init` to the last score; leaves no process behind.

    Raises:
        FedsiteError: a command failed; the error is that command's own.
    """
    task = options.task
    names = _sites(options, task)
    protection = options.asked.protection
    if protection.mode == "secagg":
        feasible.check_sites(protection.terms.min_cohort or Terms().min_cohort, protection.groups or 1, len(names))
    root = _emptied(options.out / "state")
    logs = private_directory(options.out / "logs")
    commands = Commands(logs)
    server = private_directory(root / "central")
    if options.typed:
        # A plan that nobody would take is told before a server is set up for it.
        commands.read(server, "launch", *_launch(options, len(names)), "--plan")
    began = time.monotonic()
    phases: list[tuple[str, float]] = []

    def phase(name: str) -> None:
        phases.append((name, time.monotonic() - began - sum(seconds for _, seconds in phases)))

    try:
        homes = {name: private_directory(root / name) for name in names}
        console.print(f"[bold]{task.title}[/bold]: {len(names)} sites, everything on this machine")
        port = _free_port()
        commands.read(server, "server", "init", "--name", "demo", "--address", f"127.0.0.1:{port}")
        commands.start("server", server, "server", "up")
        _until_up(commands, server)
        for name, home in homes.items():
            token = commands.read(server, "token", "create", "--expires", "1h")["token"]
            commands.read(home, "join", "--name", name, secret=token)
            commands.start(name, home, "up", *site_settings.overrides(options.asked, options.data(name)))
        _until_online(commands, server, len(names))
        console.print(f"server on 127.0.0.1:{port} (TLS), {len(names)} agents enrolled and online")
        phase("set-up")
        launched = commands.read(server, "launch", *_launch(options, len(names)), "--detach")
        run_id = str(launched["run_id"])
        with View(console, task.metric.name) as view:
            for event in commands.lines(server, "runs", "watch", run_id):
                view.take(event)
                if event.get("kind") == "finished":
                    break
        run = commands.read(server, "runs", "show", run_id)
        phase("run")
        scores = _scores(commands, options, homes, run)
        phase("scoring")
        return Played(run=run, scores=scores, phases=tuple(phases), seconds=time.monotonic() - began)
    finally:
        commands.stop()
        if not options.keep:
            _forget_secrets(root)


def versions() -> dict[str, str]:
    """What the figures were made with."""
    names = ("fedsite", "flwr", "torch", "opacus", "onnxruntime", "cryptography", "numpy")
    found = {name: metadata.version(name) for name in names}
    if importlib.util.find_spec("numba") is not None:
        found["numba"] = metadata.version("numba")  # its kernels' bits are those of its compiler
    return {**found, "python": platform.python_version()}


def created() -> str:
    """Now, RFC 3339 in UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def locations(options: Options, names: Sequence[str]) -> dict[str, DataLocation]:
    """Where each site's data is, as the sites' own settings say."""
    return {name: options.data(name) for name in names}


def _sites(options: Options, task: Task) -> list[str]:
    path = options.data(None).path
    names = loading.site_names(task, options.data(None))
    wanted = options.sites or task.data.sites or len(names)
    if wanted > MOST_SITES:
        raise ConfigError(f"sites={wanted}", allowed=f"1 to {MOST_SITES}: each is a process of its own")
    if path is not None:
        _check(task, options.data(names[0] if task.data.site_column else None))
    if task.data.source == "synthetic" and path is None:
        return [f"{task.data.generator}-{number}" for number in range(wanted)]
    if wanted > len(names):
        raise ConfigError(f"sites={wanted}", allowed=f"1 to {len(names)} for task {task.name} and its data")
    return names[:wanted]


def _check(task: Task, where: DataLocation) -> None:
    """Refuse data of the researcher's own that no site could train on, before anything starts.

    Raises:
        TelemetryError: the first error that `fedsite data check` would tell.
    """
    for finding in contract.check(task, where):
        if finding.severity == "error":
            raise TelemetryError(finding.text, allowed=finding.allowed, next_step=finding.remedy, code=finding.code)


def _launch(options: Options, sites: int) -> list[str]:
    alone = sites == 1 and options.asked.rounds.minimum is None
    return [*options.launch, *(["rounds.minimum=1"] if alone else [])]


def _scores(
    commands: Commands, options: Options, homes: dict[str, Path], run: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    found = {}
    for name, home in homes.items():
        if (run.get("result") or {}).get("release") is None:
            break
        with contextlib.suppress(UnreachableError):
            found[name] = commands.read(home, "score", *site_settings.overrides(options.asked, options.data(name)))
    return found


def _until_up(commands: Commands, server: Path) -> None:
    deadline = time.monotonic() + ONLINE_SECONDS
    while not (server / "server" / "server.json").exists():
        commands.check()
        if time.monotonic() > deadline:
            raise UnreachableError(f"the server did not come up within {ONLINE_SECONDS:.0f} s")
        time.sleep(0.1)


def _until_online(commands: Commands, server: Path, wanted: int) -> None:
    deadline = time.monotonic() + ONLINE_SECONDS
    while True:
        commands.check()
        sites = commands.read(server, "sites", "list")["sites"]
        online = sum(site["state"] == "online" for site in sites)
        if online >= wanted:
            return
        if time.monotonic() > deadline:
            raise UnreachableError(f"{online} of {wanted} agents came online within {ONLINE_SECONDS:.0f} s")
        time.sleep(0.3)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _emptied(root: Path) -> Path:
    """The directory for everybody's state, without what the last demo left there.

    Raises:
        ConfigError: it holds something that no demo made.
    """
    if root.exists() and any(root.iterdir()) and not (root / "central").is_dir():
        raise ConfigError(
            f"{root} is not empty, and not what a demo left", allowed="a folder of its own", next_step="out=FOLDER"
        )
    shutil.rmtree(root, ignore_errors=True)
    return private_directory(root)


def _forget_secrets(root: Path) -> None:
    """The demo's keys and copies of data have no use after it; what the report needs lies beside them."""
    for pattern in ("*.key", "*.secret"):
        for path in root.rglob(pattern):
            path.unlink(missing_ok=True)


def _whole(key: str, value: str) -> int:
    try:
        number = int(value)
    except ValueError:
        number = -1
    least = 1 if key == "sites" else 0
    if number < least:
        raise ConfigError(
            f"{key} is {value!r}", allowed=f"a whole number, {least} or more", next_step="fedsite demo --help"
        )
    return number


def _yes(key: str, value: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if value.lower() not in words:
        raise ConfigError(f"{key} is {value!r}", allowed="true or false", next_step="fedsite demo --help")
    return words[value.lower()]
