"""Peak memory of the server's sum over 10 and over 100 updates of 25 MB: it is streamed, so the two are alike.

python tests/benchmarks/server_memory.py           a table
python tests/benchmarks/server_memory.py --json    one document on the last line
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.server.test_memory import MEGABYTES, peak

SITES = (1, 10, 100)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    peaks = {sites: peak(sites) for sites in SITES}
    print(f"{'updates':>8}{'of MB':>8}{'peak MB':>10}")
    for sites, megabytes in peaks.items():
        print(f"{sites:8}{MEGABYTES:8}{megabytes:10.0f}")
    growth = peaks[100] - peaks[10]
    print(f"90 updates more ({90 * MEGABYTES} MB) take {growth:.1f} MB more")
    if as_json:
        value = {
            "schema": "fedsite.benchmark/1",
            "benchmark": "server_memory",
            "update_mb": MEGABYTES,
            "peak_mb": {str(sites): megabytes for sites, megabytes in peaks.items()},
            "growth_mb": growth,
        }
        print(json.dumps(value))


if __name__ == "__main__":
    main()
