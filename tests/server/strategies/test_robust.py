"""Median, trimmed mean and Krum: against NumPy and paper, and against one update that lies."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import trim_mean

from fedsite.protocol.errors import ConfigError, PolicyError, RefusalCode
from fedsite.protocol.plan import LocalPlan
from fedsite.server.rounds.machine import RoundState, Rules
from fedsite.server.rounds.question import Result
from fedsite.server.rounds.training import _aggregated
from fedsite.server.strategies import collected, registry
from fedsite.server.strategies.krum import Krum, multi_krum, scores
from fedsite.server.strategies.median import Median
from fedsite.server.strategies.strategy import Strategy, Update
from fedsite.server.strategies.trimmed_mean import TrimmedMean, cut

PARAMS = {
    "a": np.array([[1.0], [2.0]], dtype=np.float32),
    "b": np.array([3.0], dtype=np.float32),
    "counter": np.array([5], dtype=np.int64),
}
TRAINED = ("a", "b")
LOCAL = LocalPlan(steps=1, sampling_rate=1.0)
ROBUST: list[Strategy] = [Median(), TrimmedMean(), Krum(), Krum(select=2)]
HUGE = float(np.finfo(np.float32).max)


def update(number: int, delta: list[float], weight: float = 1.0) -> Update:
    values = np.array(delta, dtype=np.float32)
    return Update(site=str(number), delta={"a": values[:2, None], "b": values[2:]}, weight=weight, sites=2)


def aggregate(strategy: Strategy, deltas: list[list[float]]) -> np.ndarray:
    state = strategy.init(PARAMS)
    aggregator = strategy.aggregator(state, TRAINED)
    for number, delta in enumerate(deltas):
        aggregator.add(update(number, delta, weight=1.0 + number))
    result = aggregator.result()
    assert (result.count, result.weight) == (len(deltas), sum(1.0 + number for number in range(len(deltas))))
    found = strategy.apply(state, result)
    assert found.params["counter"] is PARAMS["counter"]
    moved = [found.params[name].astype(np.float64) - PARAMS[name] for name in TRAINED]
    np.testing.assert_allclose(np.concatenate([part.ravel() for part in moved]), _flat(result.delta), atol=1e-5)
    return _flat(result.delta)


def _flat(delta: object) -> np.ndarray:
    return np.concatenate([delta[name].ravel() for name in TRAINED])  # type: ignore[index]


def test_a_median_by_hand() -> None:
    """Of 1, 9, 2 it is 2; of 1, 9, 2, 4 it is 3; weights do not count."""
    three = [[1.0, 0.0, -1.0], [9.0, 5.0, 7.0], [2.0, 1.0, 0.5]]
    assert aggregate(Median(), three).tolist() == [2.0, 1.0, 0.5]
    assert aggregate(Median(), [*three, [4.0, 1.0, 0.5]]).tolist() == [3.0, 1.0, 0.5]


def test_a_trimmed_mean_by_hand() -> None:
    """A fifth of five is one at either end: of 1, 9, 2, 4, 3 the mean of 2, 3, 4."""
    values = [1.0, 9.0, 2.0, 4.0, 3.0]
    assert aggregate(TrimmedMean(trim=0.2), [[x, -x, 0.0] for x in values]).tolist() == [3.0, -3.0, 0.0]


@pytest.mark.parametrize(
    ("count", "trim", "expected"), [(3, 0.1, 1), (3, 0.49, 1), (30, 0.1, 3), (10, 0.25, 3), (4, 0.4, 1), (100, 0.2, 20)]
)
def test_how_many_are_cut(count: int, trim: float, expected: int) -> None:
    assert cut(count, trim) == expected


def test_krum_by_hand() -> None:
    """Five on a line at 0, 1, 2, 4 and 100, one of them bad: 5 − 1 − 2 = 2 nearest each.

    Scores 1 + 4, 1 + 1, 1 + 4, 4 + 9, 96² + 98²: 1 wins, and the best three are 1, 0, 2.
    """
    line = [[x, 0.0, 0.0] for x in (0.0, 1.0, 2.0, 4.0, 100.0)]
    rows = [np.array(row, np.float32) for row in line]
    assert scores(rows, 1).tolist() == [5.0, 2.0, 5.0, 13.0, 96.0**2 + 98.0**2]
    assert aggregate(Krum(byzantine=1), line).tolist() == [1.0, 0.0, 0.0]
    six = [*line, [101.0, 0.0, 0.0]]  # three nearest each; the two far ones pay for the third
    assert aggregate(Krum(byzantine=1, select=3), six).tolist() == [1.0, 0.0, 0.0]


deltas = st.lists(st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3), min_size=5, max_size=9)


@given(deltas, st.sampled_from([0.1, 0.2, 0.3]))
def test_equal_to_numpy_and_scipy(rows: list[list[float]], trim: float) -> None:
    np.testing.assert_allclose(aggregate(Median(), rows), np.median(np.array(rows), axis=0), atol=1e-12)
    share = cut(len(rows), trim) / len(rows) + 1e-9
    expected = trim_mean(np.array(rows), share, axis=0)
    np.testing.assert_allclose(aggregate(TrimmedMean(trim=trim), rows), expected, atol=1e-9)


@given(deltas, st.integers(1, 2))
def test_krum_equal_to_its_definition(rows: list[list[float]], select: int) -> None:
    points = np.array(rows, np.float32).astype(np.float64)
    found = []
    for one in range(len(points)):
        others = sorted(float(((points[one] - points[j]) ** 2).sum()) for j in range(len(points)) if j != one)
        found.append(sum(others[: len(points) - 1 - 2]))
    np.testing.assert_allclose(scores([np.array(row, np.float32) for row in rows], 1), found, rtol=1e-9, atol=1e-9)
    order = np.argsort(scores([np.array(row, np.float32) for row in rows], 1), kind="stable")
    best = points[order[:select]].mean(axis=0)
    np.testing.assert_allclose(multi_krum([np.array(row, np.float32) for row in rows], 1, select), best, atol=1e-12)


@given(
    honest=st.lists(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3), min_size=4, max_size=8),
    poison=st.lists(st.floats(-HUGE, HUGE, width=32), min_size=3, max_size=3),
    place=st.integers(0, 8),
)
@pytest.mark.parametrize("strategy", [Median(), TrimmedMean(), Krum()], ids=lambda one: type(one).__name__)
def test_one_poisoned_update_moves_nothing_out_of_the_honest_range(
    strategy: Strategy, honest: list[list[float]], poison: list[float], place: int
) -> None:
    found = aggregate(strategy, [*honest[:place], poison, *honest[place:]])
    low, high = np.min(honest, axis=0), np.max(honest, axis=0)
    if isinstance(strategy, Krum):
        # Krum may take the poisoned update itself, but only one that lies as close to the honest as they to each other.
        widest = max(float(np.linalg.norm(np.subtract(*pair))) for pair in itertools.combinations(honest, 2))
        nearest = min(float(np.linalg.norm(found - np.array(one))) for one in honest)
        assert nearest <= widest + 1e-6
    else:
        assert np.all(found >= low - 1e-6)
        assert np.all(found <= high + 1e-6)


def test_a_poisoned_update_far_away_is_never_taken_by_krum() -> None:
    honest = [[0.0, 0.0, 0.1 * number] for number in range(5)]
    assert aggregate(Krum(select=2), [[1e9, 0.0, 0.0], *honest]).max() <= 0.4


@pytest.mark.parametrize("strategy", ROBUST, ids=lambda one: type(one).__name__)
def test_too_few_updates_are_a_clear_refusal(strategy: Strategy) -> None:
    aggregator = strategy.aggregator(strategy.init(PARAMS), TRAINED)
    for number in range(strategy.least - 1):
        aggregator.add(update(number, [1.0, 2.0, 3.0]))
    with pytest.raises(PolicyError, match=f"{strategy.least - 1} updates") as caught:
        aggregator.result()
    assert caught.value.refusal is RefusalCode.COHORT
    aggregator.add(update(99, [1.0, 2.0, 3.0]))
    assert _flat(aggregator.result().delta).tolist() == [1.0, 2.0, 3.0]


def test_a_round_with_too_few_updates_is_abandoned_by_name() -> None:
    """What the round loop makes of the refusal: an abandoned round with the strategy's reason, and no aggregate."""
    state = RoundState(number=1, attempt=1, rules=Rules(minimum=2, deadline_s=1.0), opened_at=0.0, outcome="completed")
    aggregator = Krum().aggregator(Krum().init(PARAMS), TRAINED)
    for number in range(4):
        aggregator.add(update(number, [1.0, 2.0, 3.0]))
    result, found = _aggregated(Result(state=state, seconds=1.0, answers={}), aggregator)
    assert (result.state.outcome, found) == ("abandoned", None)
    assert result.state.reason.startswith("4 updates, at least 5: krum with byzantine=1")
    aggregator.add(update(4, [1.0, 2.0, 3.0]))
    result, found = _aggregated(Result(state=state, seconds=1.0, answers={}), aggregator)
    assert result.state.outcome == "completed"
    assert found is not None


@pytest.mark.parametrize("strategy", ROBUST, ids=lambda one: type(one).__name__)
def test_an_update_is_copied_and_a_wrong_one_changes_nothing(strategy: Strategy) -> None:
    aggregator = strategy.aggregator(strategy.init(PARAMS), TRAINED)
    delta = {"a": np.ones((2, 1), np.float32), "b": np.ones(1, np.float32)}
    for number in range(strategy.least):
        aggregator.add(Update(site=str(number), delta=delta, weight=1.0))
    delta["a"][:] = 7.0
    for wrong in ({"a": delta["a"]}, {**delta, "b": np.ones(2)}, {**delta, "b": np.array([np.nan])}):
        with pytest.raises(ValueError, match=r"parameters|shape|finite"):
            aggregator.add(Update(site="wrong", delta=wrong, weight=1.0))
    result = aggregator.result()
    assert result.count == strategy.least
    assert _flat(result.delta).tolist() == [1.0, 1.0, 1.0]


def test_a_parameter_longer_than_a_block_is_seen_whole() -> None:
    size = 2 * collected.BLOCK + 5
    params = {"w": np.zeros(size, np.float32)}
    for strategy in ROBUST:
        aggregator = strategy.aggregator(strategy.init(params), ("w",))
        for number in range(strategy.least + 1):
            base = np.arange(size, dtype=np.float32)
            aggregator.add(Update(site=str(number), delta={"w": base if number else -base}, weight=1.0))
        np.testing.assert_array_equal(aggregator.result().delta["w"], np.arange(size))


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("krum", {"byzantine": 1.5}, "whole number"),
        ("krum", {"byzantine": -1}, "whole number"),
        ("krum", {"select": 0}, "whole number"),
        ("trimmed_mean", {"trim": 0.5}, "below 0.5"),
        ("trimmed_mean", {"trim": 0.0}, "above 0"),
        ("median", {"server_learning_rate": 11.0}, "at most 10"),
        ("median", {"trim": 0.1}, "unknown"),
        ("mediam", {}, "did you mean median"),
    ],
)
def test_options_that_mean_nothing_are_refused(name: str, options: dict[str, float], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        registry.build(name, options, local=LOCAL)


def test_what_the_registry_knows_of_them() -> None:
    local = dataclasses.replace(LOCAL, proximal=0.1)
    found = {name: registry.build(name, {}, local=local) for name in registry.names()}
    assert {name for name, one in found.items() if one.single} == {"krum"} == set(found) - set(registry.summing())
    least = {name: one.least for name, one in found.items() if one.least > 1}
    assert least == {"krum": 5, "median": 3, "trimmed_mean": 3}
    assert registry.build("krum", {"byzantine": 3.0}, local=LOCAL).least == 9
    assert registry.build("krum", {"byzantine": 1.0, "select": 4.0}, local=LOCAL).least == 7
