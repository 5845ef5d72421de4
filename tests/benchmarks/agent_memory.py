"""Memory of one site's agent: idle after joining, during a round (with its worker), and when the worker has ended.

PSS counts a page shared by n processes as 1/n; on a host of its own an agent shares with nobody, so private + shared
(RSS) stands beside it. Linux only: both are read from smaps_rollup.

    python tests/benchmarks/agent_memory.py           a table
    python tests/benchmarks/agent_memory.py --json    one document on the last line
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

from tests.benchmarks.stacks.ours import Sites
from tests.e2e import leftovers

IDLE_S = 1.0  # after which the worker may end; it is looked at when an empty pull returns
LONGEST_S = 90.0


@dataclass(frozen=True)
class Memory:
    """Megabytes of one process."""

    pss: float
    rss: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
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
        left = len(leftovers.workers(us.site_home("site-0")))
    print(f"{'':30}{'PSS MB':>8}{'RSS MB':>8}")
    for name, item in found.items():
        print(f"{name:30}{item.pss:8.1f}{item.rss:8.1f}")
    print(f"workers left: {left}")
    if as_json:
        value = {
            "schema": "fedsite.benchmark/1",
            "benchmark": "agent_memory",
            "megabytes": {name: {"pss": item.pss, "rss": item.rss} for name, item in found.items()},
            "workers_left": left,
        }
        print(json.dumps(value))


def memory(pid: int) -> Memory:
    """What the kernel says about a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return Memory(pss=kilobytes["Pss"] / 1000, rss=kilobytes["Rss"] / 1000)


if __name__ == "__main__":
    main()
