"""Processes of a federation that should be gone, found by the state directory in their environment."""

from __future__ import annotations

import time
from pathlib import Path

import psutil


def below(directory: Path) -> list[psutil.Process]:
    """Every live process whose FEDSITE_HOME lies in `directory`: launchers, agents, workers, Flower's own."""
    found = []
    for process in psutil.process_iter():
        try:
            home = process.environ().get("FEDSITE_HOME", "")
            if Path(home).is_relative_to(directory) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def after(directory: Path, *, within_s: float = 20.0) -> list[str]:
    """What is still there after `within_s` seconds at the latest, for an assertion: [] when all has ended."""
    until = time.monotonic() + within_s
    while True:
        found = below(directory)
        if not found or time.monotonic() > until:
            return [f"{process.pid} {_line(process)}" for process in found]
        time.sleep(0.05)


def workers(directory: Path) -> list[psutil.Process]:
    """The training processes below `directory`."""
    return [process for process in below(directory) if "fedsite.client.worker" in _line(process)]


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


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return "(gone)"
