"""Exchanges over arrays end as those of the central host's state machine do, event by event."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsite.server.rounds import machine
from fedsite.server.rounds.machine import Lost, Reply, Rules, Status, Tick
from fedsite.simulations.fleet.exchange import LOST_S, close, served

TIMES = st.lists(st.sampled_from([1.0, 2.0, 2.5, 7.0, 19.0, 21.0, 29.0, 31.0, math.inf]), min_size=0, max_size=7)


def played(arrival: list[float], rules: Rules) -> tuple[machine.RoundState, float]:
    """The machine's round, and when it closed; all of it is asked at 0."""
    names = [f"site-{number}" for number in range(len(arrival))]
    asked = machine.Rules(minimum=rules.minimum, goal=rules.goal, over_select=10.0, deadline_s=rules.deadline_s)
    state, _ = machine.open_round(asked, number=1, attempt=1, candidates=names, at=0.0)
    events: list[machine.Event] = [Tick(at=rules.deadline_s)]
    for name, at in zip(names, arrival, strict=True):
        lost = math.isinf(at)
        events.append(
            Lost(site=name, at=LOST_S) if lost else Reply(site=name, round=1, attempt=1, at=at, status=Status.OK)
        )
    at = 0.0
    # What comes at one moment comes answers first, and the clock last.
    for event in sorted(events, key=lambda event: (event.at, isinstance(event, Lost), isinstance(event, Tick))):
        if state.outcome is not None:
            break
        at = event.at
        state, _ = machine.step(state, event)
    return state, at


@settings(deadline=None, max_examples=150)
@given(arrival=TIMES, minimum=st.integers(0, 5), extra=st.none() | st.integers(0, 3))
def test_the_machine_ends_it_the_same_way(arrival, minimum, extra):
    goal = None if extra is None else max(1, minimum + extra)
    rules = Rules(minimum=minimum, goal=goal, deadline_s=30.0)
    state, at = played(arrival, rules)
    found = close(np.array(arrival, np.float64), rules)
    assert (found.outcome, found.reason) == (state.outcome, state.reason)
    assert found.seconds == pytest.approx(at)
    counted = [f"site-{number}" for number in np.flatnonzero(found.counted)]
    assert counted == list(state.having(Status.OK))


def test_a_queue_by_hand():
    # Two come at once and are served one after the other; the third finds nobody.
    assert served(np.array([1.0, 1.0, 9.0]), np.array([2.0, 3.0, 1.0])).tolist() == [3.0, 6.0, 10.0]
    assert served(np.array([5.0, 0.0]), np.array([1.0, 2.0])).tolist() == [6.0, 2.0]
    assert served(np.zeros(0), np.zeros(0)).tolist() == []
