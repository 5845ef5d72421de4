"""Server memory does not grow with the number of sites: 10 and 100 updates of 25 MB, each in a process of its own.

python -m pytest tests/server/test_memory.py -m "slow or not slow" -s
"""

from __future__ import annotations

import subprocess
import sys

import pytest

MEGABYTES = 25
PROGRAM = """
import resource, sys
import numpy as np
from fedsite.server.strategies.fedavg import FedAvg
from fedsite.server.strategies.strategy import Update
from fedsite.protocol import weights

size = {megabytes} * 10**6 // 4
params = {{"w": np.zeros(size, np.float32)}}
strategy = FedAvg()
state = strategy.init(params)
collected = strategy.aggregator(state, ("w",))
blob = weights.encode({{"w": np.full(size, 0.5, np.float32)}})
for site in range({sites}):
    values = weights.decode(blob, limit=1 << 30)  # as a reply is opened: its own copy each time
    collected.add(Update(site=str(site), delta=values, weight=1.0 + site))
state = strategy.apply(state, collected.result())
assert np.allclose(state.params["w"], 0.5)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(sites: int, megabytes: int = MEGABYTES) -> float:
    """Peak resident memory in MB of a process that adds up updates of so many sites."""
    program = PROGRAM.format(sites=sites, megabytes=megabytes)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=250)
    return int(done.stdout) / 1000


def test_ten_times_the_sites_take_no_more_memory() -> None:
    few, many = peak(3, megabytes=8), peak(30, megabytes=8)
    assert many - few < 8  # less than one more update


@pytest.mark.slow
def test_10_and_100_updates_of_25_megabytes() -> None:
    few, many = peak(10), peak(100)
    print(f"peak of 10 updates: {few:.0f} MB, of 100: {many:.0f} MB")
    assert many - few < MEGABYTES
