"""Processes of a federation that should be gone, found by the state directory in their environment."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil


def below(directory: Path) -> list[psutil.Process]:
    """Every live process whose FEDSITE_HOME lies in `directory`: launchers, agents, workers, Flower's own."""
    found = []
    for process in psutil.process_iter():
        home = _home(process)
        if home and Path(home).is_relative_to(directory):
            found.append(process)
    return found


def after(directory: Path, *, within_s: float = 20.0) -> list[str]:
    """What is still there after `within_s` seconds at the latest, for an assertion: [] when all has ended."""
    until = time.monotonic() + within_s
    while True:
        found = below(directory)
        if not found or time.monotonic() > until:
            return [f"{process.pid} {line(process)}" for process in found]
        time.sleep(0.05)


def workers(directory: Path) -> list[psutil.Process]:
    """The training processes below `directory`."""
    return [process for process in below(directory) if "fedsite.client.work.worker" in line(process)]


def drivers(directory: Path) -> list[psutil.Process]:
    """The processes that drive runs below `directory`."""
    return [process for process in below(directory) if "serverapp" in line(process)]


@contextlib.contextmanager
def stopped(*processes: psutil.Process) -> Iterator[None]:
    """Hold these processes (SIGSTOP): they are there, and do nothing."""
    try:
        for process in processes:
            process.suspend()
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()


def wait_busy(directory: Path, *, cpu_s: float = 0.1, within_s: float = 60.0) -> psutil.Process:
    """The one worker below `directory`, once it has computed for another `cpu_s` seconds."""
    until = time.monotonic() + within_s
    started: dict[int, float] = {}
    while time.monotonic() < until:
        for process in workers(directory):
            try:
                used = process.cpu_times().user
            except psutil.Error:
                continue
            if used - started.setdefault(process.pid, used) >= cpu_s:
                return process
        time.sleep(0.02)
    raise AssertionError(f"no worker below {directory} computed anything within {within_s} s")


def alive(pid: int) -> bool:
    """Whether any thread of it still runs: one of them holds its ports and files, also once the first has ended."""
    found = False
    for thread in _threads(pid):
        with contextlib.suppress(OSError):
            found |= (thread / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return found


def line(process: psutil.Process) -> str:
    """Its command line."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return "(gone)"


def _home(process: psutil.Process) -> str:
    """Its FEDSITE_HOME. A first thread that ended before the others has no environment any more, but they have."""
    if not Path("/proc/self/task").exists():
        with contextlib.suppress(psutil.Error, OSError):
            return str(process.environ().get("FEDSITE_HOME", ""))
        return ""
    for thread in _threads(process.pid):
        with contextlib.suppress(OSError):
            for item in (thread / "environ").read_bytes().split(b"\0"):
                if item.startswith(b"FEDSITE_HOME="):
                    return os.fsdecode(item.partition(b"=")[2])
    return ""


def _threads(pid: int) -> list[Path]:
    with contextlib.suppress(OSError):
        return list(Path(f"/proc/{pid}/task").iterdir())
    return []
