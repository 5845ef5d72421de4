"""One exchange with many sites at once: who has answered when it closes, and with which outcome.

The rules are those of server.rounds.machine, over arrays of arrival times in place of events; a test holds the two
against each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedsite.server.rounds.machine import RoundOutcome, Rules

LOST_S: Final = 20.0  # a site whose heartbeat is overdue by this is not waited for
Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """How an exchange ended. Shapes: `counted` [asked]."""

    outcome: RoundOutcome
    reason: str
    seconds: float  # since it opened
    counted: NDArray[np.bool_]  # whose answer counts


def close(arrival: Reals, rules: Rules) -> Closed:
    """Ask sites whose answers arrive after so many seconds, [asked]; never, where a site is lost."""
    asked, lost = len(arrival), np.isinf(arrival)
    goal, pending = asked if rules.goal is None else rules.goal, asked - int(lost.sum())
    if not asked:
        return Closed(outcome="abandoned", reason="no site to ask", seconds=0.0, counted=lost)
    if asked < rules.minimum:
        short = f"{asked} of {asked} sites can answer, minimum {rules.minimum}"
        return Closed(outcome="abandoned", reason=short, seconds=0.0, counted=np.zeros(asked, bool))
    order = np.argsort(arrival, kind="stable")
    noticed = LOST_S if lost.any() else 0.0
    ended = {
        "goal": float(arrival[order[goal - 1]]) if goal <= asked else math.inf,
        "short": LOST_S if pending < rules.minimum else math.inf,
        "all": max(noticed, float(arrival[~lost].max(initial=0.0))),
        "deadline": math.nextafter(rules.deadline_s, math.inf),  # an answer on time still counts
    }
    why = min(ended, key=lambda name: ended[name])
    at = min(ended[why], rules.deadline_s)
    counted = arrival <= at
    counted[order[goal:]] = False
    number = int(counted.sum())
    told = f"{number} of {asked} sites answered"
    if why == "goal":
        return Closed(outcome="completed", reason=told, seconds=at, counted=counted)
    if why == "short":
        # Decided with the first site too many that is given up.
        short = f"{rules.minimum - 1} of {asked} sites can answer, minimum {rules.minimum}"
        return Closed(outcome="abandoned", reason=short, seconds=at, counted=counted)
    if why == "deadline":
        told += f" by the deadline of {rules.deadline_s:g} s"
    if number < rules.minimum:
        told += f", minimum {rules.minimum}"
        return Closed(outcome="abandoned", reason=told, seconds=at, counted=counted)
    return Closed(outcome="degraded", reason=f"{told}, goal {goal}", seconds=at, counted=counted)


def served(arrival: Reals, service: Reals) -> Reals:
    """When a queue of one server has dealt with what arrives, each taking `service` seconds; in order of arrival."""
    order = np.argsort(arrival, kind="stable")
    until = np.cumsum(service[order])
    waited = np.maximum.accumulate(arrival[order] - (until - service[order]))
    found = np.empty_like(arrival)
    found[order] = waited + until
    return found
