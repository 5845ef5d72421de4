"""From a token to the first completed round, as the README has it done: three sites on the pump task, on one machine.

Each step is the command that a person would type, one after the other, with a server that is up already. The clock runs
from `fedsite token create` to the first `round_finished` of the run; nobody reads or types in between.

    python tests/benchmarks/first_round.py           seconds of each step
    python tests/benchmarks/first_round.py --json    one document on the last line
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from fedsite.simulations.demo.processes import Commands

SITES = ("pump-0", "pump-1", "pump-2")
LONGEST_S = 120.0  # for a server to come up, or for sites to come online


@dataclass(slots=True)
class Clock:
    """Seconds of each step so far."""

    began: float = field(default_factory=time.monotonic)
    steps: dict[str, float] = field(default_factory=dict)

    def step(self, name: str) -> None:
        """What began when the last step ended is done."""
        self.steps[name] = time.monotonic() - self.began - sum(self.steps.values())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        steps = first_round(Path(folder))
    total = sum(steps.values())
    for name, seconds in steps.items():
        print(f"{name:44}{seconds:8.1f} s")
    print(f"{'from the first token to the first round':44}{total:8.1f} s")
    if options.json:
        value = {
            "schema": "fedsite.benchmark/1",
            "benchmark": "first_round",
            "sites": len(SITES),
            "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "load": round(os.getloadavg()[0], 2),
            "seconds": steps,
            "total": total,
        }
        print(json.dumps(value))


def first_round(folder: Path) -> dict[str, float]:
    """Set a federation up below `folder`, run it to its first round, and leave no process behind."""
    homes = {name: folder / name for name in ("central", *SITES)}
    logs = folder / "logs"
    for path in (logs, *homes.values()):
        path.mkdir(mode=0o700)
    central, commands = homes["central"], Commands(logs)
    try:
        commands.read(central, "server", "init", "--name", "pumps", "--address", f"127.0.0.1:{_free_port()}")
        commands.start("server", central, "server", "up")
        _wait(commands, lambda: (central / "server" / "server.json").exists())
        clock = Clock()
        for site in SITES:
            token = commands.read(central, "token", "create", "--label", site)["token"]
            clock.step(f"{site}: token create")
            commands.read(homes[site], "join", secret=token)
            clock.step(f"{site}: join")
            commands.read(homes[site], "data", "check", "pump", f"data.site={site}")
            clock.step(f"{site}: data check pump")
            commands.start(site, homes[site], "up", f"data.site={site}")
        _wait(commands, lambda: _online(commands, central) == len(SITES))
        clock.step("up: all sites online")
        for event in commands.lines(central, "launch", "task=pump", "rounds.count=3"):
            if event.get("kind") == "prepared":
                clock.step("launch: planned, and accepted by the sites")
            if event.get("kind") == "round_finished":
                clock.step(f"launch: round {event['round']} {event['outcome']}")
                break
        return clock.steps
    finally:
        commands.stop()


def _online(commands: Commands, central: Path) -> int:
    return sum(site["state"] == "online" for site in commands.read(central, "sites", "list")["sites"])


def _wait(commands: Commands, done: Callable[[], bool]) -> None:
    until = time.monotonic() + LONGEST_S
    while not done():
        commands.check()
        if time.monotonic() > until:
            raise TimeoutError(f"not within {LONGEST_S:.0f} s")
        time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
