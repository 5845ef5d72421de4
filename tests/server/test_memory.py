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

SECURE = """
import resource
import numpy as np
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.secagg.context import NO_MODEL, Attempt
from fedsite.protocol.secagg.fixedpoint import Field
from fedsite.protocol.secagg.manifest import Manifest
from fedsite.protocol.secagg.server import Sum
from fedsite.server.sums.groups import Group
from fedsite.server.link.transport import SiteLink

size = {megabytes} * 10**6 // 4
terms = Manifest(purpose="train", plan_hash="00" * 32, sites=100, fields=(Field(name="x", shape=(size,), bound=1.0),))
attempt = Attempt(run_id="01ARYZ6S410000000000000000", round=1, attempt=1, manifest_hash=terms.hash)
key = SigningKey.generate().public
ids = [site.to_bytes(16, "big") for site in range({sites})]
made = Sum(manifest=terms, attempt=attempt, model_hash=NO_MODEL, stage="mask", u2=tuple(ids))
made.total = np.zeros(size, np.uint32)
links = {{site: SiteLink(site_id=site.hex(), name=site.hex(), node_id="1", public_key=key) for site in ids}}
group = Group(name="group-1", sum=made, sites=links)
for site in ids:
    group.take_vector(site, np.ones(size, np.uint32).tobytes())  # as a reply is read: its own copy each time
assert (made.total == {sites}).all()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(sites: int, megabytes: int = MEGABYTES, program: str = PROGRAM) -> float:
    """Peak resident memory in MB of a process that adds up updates of so many sites."""
    program = program.format(sites=sites, megabytes=megabytes)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=250)
    return int(done.stdout) / 1000


def test_ten_times_the_sites_take_no_more_memory() -> None:
    few, many = peak(3, megabytes=8), peak(30, megabytes=8)
    assert many - few < 8  # less than one more update


def test_masked_vectors_are_added_one_at_a_time() -> None:
    few, many = peak(3, 8, SECURE), peak(30, 8, SECURE)
    assert many - few < 8


@pytest.mark.slow
def test_10_and_100_updates_of_25_megabytes() -> None:
    few, many = peak(10), peak(100)
    print(f"peak of 10 updates: {few:.0f} MB, of 100: {many:.0f} MB")
    assert many - few < MEGABYTES
