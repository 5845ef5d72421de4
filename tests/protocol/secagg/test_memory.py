"""A hundred million parameters: masking, adding and opening take no copy of them."""

import subprocess
import sys

import pytest

CHILD = """
import hashlib, resource, sys
import numpy as np
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.secagg import site
from fedsite.protocol.secagg.context import NO_MODEL, Attempt
from fedsite.protocol.secagg.fixedpoint import Field
from fedsite.protocol.secagg.manifest import Manifest
from fedsite.protocol.secagg.server import Sum

words = int(sys.argv[1])
keys = {bytes.fromhex(key.public.id): key for key in (SigningKey.generate() for _ in range(3))}
identities = {one: key.public for one, key in keys.items()}
manifest = Manifest(
    purpose="train", plan_hash="ab" * 32, sites=3, fields=(Field(name="x", shape=(words,), bound=1.0),)
)
attempt = Attempt(run_id="01ARYZ6S410000000000000000", round=1, attempt=1, manifest_hash=manifest.hash)
total = Sum(manifest=manifest, attempt=attempt, model_hash=NO_MODEL)
states = {}
for one, key in keys.items():
    states[one], advert = site.advertise(manifest, attempt, key)
    total.add_advert(one, advert.raw, identities)
roster = total.close_adverts()
for one in roster.sites:
    states[one], sealed = site.share(states[one], roster, identities, NO_MODEL)
    total.add_shares(one, sealed)
total.close_shares()
vector = np.ones(words, np.uint32)
total.total[:] = 0
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for number, one in enumerate(total.u2):
    vector[:] = number + 1
    states[one], _ = site.mask(states[one], total.u2, total.shares_for(one), vector, threads=2)
    total.add_vector(one, vector)
total.close_vectors()
for one in total.u3:
    states[one], opened = site.unmask(states[one], total.u3, identities, {})
    total.add_opened(one, opened)
found = total.open(threads=2)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert found.min() == found.max() == 6, "the sum is not the sum"
print(after - before)
"""


def extra_kib(words: int) -> int:
    """The peak beside one vector and the running sum."""
    done = subprocess.run([sys.executable, "-c", CHILD, str(words)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_four_million_parameters_take_no_copy() -> None:
    """A copy would be 16 MB."""
    assert extra_kib(4_000_000) < 8_000


@pytest.mark.slow
def test_a_hundred_million_parameters_take_less_than_100_mb() -> None:
    assert extra_kib(100_000_000) < 100_000_000 / 1024
