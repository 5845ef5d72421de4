"""How long production takes over what, read from the report of one demo run.

A demo's processes share one machine, so that its seconds add up: an exchange with n sites took n times what one site
costs there, on so many cores. Of that, `SERVER_SHARE` was the server's; on hosts of their own sites do theirs side by
side. Training is what the exchange in which sites train took longer than those in which they do not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from fedsite.protocol import shape, storage
from fedsite.protocol.errors import ConfigError, DocumentError, StorageError
from fedsite.protocol.plan import RoundPlan
from fedsite.simulations.demo import report as reports
from fedsite.simulations.demo.report import Report
from fedsite.simulations.fleet import probe, work

SERVER_SHARE: Final = 0.77  # of the processor time of a demo's rounds, the server's; measured beside the figures below
START: Final = ("starting and waiting", "asking the sites", "delivery")  # phases that grow with the sites


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Seconds of one core, but for the last: what one site's part takes."""

    source: str  # what was measured
    agent_s: float  # a site's own part of an exchange beside training
    server_s: float  # the server's part of an exchange with one site
    round_s: float  # the server's, once a round, beside exchanges: the new model, and its checkpoint
    start_s: float  # a site's and the server's, before the first round and after the last
    release_s: float  # the server's, once: calibration, int8 model, signature
    windows_s: float  # windows that a site trained in a second
    efficiency: float  # of a site's training: its speed over that of the same training alone (probe.py)
    header_up: float  # bytes of a message beside its blobs
    header_down: float
    cores: int  # of the machine that was measured

    @property
    def exchange_s(self) -> float:
        """Of one exchange with one site, everybody's."""
        return self.agent_s + self.server_s


# With other work on these cores. tests/benchmarks/prediction.py measures them again.
MEASURED: Final = Calibration(
    source="fedsite's own figures: a demo of 3 pump sites with secure sums, on two busy cores",
    agent_s=0.107,
    server_s=0.358,
    round_s=0.057,
    start_s=19.7,
    release_s=12.2,
    windows_s=49_400.0,
    efficiency=0.17,
    header_up=581.0,
    header_down=925.0,
    cores=2,
)


def read(path: Path) -> Calibration:
    """The calibration that a demo's report.json gives.

    Raises:
        ConfigError: no such report, one without its plan, or of a run that came to nothing.
    """
    try:
        found = reports.decode(storage.read(path, limit=64 << 20).strip())
    except (StorageError, DocumentError) as error:
        raise ConfigError(
            f"simulation.fleet.calibration: {error.found}",
            allowed="a report.json that fedsite demo wrote",
            next_step="fedsite demo",
        ) from None
    return calibrate(found)


def calibrate(report: Report, *, probed: Callable[[RoundPlan, int], float] = probe.windows_s) -> Calibration:
    """What a report tells; where sums were not secure, training cannot be told apart and is taken as `MEASURED`.

    Args:
        report: of a demo on this machine, or one like it.
        probed: windows of a plan and of a site of so many windows that this machine trains in a second.

    Raises:
        ConfigError: the report has no plan (an older fedsite wrote it), or no round was completed.
    """
    rounds = [done for done in report.rounds if done.outcome == "completed"]
    if not report.plan or not rounds:
        raise ConfigError(
            f"the report of run {report.run_id}: {len(rounds)} completed rounds, {'a' if report.plan else 'no'} plan",
            allowed="a demo run with completed rounds, of this version of fedsite",
            next_step="fedsite demo",
        )
    plan = shape.read(RoundPlan, report.plan)
    sites, cores = len(report.sites), max(report.cores, 1)
    asked = work.stages(plan, sites)
    trained = plan.local.steps * plan.local.sampling_rate * sum(site.windows for site in report.sites)
    seconds = float(np.mean([done.seconds for done in rounds]))
    phases = {phase.name: phase.seconds for phase in report.phases}
    alone = probed(plan, round(float(np.mean([site.windows for site in report.sites]))))
    plain, training, spent = _split(report, seconds, trained, cores, MEASURED.efficiency * alone)
    per_site = plain * cores / sites
    other = max(0.0, phases.get("rounds", 0.0) / len(report.rounds) - spent)
    # Sums beside the rounds are counted by themselves, wherever the report put them.
    extra = work.sums(plan) * len(asked) * plain
    start = max(0.0, sum(phases.get(name, 0.0) for name in START) - extra)
    messages = sum(done.participants for done in rounds)
    return Calibration(
        source=f"demo run {report.run_id}: {report.task}, {sites} sites, {report.protection}",
        agent_s=(1.0 - SERVER_SHARE) * per_site,
        server_s=SERVER_SHARE * per_site,
        round_s=other,
        start_s=start * cores / sites,
        release_s=phases.get("release", 0.0),
        windows_s=training,
        efficiency=training / alone,
        header_up=_header([done.bytes_up for done in rounds], messages, [stage.bytes_up for stage in asked]),
        header_down=_header([done.bytes_down for done in rounds], messages, [stage.bytes_down for stage in asked]),
        cores=cores,
    )


def _split(report: Report, seconds: float, trained: float, cores: int, usual: float) -> tuple[float, float, float]:
    """Seconds of one exchange without training, windows a core trains in a second, seconds of a round's exchanges.

    `usual` is the second of these where the report does not tell.
    """
    stages = {stage.name: stage.seconds for stage in report.secagg.stages} if report.secagg else {}
    plain = [stages[name] for name in ("share", "unmask") if name in stages]
    if report.secagg is None or not plain or not report.secagg.opened:
        return max(0.0, seconds - trained / (usual * cores)), usual, seconds
    opened = report.secagg.opened
    exchange = float(np.mean(plain)) / opened
    training = stages["mask"] / opened - exchange
    every = sum(seconds for name, seconds in stages.items() if name != "advertise") / opened
    if training <= 0.0:
        return exchange, usual, every
    return exchange, trained / (training * cores), every


def _header(measured: list[int], messages: int, blobs: list[int]) -> float:
    """Bytes of one message beside its blobs."""
    return max(0.0, sum(measured) / messages - sum(blobs)) / len(blobs)
