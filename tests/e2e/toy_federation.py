"""Federations on the toy task, whose runs are watched and whose rounds can be caught in the middle."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.e2e import toy
from tests.e2e.federation import Federation, end

LONGEST_S = 120.0  # any wait here, on a loaded machine


@dataclass(slots=True)
class Watch:
    """The events of one run as `fedsite runs watch --json` prints them, collected by a thread."""

    process: subprocess.Popen[str]
    log: Path  # what it writes to stderr
    longest_s: float = LONGEST_S
    events: list[dict[str, Any]] = field(default_factory=list)
    ended: bool = False

    def collect(self) -> None:
        """Read until the command ends."""
        for line in self.process.stdout or ():
            self.events.append(json.loads(line))
        self.ended = True

    def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first event that is wanted, past or to come."""
        end = time.monotonic() + self.longest_s
        while time.monotonic() < end:
            ended = self.ended  # before the last look
            for event in list(self.events):
                if wanted(event):
                    return event
            assert not ended, f"the command ended: {self.log.read_text()[-2000:]}; so far: {self.events}"
            time.sleep(0.02)
        raise AssertionError(f"not within {self.longest_s} s; so far: {self.events}")

    def finished(self) -> dict[str, Any]:
        """The run's last event."""
        return self.until(lambda event: event["kind"] == "finished")


@dataclass(slots=True)
class Toys(Federation):
    """A federation whose sites all have the toy data, and may be asked for runs without privacy."""

    def site(self, name: str) -> Path:
        """Enrol and start a site."""
        home = self.prepare_site(name)
        self.start_agent(name)
        return home

    def prepare_site(self, name: str) -> Path:
        """Enrol a site that has data, and start nothing."""
        home = self.join_site(name)
        toy.write(self.directory)
        settings = f"data: {{path: {self.directory / 'toy.csv'}}}\npolicy: {{require_privacy: false}}\n"
        (home / "site" / "site.yaml").write_text(settings)
        return home

    def launch(self, *overrides: str) -> str:
        """Launch a run on the toy task without release, and without privacy unless told; returns its id."""
        quick = () if any(word.startswith("privacy=") for word in overrides) else ("privacy=none",)
        task = f"task_file={self.directory / 'toy.yaml'}"
        done = self.cli("launch", task, "release=none", *quick, *overrides, "--detach", "--json")
        assert done.code == 0, done.stderr
        return str(done.value["run_id"])

    def start_recorded(
        self, name: str, *, place: str = "-", moment: str = "before", number: int = 1
    ) -> subprocess.Popen[str]:
        """Start an agent that keeps a copy of what it releases, and dies at `place` of round `number`: faulty_agent."""
        home = self.site_home(name)
        self._copies(name).mkdir(exist_ok=True)
        script = str(Path(__file__).with_name("faulty_agent.py"))
        words = [sys.executable, script, str(self._copies(name)), place, str(number), moment, "up"]
        self.agents[name] = self.start_process(words, home, home / "up.stderr")
        return self.agents[name]

    def restart_recorded(self, name: str, *, place: str, moment: str) -> subprocess.Popen[str]:
        """End an agent, start it as `start_recorded` does, and wait until it is online."""
        end(self.agents[name])
        self.start_recorded(name, place=place, moment=moment)
        self.wait_online(name)
        return self.agents[name]

    def released(self, name: str, run_id: str, purpose: str, number: int) -> NDArray[np.uint32]:
        """The vector that a site released for one sum, before its masks [word]."""
        path = self._copies(name) / f"{run_id}-{purpose}-{number}"
        return np.frombuffer(path.read_bytes(), np.dtype("<u4"))

    def _copies(self, name: str) -> Path:
        return self.site_home(name) / "released"

    def watch(self, run_id: str, *, longest_s: float = LONGEST_S) -> Watch:
        """Follow a run."""
        process = self.popen("runs", "watch", run_id, "--json", home=self.home)
        found = Watch(process, self.home / "runs.stderr", longest_s=longest_s)
        threading.Thread(target=found.collect, daemon=True).start()
        return found

    def result(self, run_id: str) -> dict[str, Any]:
        """The result of a run that is over."""
        return dict(self.cli("runs", "show", run_id, "--json").value["result"])
