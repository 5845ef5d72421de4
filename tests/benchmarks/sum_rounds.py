"""What the masks cost on the real transport: rounds with secure aggregation beside sealed ones, interleaved.

Three sites, a network of 420 inputs, one local step, FedAvg, no privacy, no evaluation, no release; one federation,
whose runs alternate. A round counts from the end of the one before it to its own: all stages, checkpoint, journal.

    python tests/benchmarks/sum_rounds.py [--sites 3] [--blocks 3] [--rounds 20]   a table
    python tests/benchmarks/sum_rounds.py --json   one document on the last line
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from fedsite.server.runs.journal import Reader
from tests.benchmarks.stacks.ours import Sites

MODES = ("sealed", "secagg")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=20, help="in one block of one mode")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
    sent: dict[str, list[int]] = {mode: [] for mode in MODES}
    with tempfile.TemporaryDirectory() as folder, Sites(Path(folder)) as sites:
        sites.up(options.sites)
        for mode in MODES:
            sites.run(2, f"protection={mode}")  # both have seen a round before the first block
        for _ in range(options.blocks):
            for mode in MODES:
                run = sites.run(options.rounds + 1, f"protection={mode}")
                found, up = _rounds(run)
                seconds[mode] += found
                sent[mode] += up
    medians = {mode: statistics.median(found) for mode, found in seconds.items()}
    value = {
        "schema": "fedsite.benchmark/1",
        "benchmark": "sum_rounds",
        "sites": options.sites,
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "rounds": {mode: len(found) for mode, found in seconds.items()},
        "seconds": medians,
        "bytes_up": {mode: statistics.median(found) for mode, found in sent.items()},
        "ratio": medians["secagg"] / medians["sealed"],
    }
    print(f"{'':8}{'rounds':>8}{'median s':>10}{'bytes up':>10}")
    for mode in MODES:
        print(f"{mode:8}{len(seconds[mode]):8}{medians[mode]:10.3f}{statistics.median(sent[mode]):10.0f}")
    print(f"a round under the masks takes {value['ratio']:.2f} times as long as a sealed one")
    if options.json:
        print(json.dumps(value))


def _rounds(run: Path) -> tuple[list[float], list[int]]:
    """Seconds of every round but the first, and its bytes received from all sites."""
    ended = [event for event in Reader(run / "journal.db").events() if event["kind"] == "round_finished"]
    assert {event["outcome"] for event in ended} == {"completed"}, ended
    at = [datetime.fromisoformat(str(event["at"])).timestamp() for event in ended]
    spans = [after - before for before, after in itertools.pairwise(at)]
    return spans, [int(str(event["bytes_up"])) for event in ended[1:]]


if __name__ == "__main__":
    main()
