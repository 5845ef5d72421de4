"""What the site lets the training process take of the processor: threads and niceness, in the real process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedsite.client.work.worker_link import WorkerError, WorkerLink


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc to look at another process")
def test_threads_and_niceness_reach_the_worker(tmp_path: Path) -> None:
    link = WorkerLink(tmp_path / "worker.log", idle_s=60.0, threads=2, niceness=5)
    try:
        with pytest.raises(WorkerError):
            link.call("nothing", {}, {}, timeout_s=60.0)  # answered: it is up
        pid = link.pid
        assert pid is not None
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert {b"OMP_NUM_THREADS=2", b"MKL_NUM_THREADS=2", b"POLARS_MAX_THREADS=2"} <= set(variables)
        assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0) + 5
    finally:
        link.close()
