"""What can be shown against a claim, as built and with the mechanism broken in one way each?

`python tests/benchmarks/claims.py [--runs N] [--canaries N] [--path formulas|hooks|engine] [--json]`. Ten rounds of
four steps at sampling rate 0.25 under ε 8, δ 1e-5 per window. Broken mechanisms need a site's own step (`formulas`,
`hooks`): its source of randomness, or its clipping, is replaced.
"""

from __future__ import annotations

import argparse
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from fedsite.privacy import accounting, clipping
from fedsite.privacy.sampling import SeededSource, Source
from fedsite.protocol.plan import LocalPlan, PrivacyPlan
from fedsite.simulations.audits.audit import Audited, audit
from fedsite.simulations.audits.spec import ENGINE, PATHS, AuditSpec
from tests.broken_sources import KeptBatch, Reused, Scaled

ROUNDS, LOCAL = 10, LocalPlan(steps=4, sampling_rate=0.25)
BROKEN: dict[str, Callable[[int], Source]] = {
    "as built": SeededSource,
    "half the noise": lambda number: Scaled(0.5, SeededSource(number)),
    "no clipping": SeededSource,
    "a batch that is kept": KeptBatch,
    "a seed that is reused": lambda _: Reused(),
}


@contextmanager
def _unclipped(wanted: bool) -> Iterator[None]:
    kept = clipping.factors
    if wanted:
        clipping.factors = lambda norms, bound: np.ones_like(norms)
    try:
        yield
    finally:
        clipping.factors = kept


def audits(asked: AuditSpec) -> dict[str, Audited]:
    """Of every mechanism."""
    total = ROUNDS * LOCAL.steps
    sigma = accounting.solve_noise_multiplier(8.0, 1e-5, LOCAL.sampling_rate, total)
    privacy = PrivacyPlan(mode="sample", noise_multiplier=sigma, batch=36.0)
    found = {}
    for name, sources in BROKEN.items():
        if asked.path == ENGINE and name != "as built":
            continue
        with _unclipped(name == "no clipping"):
            found[name] = audit(LOCAL, privacy, ROUNDS, asked, sources=sources)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--canaries", type=int, default=500)
    parser.add_argument("--path", choices=PATHS[1:], default=PATHS[1])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = audits(AuditSpec(runs=asked.runs, canaries=asked.canaries, path=asked.path, control=False))
    deltas = [f"δ {point.delta:g}" for point in found["as built"].points]
    print("| mechanism | shown (claimed) at", " | ".join(deltas), "| claim |")
    print("|---|" + "---|" * (len(deltas) + 1))
    for name, one in found.items():
        cells = [f"{point.lower:.2f} ({point.claimed:.2f})" for point in one.points]
        print(f"| {name} |", " | ".join(cells), "|", "false |" if one.flagged else "stands |")
    if asked.json:
        print(json.dumps({"schema": "fedsite.claims/1", **{name: one.plain for name, one in found.items()}}))


if __name__ == "__main__":
    main()
