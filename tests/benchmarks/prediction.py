"""Minutes and bytes that a simulated fleet foretells, beside those of a real run: real server, agents and processes.

Two demos are run, with settings that have nothing in common: the first calibrates, the second is foretold from its plan
and then compared. The same the other way round tells whether that was luck. A demo shares one machine, so what is
foretold are hosts that do (`hosts=shared`).

    python tests/benchmarks/prediction.py           about five minutes; a table
    python tests/benchmarks/prediction.py --json    one document on the last line
    python tests/benchmarks/prediction.py --reports FIRST/report.json SECOND/report.json    of demos that were run
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from fedsite.protocol import shape
from fedsite.protocol.plan import RoundPlan
from fedsite.simulations.demo import report as reports
from fedsite.simulations.demo.report import Report
from fedsite.simulations.fleet import probe, work
from fedsite.simulations.fleet.calibration import Calibration, calibrate
from fedsite.simulations.fleet.course import Course
from fedsite.simulations.fleet.model import Fleet
from fedsite.simulations.fleet.spec import FleetSpec

FIRST = ("task=pump", "sites=3", "seed=1")
SECOND = ("task=engine_rul", "sites=5", "seed=1", "rounds.count=12")
LONGEST_S = 900.0  # of one demo
OUTSIDE = ("set-up and enrolment", "scoring on the device")  # not between the launch and the end of the run
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One figure of a run."""

    name: str
    foretold: float
    measured: float

    @property
    def error(self) -> float:
        """Of what was foretold, relative."""
        return self.foretold / self.measured - 1.0


def main() -> None:
    """Run, foretell, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", nargs=2, type=Path, help="of two demos that were run before")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    shares: list[float] = []
    if options.reports:
        found = [reports.decode(path.read_bytes().strip()) for path in options.reports]
    else:
        with tempfile.TemporaryDirectory() as folder:
            runs = [demo(given, Path(folder) / str(place)) for place, given in enumerate((FIRST, SECOND))]
        found, shares = [run[0] for run in runs], [run[1] for run in runs]
    document = {"server_share": shares, "predictions": []}
    for learned, told in (found, found[::-1]):
        measured = calibrate(learned)
        figures = foretold(measured, told)
        document["predictions"].append(
            {
                "calibration": asdict(measured),
                "run": told.command,
                "figures": [{**asdict(one), "error": one.error} for one in figures],
            }
        )
        if not options.json:
            show(learned, told, measured, figures)
    if not options.json and shares:
        print(f"the server's share of the processor time of the rounds: {', '.join(f'{one:.2f}' for one in shares)}")
    if options.json:
        print(json.dumps(document))


def demo(arguments: tuple[str, ...], out: Path) -> tuple[Report, float]:
    """Run one demo; its report, and the server's share of the processor time between its first round and its last."""
    command = [shutil.which("fedsite") or "fedsite", "demo", *arguments, f"out={out}"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    first, last = (0.0, 0.0), (0.0, 0.0)
    try:
        assert running.stderr is not None
        for line in running.stderr:
            print(f"  {line.rstrip()}", file=sys.stderr)
            if line.startswith("round "):
                last = spent(running.pid)
                first = last if first == (0.0, 0.0) else first
        running.wait(timeout=LONGEST_S)
    finally:
        if running.poll() is None:
            running.terminate()
            running.wait(timeout=60)
    if running.returncode != 0:
        raise SystemExit(f"fedsite demo {' '.join(arguments)} ended with {running.returncode}")
    server, sites = last[0] - first[0], last[1] - first[1]
    return reports.decode((out / "report.json").read_bytes().strip()), server / max(server + sites, 1e-9)


def spent(pid: int) -> tuple[float, float]:
    """Seconds of the processor that the server's processes and the sites' have taken, below a demo's own."""
    server = sites = 0.0
    for home, seconds in _below(pid):
        if home.endswith("/state/central"):
            server += seconds
        elif "/state/" in home:
            sites += seconds
    return server, sites


def _below(pid: int) -> Iterator[tuple[str, float]]:
    """State directory and processor seconds of every process that descends from `pid`."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    for child in parents:
        above = child
        while above in parents and above != pid:
            above = parents[above]
        if above != pid or child == pid:
            continue
        try:
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            values = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        home = next((value[13:].decode() for value in values if value.startswith(b"FEDSITE_HOME=")), "")
        yield home, (int(fields[11]) + int(fields[12])) / TICKS


def foretold(measured: Calibration, run: Report) -> list[Compared]:
    """What a calibration says of a run, beside what the run was."""
    plan, sites = shape.read(RoundPlan, run.plan), len(run.sites)
    windows = np.array([site.windows for site in run.sites])
    asked = work.Work(
        plan=plan,
        stages=work.stages(plan, sites),
        sums=work.sums(plan),
        windows=windows * (plan.local.steps * plan.local.sampling_rate),
    )
    alone = probe.windows_s(plan, int(windows.mean()))
    course = Course(Fleet(spec=FleetSpec(hosts="shared"), seed=0, measured=measured, alone_s=alone), asked)
    for done in run.rounds:
        course.present(done.number, np.arange(sites))
    told = course.outlook
    seconds = sum(phase.seconds for phase in run.phases if phase.name not in OUTSIDE)
    return [
        Compared(name="minutes", foretold=told.minutes, measured=seconds / 60.0),
        Compared(name="minutes of rounds", foretold=course.at_s / 60, measured=sum(r.seconds for r in run.rounds) / 60),
        Compared(name="bytes up", foretold=told.bytes_up, measured=float(sum(r.bytes_up for r in run.rounds))),
        Compared(name="bytes down", foretold=told.bytes_down, measured=float(sum(r.bytes_down for r in run.rounds))),
    ]


def show(learned: Report, told: Report, measured: Calibration, figures: list[Compared]) -> None:
    """One table."""
    print(f"\nlearned from {learned.command}\nforetold     {told.command}")
    print(f"  {measured}")
    print(f"  {'':<20}{'foretold':>14}{'measured':>14}{'error':>9}")
    for one in figures:
        print(f"  {one.name:<20}{one.foretold:>14.2f}{one.measured:>14.2f}{one.error:>+9.1%}")


if __name__ == "__main__":
    main()
