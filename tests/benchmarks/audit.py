"""What does one entry of the audit log cost, beside the disk's own fsync; what a check of a long log, what an exchange?

`python tests/benchmarks/audit.py [--entries N] [--folder DIR] [--json]`. An append and a bare write with fsync of the
same bytes take turns on the same disk; the ratio is what our own work costs. Medians.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from fedsite.protocol import audit_check, audit_lines
from fedsite.protocol.audit_file import AuditFile
from fedsite.protocol.keys import SigningKey

RELEASE = {
    "run_id": "01JABCDEFGHJKMNPQRSTVWXYZ0", "round": 3, "attempt": 1, "work": "train", "plan": "ab" * 32,
    "model": "cd" * 32, "manifest_hash": "ef" * 32, "session": "01" * 32, "roster_hash": "23" * 32, "noise": [],
    "u1": {"sites": 10, "hash": "45" * 32}, "u2": {"sites": 10, "hash": "67" * 32}, "sha256": "89" * 32,
    "spends": {"window": [[1.1, 0.07, 14]]}, "bytes_down": 123456, "bytes_up": 123456, "seconds": 1.5,
}  # fmt: skip


def seconds(act: Callable[[], object]) -> float:
    """Of one call."""
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def exchange(sites: int) -> Mapping[str, Any]:
    """The facts of an exchange with so many sites."""
    one = {"status": "ok", "code": None, "reply": "ab" * 32, "blobs": {"masked": "cd" * 32}}
    return {"kind": "train", "sites": {f"{number:032x}": one for number in range(sites)}}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; by default a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        log = AuditFile(folder / "audit", SigningKey.generate(), owner="site")
        log.append("released", RELEASE)
        (path,) = audit_lines.files(log.folder)
        line = path.read_bytes().splitlines(keepends=True)[-1]
        bare = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

        def plain() -> None:
            os.write(bare, line)
            os.fsync(bare)

        ours, disk = [], []
        for _ in range(options.entries):
            ours.append(seconds(lambda: log.append("released", RELEASE)))
            disk.append(seconds(plain))
        rows: dict[str, float] = {
            "entry, bytes": len(line),
            "append, ms": 1e3 * median(ours),
            "write and fsync alone, ms": 1e3 * median(disk),
            "append / write and fsync": median(ours) / median(disk),
            "head of a log, us": 1e6 * median(seconds(log.head) for _ in range(options.entries)),
        }
        files = audit_lines.files(log.folder)
        rows["verify, entries/s"] = options.entries / seconds(lambda: audit_check.verify(audit_lines.lines(files)))
        for sites in (10, 100, 1000):
            facts = exchange(sites)
            took = median([seconds(partial(log.append, "exchange", facts)) for _ in range(9)])
            rows[f"exchange with {sites} sites, ms"] = 1e3 * took
        assert audit_check.verify(audit_lines.lines(audit_lines.files(log.folder))).ok
    for name, value in rows.items():
        print(f"{name:<30}{value:10.2f}")
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
