"""How long a round takes beside the training itself: our agents against stock SuperNodes, interleaved.

Two sites each, a network of 420 inputs, one local step, FedAvg, no privacy, no evaluation, no release. Both stacks are
up all the time; blocks of rounds alternate. A round of ours counts from its first instruction to that of the next one;
one of the peer's from configure_train to the end of aggregate_train.

    python tests/benchmarks/round_latency.py [--blocks 3] [--rounds 20] [--peer-rounds 3]   a table
    python tests/benchmarks/round_latency.py --json   one document on the last line
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.stacks.ours import Sites, round_seconds
from tests.benchmarks.stacks.peer import Peer


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=20, help="of ours in one block")
    parser.add_argument("--peer-rounds", type=int, default=3, help="of the peer's in one block")
    parser.add_argument("--protection", default="sealed", choices=("sealed", "none"))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    ours: list[list[float]] = []
    peer: list[list[float]] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Peer(_made(folder, "peer")) as stock,
        Sites(_made(folder, "us")) as us,
    ):
        us.up(2)
        us.run(1, "rounds.minimum=2")  # both stacks have seen a round before the first block
        stock.rounds(1)
        for block in range(options.blocks):
            run = us.run(options.rounds, "rounds.minimum=2", f"protection={options.protection}")
            ours.append(round_seconds(run))
            peer.append(stock.rounds(options.peer_rounds))
            print(f"block {block + 1}: ours {_median(ours[-1]):.3f} s, peer {_median(peer[-1]):.2f} s", flush=True)
    report(ours, peer, options.json)


def report(ours: list[list[float]], peer: list[list[float]], as_json: bool) -> None:
    """Medians over all rounds, and their ratio."""
    all_ours = [seconds for block in ours for seconds in block]
    all_peer = [seconds for block in peer for seconds in block]
    value = {
        "schema": "fedsite.benchmark/1",
        "benchmark": "round_latency",
        "peer": "flwr 1.41 SuperLink and flower-supernode, process isolation as shipped",
        "sites": 2,
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "rounds": {"ours": len(all_ours), "peer": len(all_peer)},
        "seconds": {
            "ours": {"median": _median(all_ours), "p90": _p90(all_ours), "blocks": [_median(block) for block in ours]},
            "peer": {"median": _median(all_peer), "p90": _p90(all_peer), "blocks": [_median(block) for block in peer]},
        },
        "ratio": _median(all_peer) / _median(all_ours),
    }
    print(f"{'':12}{'rounds':>8}{'median s':>10}{'p90 s':>10}")
    for name, seconds in (("fedsite", all_ours), ("Flower", all_peer)):
        print(f"{name:12}{len(seconds):8}{_median(seconds):10.3f}{_p90(seconds):10.3f}")
    print(f"a round is {value['ratio']:.1f} times shorter")
    if as_json:
        print(json.dumps(value))


def _made(folder: str, name: str) -> Path:
    path = Path(folder) / name
    path.mkdir()
    return path


def _median(seconds: list[float]) -> float:
    return statistics.median(seconds)


def _p90(seconds: list[float]) -> float:
    return sorted(seconds)[int(0.9 * (len(seconds) - 1))]


if __name__ == "__main__":
    main()
