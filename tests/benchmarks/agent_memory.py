"""Memory of one site: its agent idle, after a run, when its worker has ended; the most a worker takes for a round.

PSS counts a page shared by n processes as 1/n; on a host of its own an agent shares with nobody, so private + shared
(RSS) stands beside it. Linux only: both are read from smaps_rollup, a worker's peak (VmHWM) from its status.

    python tests/benchmarks/agent_memory.py              a table
    python tests/benchmarks/agent_memory.py --json       one document on the last line
    python tests/benchmarks/agent_memory.py pump ward    rounds of these tasks; by default of all whose data is here
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from fedsite.client.work.worker_link import WorkerError
from fedsite.telemetry.errors import TelemetryError
from fedsite.telemetry.task import shipped_names
from tests import worker_rounds
from tests.benchmarks.stacks.ours import Sites
from tests.e2e import leftovers

IDLE_S = 1.0  # after which the worker may end; it is looked at when an empty pull returns
LONGEST_S = 90.0
IDLE_MB, ROUND_MB = 120.0, 600.0  # what an idle agent and a round may take
WAYS = {"privacy=none": worker_rounds.PLAIN, "privacy=sample": worker_rounds.PRIVATE}


@dataclass(frozen=True)
class Memory:
    """Megabytes of one process."""

    pss: float
    rss: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("tasks", nargs="*", default=shipped_names())
    given = parser.parse_args()
    found, left = agent_and_worker()
    print(f"{'':30}{'PSS MB':>8}{'RSS MB':>8}")
    for name, item in found.items():
        print(f"{name:30}{item.pss:8.1f}{item.rss:8.1f}")
    print(f"workers left: {left}\n\n{'a round':30}{'peak MB':>8}{'ended':>8}")
    rounds: dict[str, dict[str, worker_rounds.Taken]] = {}
    for task in given.tasks:
        for way, overrides in WAYS.items():
            taken = one_round(task, overrides)
            if taken is None:
                print(f"{task:30}{'no data':>8}")
                break
            rounds.setdefault(task, {})[way] = taken
            print(f"{task + ' ' + way:30}{taken.peak:8.1f}{'yes' if taken.ended else 'NO':>8}")
    idle = max(item.rss for name, item in found.items() if name.startswith("agent"))
    peak = max((taken.peak for ways in rounds.values() for taken in ways.values()), default=0.0)
    print(f"agent at most {idle:.1f} MB (bound {IDLE_MB:g}), a round at most {peak:.1f} MB (bound {ROUND_MB:g})")
    if given.json:
        value = {
            "schema": "fedsite.benchmark/1",
            "benchmark": "agent_memory",
            "megabytes": {name: {"pss": item.pss, "rss": item.rss} for name, item in found.items()},
            "workers_left": left,
            "rounds": {task: {way: taken.peak for way, taken in ways.items()} for task, ways in rounds.items()},
            "bounds": {"agent": IDLE_MB, "round": ROUND_MB},
        }
        print(json.dumps(value))
    ended = all(taken.ended for ways in rounds.values() for taken in ways.values())
    sys.exit(0 if idle < IDLE_MB and peak < ROUND_MB and not left and ended else 1)


def one_round(task: str, overrides: tuple[str, ...]) -> worker_rounds.Taken | None:
    """What a round took; None where the task's data is not here."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return worker_rounds.one_round(task, Path(folder), *overrides)
        except (TelemetryError, WorkerError) as error:
            print(f"  {error}", file=sys.stderr)
            return None


def agent_and_worker() -> tuple[dict[str, Memory], int]:
    """One federation with one site: its agent before, while and after it has a worker, and the workers left."""
    found: dict[str, Memory] = {}
    with tempfile.TemporaryDirectory() as folder, Sites(Path(folder)) as us:
        agent = us.up(1, f"agent.idle_worker_s={IDLE_S:g}").agents["site-0"].pid
        found["agent, idle after joining"] = memory(agent)
        us.run(3, "rounds.minimum=1", "protection=sealed")
        workers = leftovers.workers(us.site_home("site-0"))
        found["agent, after a run"] = memory(agent)
        if workers:
            found["worker, warm"] = memory(workers[0].pid)
        until = time.monotonic() + LONGEST_S
        while leftovers.workers(us.site_home("site-0")) and time.monotonic() < until:
            time.sleep(0.5)
        found["agent, its worker has ended"] = memory(agent)
        return found, len(leftovers.workers(us.site_home("site-0")))


def memory(pid: int) -> Memory:
    """What the kernel says about a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return Memory(pss=kilobytes["Pss"] / 1000, rss=kilobytes["Rss"] / 1000)


if __name__ == "__main__":
    main()
