"""What a demo's report tells of speeds, with seconds that can be divided by hand, and that it foretells itself."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedsite.protocol import shape
from fedsite.protocol.errors import ConfigError
from fedsite.protocol.plan import LocalPlan, ModelPlan, ReleasePlan, RoundPlan, RoundsPlan
from fedsite.simulations.demo import report as reports
from fedsite.simulations.demo.report import Metric, Phase, Privacy, Report, Round, Secagg, Site, Stage
from fedsite.simulations.fleet import calibration, probe, work
from fedsite.simulations.fleet.calibration import SERVER_SHARE, calibrate
from fedsite.simulations.fleet.course import Course
from fedsite.simulations.fleet.model import Fleet
from fedsite.simulations.fleet.spec import FleetSpec
from fedsite.telemetry.task import load_task


@pytest.fixture(scope="module")
def plan() -> RoundPlan:
    task = load_task("pump")
    return RoundPlan(
        federation="ab", run_id="run", created="2026-01-01T00:00:00Z", task=task.document,
        model=ModelPlan(name="mlp", options={"hidden": [4]}), rounds=RoundsPlan(count=2),
        local=LocalPlan(steps=4, sampling_rate=0.5), release=ReleasePlan(enabled=False),
    )  # fmt: skip


@pytest.fixture(scope="module")
def report(plan: RoundPlan) -> Report:
    """Two rounds of three sites on two cores: 0.6 s an exchange, 1 s of training, 0.2 s of the server between."""
    stages = work.stages(plan, 3)
    up, down = (sum(getattr(stage, name) for stage in stages) for name in ("bytes_up", "bytes_down"))
    rounds = tuple(
        Round(
            number=number, outcome="completed", participants=3, seconds=2.8, metric=None,
            bytes_up=3 * (up + 3 * 500), bytes_down=3 * (down + 3 * 700),
        )
        for number in (1, 2)
    )  # fmt: skip
    seconds = {"share": 1.2, "mask": 3.2, "unmask": 1.2, "advertise": 0.1}
    phases = {"set-up and enrolment": 9.0, "starting and waiting": 6.0, "asking the sites": 3.0, "rounds": 6.0}
    return Report(
        task="pump", title="", run_id="run", created="", seconds=0.0, protection="secagg", outcome="completed",
        parameters=0, release=None, command="", cores=2, plan=shape.plain(plan), rounds=rounds,
        metric=Metric(name="", better="", unit="", global_=None, central=None, local_only=None, int8=None),
        privacy=Privacy(mode="none", unit="", adjacency="", delta=0.0, epsilon_max=None),
        sites=tuple(Site(name=name, windows=100, outcome="ok", epsilon=None, metric=None) for name in "abc"),
        phases=tuple(Phase(name=name, seconds=value) for name, value in phases.items()),
        secagg=Secagg(
            opened=2, failed=0, survivors=3, colluding=0, groups=1,
            stages=tuple(Stage(name=name, seconds=value, bytes_up=0, bytes_down=0) for name, value in seconds.items()),
        ),
    )  # fmt: skip


def test_a_report_by_hand(plan, report):
    found = calibrate(report, probed=lambda plan, windows: 3.0 * windows)
    # An exchange of 0.6 s on two cores is 1.2 s of one, of three sites.
    assert found.exchange_s == pytest.approx(0.4)
    assert found.server_s == pytest.approx(0.4 * SERVER_SHARE)
    # Three sites trained 4 steps of half of 100 windows, in 1 s of two cores.
    assert found.windows_s == pytest.approx(3 * 200 / 2)
    assert found.efficiency == pytest.approx(300 / 300)
    assert found.round_s == pytest.approx(3.0 - 2.8)
    # Two sums beside the rounds, of three exchanges each, are not of the start.
    assert work.sums(plan) == 2
    assert found.start_s == pytest.approx((6.0 + 3.0 - 2 * 3 * 0.6) * 2 / 3)
    assert (found.header_up, found.header_down) == (pytest.approx(500), pytest.approx(700))


def test_a_report_foretells_itself(plan, report):
    found = calibrate(report, probed=lambda plan, windows: 300.0)
    asked = work.Work(plan=plan, stages=work.stages(plan, 3), sums=work.sums(plan), windows=np.full(3, 200.0))
    course = Course(Fleet(spec=FleetSpec(hosts="shared"), seed=0, measured=found, alone_s=300.0), asked)
    for number in (1, 2):
        course.present(number, np.arange(3))
    assert course.at_s == pytest.approx(2 * 3.0)
    assert course.outlook.bytes_up == pytest.approx(sum(done.bytes_up for done in report.rounds))
    assert course.outlook.bytes_down == pytest.approx(sum(done.bytes_down for done in report.rounds))


def test_without_secure_sums_training_is_taken_as_usual(plan, report):
    sealed = {"mode": "sealed"}
    other = dataclasses.replace(report, secagg=None, plan={**report.plan, "protection": sealed})
    found = calibrate(other, probed=lambda plan, windows: 3000.0)
    assert found.windows_s == pytest.approx(calibration.MEASURED.efficiency * 3000.0)
    assert found.exchange_s == pytest.approx((2.8 - 600 / (2 * found.windows_s)) * 2 / 3)


def test_reports_that_tell_nothing_are_refused(report, tmp_path):
    with pytest.raises(ConfigError, match="no plan"):
        calibrate(dataclasses.replace(report, plan={}))
    with pytest.raises(ConfigError, match="0 completed rounds"):
        calibrate(dataclasses.replace(report, rounds=()))
    with pytest.raises(ConfigError, match=r"report\.json"):
        calibration.read(tmp_path / "report.json")
    (tmp_path / "report.json").write_bytes(reports.encode(dataclasses.replace(report, plan={})))
    with pytest.raises(ConfigError, match="no plan"):
        calibration.read(tmp_path / "report.json")


def test_a_plan_is_tried_with_the_step_of_a_real_site(plan):
    ticks = iter(range(100))
    # Every trial takes one tick: 4 steps of half of 50 windows.
    assert probe.windows_s(plan, 50, clock=lambda: float(next(ticks))) == pytest.approx(100.0)
