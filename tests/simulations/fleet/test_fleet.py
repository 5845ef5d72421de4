"""Rounds on a toy fleet whose seconds and bytes can be added up by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedsite.protocol.errors import ConfigError, DataError
from fedsite.protocol.plan import (
    LocalPlan,
    ModelPlan,
    PrivacyPlan,
    ProtectionPlan,
    ReleasePlan,
    RoundPlan,
    RoundsPlan,
)
from fedsite.protocol.secagg.manifest import Terms
from fedsite.simulations.fleet import availability, spending
from fedsite.simulations.fleet.availability import Trace
from fedsite.simulations.fleet.calibration import Calibration
from fedsite.simulations.fleet.course import Course
from fedsite.simulations.fleet.model import Fleet
from fedsite.simulations.fleet.spec import AvailabilitySpec, FleetSpec, LinkSpec, SpeedSpec
from fedsite.simulations.fleet.work import Stage, Work, needed

TOY = Calibration(
    source="a toy", agent_s=1.0, server_s=0.5, round_s=0.25, start_s=10.0, release_s=5.0, windows_s=10.0,
    efficiency=0.5, header_up=100.0, header_down=200.0, cores=2,
)  # fmt: skip


def plan(**changes: object) -> RoundPlan:
    """Four rounds, at most a minute each."""
    given = {
        "rounds": RoundsPlan(count=4, minimum=2, deadline_s=60.0, wait_s=30.0),
        "protection": ProtectionPlan(mode="sealed"),
        **changes,
    }
    return RoundPlan(
        federation="ab", run_id="run", created="2026-01-01T00:00:00Z", task={}, model=ModelPlan(name="mlp"),
        local=LocalPlan(steps=2, sampling_rate=0.5), release=ReleasePlan(enabled=False), **given,
    )  # fmt: skip


def work(found: RoundPlan, windows: list[float]) -> Work:
    """A secure sum's stages, or the one exchange, with round numbers of bytes."""
    if found.protection.mode == "secagg":
        names = (("share", 10, 20, 30.0), ("mask", 1000, 2000, found.rounds.deadline_s), ("unmask", 30, 40, 30.0))
    else:
        names = (("train", 1000, 2000, found.rounds.deadline_s),)
    stages = tuple(Stage(name=n, bytes_up=u, bytes_down=d, deadline_s=s) for n, u, d, s in names)
    return Work(plan=found, stages=stages, sums=0, windows=np.array(windows))


def fleet(measured: Calibration = TOY, **options: object) -> Fleet:
    return Fleet(spec=FleetSpec(**options), seed=1, measured=measured)


def secure(**changes: object) -> RoundPlan:
    return plan(protection=ProtectionPlan(terms=Terms(min_cohort=3, min_survivors=3), stage_s=30.0), **changes)


def test_seconds_and_bytes_of_one_round_by_hand():
    # Own hosts: 1 s of their own and 2 or 4 s of training (10 windows a second); the server takes 0.5 s for each.
    found = fleet().round(1, np.arange(2), work(plan(), [20.0, 40.0]))
    assert found.outcome == "completed"
    assert found.seconds == pytest.approx(1.0 + 4.0 + 0.5 + 0.25)
    assert found.bytes_up.tolist() == [1100.0, 1100.0]
    assert found.bytes_down.tolist() == [2200.0, 2200.0]
    # One machine of two cores: everything adds up, and is shared by two.
    shared = fleet(hosts="shared").round(1, np.arange(2), work(plan(), [20.0, 40.0]))
    assert shared.seconds == pytest.approx((2 * 1.5 + 2.0 + 4.0) / 2 + 0.25)


def test_links_and_speeds_by_hand():
    slow = LinkSpec(up=110.0, down=220.0, latency_s=0.5)
    # 1,100 bytes up and 2,200 down take 10 s each, the messages 0.5 s each way.
    found = fleet(link=slow, speed=SpeedSpec(windows_s=20.0)).round(1, np.arange(2), work(plan(), [20.0, 20.0]))
    assert found.seconds == pytest.approx(10.0 + 10.0 + 1.0 + 1.0 + 1.0 + 2 * 0.5 + 0.25)
    many = fleet(speed=SpeedSpec(spread=0.5)).speed(1, np.arange(4000))
    assert np.log(many).std() == pytest.approx(0.5, rel=0.05)
    assert np.median(many) == pytest.approx(10.0, rel=0.05)
    np.testing.assert_array_equal(fleet(speed=SpeedSpec(spread=0.5)).speed(1, np.array([7, 3000])), many[[7, 3000]])
    tried = dataclasses.replace(fleet(), alone_s=100.0)
    assert tried.speed(1, np.arange(1)).tolist() == [50.0]


def test_stages_of_a_secure_sum_come_one_after_the_other():
    found = fleet().round(1, np.arange(4), work(secure(), [20.0] * 4))
    # Three exchanges of 1 s and a queue of four times 0.5 s; 2 s of training; unmasking ends with the third of four.
    assert found.outcome == "completed"
    assert found.seconds == pytest.approx(3 * 3.0 + 2.0 - 0.5 + 0.25)
    assert found.bytes_down.tolist() == [2060.0 + 3 * 200.0] * 4
    assert sorted(found.bytes_up.tolist()) == [1010.0 + 200.0] + [1040.0 + 300.0] * 3
    assert needed(secure(), 4, "unmask", 0) == 3


def test_a_round_ends_at_its_goal_and_asks_more_than_that():
    rounds = RoundsPlan(count=4, minimum=2, goal=2, over_select=1.5, deadline_s=60.0)
    found = fleet().round(1, np.arange(10), work(plan(rounds=rounds), [10.0 * n for n in range(1, 11)]))
    assert (len(found.asked), len(found.present)) == (3, 2)
    assert set(found.present) == set(found.asked[:2])  # the ones with least to do
    late = dataclasses.replace(rounds, goal=None, deadline_s=6.0)
    found = fleet().round(1, np.arange(10), work(plan(rounds=late), [10.0 * n for n in range(1, 11)]))
    assert (found.outcome, found.present.tolist()) == ("degraded", [0, 1, 2, 3])
    assert found.seconds == 6.25
    none = dataclasses.replace(late, minimum=9)
    found = fleet().round(1, np.arange(10), work(plan(rounds=none), [10.0 * n for n in range(1, 11)]))
    assert (found.outcome, len(found.present)) == ("abandoned", 0)
    assert found.reason == "4 of 10 sites answered by the deadline of 6 s, minimum 9"


def test_lost_sites_are_waited_for_until_their_heartbeat_is_overdue():
    found = fleet(link=LinkSpec(loss=0.3)).round(1, np.arange(20), work(plan(), [10.0] * 20))
    assert found.outcome == "degraded"
    assert found.seconds == 20.25
    assert 0 < len(found.present) < 20
    assert (found.bytes_up > 0).sum() == len(found.present)
    assert fleet(link=LinkSpec(loss=1.0)).round(1, np.arange(5), work(plan(), [1.0] * 5)).outcome == "abandoned"


def test_a_secure_sum_bears_what_its_terms_say_and_no_more():
    outcomes = {}
    for loss in (0.0, 0.3, 0.9):
        found = fleet(link=LinkSpec(loss=loss)).round(1, np.arange(20), work(secure(), [10.0] * 20))
        outcomes[loss] = found.outcome
        if found.outcome == "abandoned":
            assert "needed" in found.reason
    assert outcomes == {0.0: "completed", 0.3: "degraded", 0.9: "abandoned"}
    few = fleet().round(1, np.arange(2), work(secure(), [10.0] * 2))
    assert few.reason == "advertise: 2 of 2 sites answered, 3 needed"
    groups = dataclasses.replace(secure().protection, groups=2)
    lossy = fleet(link=LinkSpec(loss=0.35))
    rounds = [lossy.round(n, np.arange(8), work(plan(protection=groups), [1.0] * 8)) for n in range(1, 40)]
    assert {len(one.present) for one in rounds if one.outcome != "abandoned"} >= {3, 4}  # one group of two


def test_sites_are_there_by_chance_by_the_hour_and_by_trace(tmp_path):
    sites = np.arange(3000)
    some = availability.there(AvailabilitySpec(kind="bernoulli", probability=0.25), None, 0, 1, sites, 0.0)
    assert some.mean() == pytest.approx(0.25, abs=0.03)
    night = AvailabilitySpec(kind="diurnal", from_hour=22.0, to_hour=6.0, zones=24, probability=1.0)
    assert availability.there(night, None, 0, 1, sites, 0.0).mean() == pytest.approx(8 / 24, abs=0.03)
    here = dataclasses.replace(night, zones=1)
    hours = [hour for hour in range(24) if availability.there(here, None, 0, 1, sites, 3600.0 * hour).all()]
    assert hours == [0, 1, 2, 3, 4, 5, 22, 23]
    path = tmp_path / "trace.csv"
    path.write_text("site,from_s,to_s\na,0,10\nb,5,20\na,30,40\n")
    trace = Trace.read(path)
    for at, expected in ((0, [1, 0, 1]), (7, [1, 1, 1]), (15, [0, 1, 0]), (35, [1, 0, 1]), (99, [0, 0, 0])):
        spec = AvailabilitySpec(kind="trace", trace=str(path))
        assert availability.there(spec, trace, 0, 1, np.arange(3), at).tolist() == [bool(one) for one in expected]
    path.write_text("site,from_s\na,0\n")
    with pytest.raises(DataError, match="to_s"):
        Trace.read(path)
    with pytest.raises(ConfigError, match="trace is None"):
        AvailabilitySpec(kind="trace")


def test_a_course_keeps_time_and_waits_for_sites(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("site,from_s,to_s\na,0,5\nb,0,5\na,20,99\nb,20,99\n")
    spec = FleetSpec(availability=AvailabilitySpec(kind="trace", trace=str(path)))
    whole = Course(Fleet.of(spec, 0), work(plan(), [0.0, 0.0]))
    course = Course(dataclasses.replace(Fleet.of(spec, 0), measured=TOY), work(plan(), [20.0, 20.0]))
    for number in (1, 2, 3):
        assert course.present(number, np.arange(2)).tolist() == [0, 1]
    # A round takes 4.25 s: the second opens while they are there until 5, the third, at 8.5, waits until 20.
    assert [round(one.waited, 6) for one in course.timings] == [0.0, 0.0, 11.5]
    assert course.at_s == pytest.approx(3 * 4.25 + 11.5)
    assert course.outlook.minutes == pytest.approx((course.at_s + 10.0) / 60)
    assert course.outlook.outcomes == {"completed": 3}
    assert course.participations(3).tolist() == [3, 3, 0]
    assert not course.failed
    assert whole.outlook.minutes == 0


def test_of_those_that_are_there_as_many_are_asked_as_the_plan_wants():
    rounds = RoundsPlan(count=4, minimum=2, goal=3, over_select=1.5, deadline_s=60.0)
    spec = {"availability": AvailabilitySpec(kind="bernoulli", probability=0.5), "link": LinkSpec(loss=0.1)}
    course, again = (Course(fleet(**spec), work(plan(rounds=rounds), [10.0] * 30)) for _ in range(2))
    for number in range(1, 5):
        assert course.present(number, np.arange(30)).tolist() == again.present(number, np.arange(30)).tolist()
    assert {len(one.asked) for one in course.timings} == {5}
    assert max(len(one.present) for one in course.timings) == 3
    assert course.outlook == again.outlook
    assert 5 < (course.participations(30) > 0).sum() <= 20


def test_a_fleet_that_was_not_asked_for_keeps_nobody_out():
    rounds = RoundsPlan(count=1, minimum=2, deadline_s=6.0)
    course = Course(fleet(hosts="shared"), work(plan(rounds=rounds), [100.0] * 9))
    assert course.present(1, np.arange(9)).tolist() == list(range(9))
    assert course.outlook.late == 1
    wanted = RoundsPlan(count=1, minimum=2, goal=4, over_select=1.5, deadline_s=6.0)
    chosen = Course(fleet(), work(plan(rounds=wanted), [10.0 * n for n in range(1, 7)])).present(1, np.arange(6))
    assert chosen.tolist() == [0, 1, 2, 3]
    few = Course(fleet(), work(secure(), [1.0] * 2))
    assert few.present(1, np.arange(2)).tolist() == [0, 1]
    assert few.outlook.outcomes == {"abandoned": 1}
    assert course.outlook.seconds_per_round == pytest.approx(9 * 11.5 / 2 + 0.25)


def test_epsilon_of_the_sites_that_took_part_less_is_smaller():
    found = plan(privacy=PrivacyPlan(mode="sample", noise_multiplier=1.0, accountant="rdp"))
    (claim,) = spending.spent(found, np.array([0, 1, 4, 4]))
    assert claim.unit == "window"
    assert claim.epsilons[0] == 0
    assert claim.epsilons[1] < claim.epsilons[2] == claim.claimed == claim.largest
    many = dataclasses.replace(found, rounds=dataclasses.replace(found.rounds, count=40))
    (curve,) = spending.spent(many, np.arange(41))
    assert (np.diff(curve.epsilons) >= 0).all()
    exact = spending.spent(many, np.array([17]))[0].epsilons[0]
    assert exact <= curve.epsilons[17] <= curve.claimed
    assert spending.spent(plan(), np.array([1])) == ()
