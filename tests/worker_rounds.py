"""One round of a shipped task in a real worker process, and what the kernel says it took at most."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsite.client import data
from fedsite.client.settings import DataSettings, Settings
from fedsite.client.work.worker_link import WorkerLink
from fedsite.protocol import weights
from fedsite.server import settings
from fedsite.server.plans import planning

PRIVATE = ("privacy=sample", "privacy.epsilon=8", "protection=sealed")
PLAIN = ("privacy=none", "protection=none")
LONGEST_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Megabytes (10^6 bytes) of resident memory, and whether the process is gone."""

    prepared: float  # most by the end of the data check
    peak: float  # most by the end of the round
    ended: bool
    seconds: float


def one_round(name: str, folder: Path, *overrides: str, idle_s: float = 0.0) -> Taken:
    """Prepare, statistics and one round of training with its evaluation, as an agent asks for them.

    Raises:
        FedsiteError, TelemetryError: the task's data is not here, or the worker refused.
    """
    planned = planning.make(settings.compose([f"task={name}", *overrides]), "0" * 32, sites=3)
    plan, task = planned.plan, planned.task
    site = None if task.data.site_column is None else 0
    where = data.plain(data.location(Settings(data=DataSettings(site=site)), task))
    count = len(task.feature_names)
    arguments: dict[str, Any] = {
        "location": where,
        "round": 1,
        "normalisation": {"mean": [0.0] * count, "scale": [1.0] * count},
        "evaluate": True,
    }
    blobs = {"plan": plan.encode()}
    begun = time.monotonic()
    link = WorkerLink(folder / "worker.log", idle_s=idle_s)
    try:
        if plan.privacy.sample_level:
            cost = {"unit": plan.privacy.unit, "spent": [], "delta": 1e-5}
            link.call("cost", cost, blobs, timeout_s=LONGEST_S)
        link.call("prepare", arguments, blobs, timeout_s=LONGEST_S)
        prepared = peak_megabytes(link.pid)
        if plan.privacy.mode == "none" or plan.privacy.statistics_noise:
            link.call("statistics", arguments, blobs, timeout_s=LONGEST_S)
        model = {"model": weights.encode(planned.initial)}
        link.call("train", arguments, blobs | model, timeout_s=LONGEST_S)
        peak, pid = peak_megabytes(link.pid), link.pid
        seconds = time.monotonic() - begun
        link.close_if_idle()
        return Taken(prepared=prepared, peak=peak, ended=not Path(f"/proc/{pid}").exists(), seconds=seconds)
    finally:
        link.close()


def peak_megabytes(pid: int | None) -> float:
    """The most that a process has had resident (VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(kilobytes) * 1024 / 1e6
