"""FedAvg on three weights and two sites: numbers one can check on paper."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.protocol.errors import ConfigError
from fedsite.protocol.plan import LocalPlan
from fedsite.server.strategies import registry, streaming
from fedsite.server.strategies.fedavg import FedAvg
from fedsite.server.strategies.strategy import ServerState, Update

LOCAL = LocalPlan(steps=1, sampling_rate=1.0)
PARAMS = {
    "head.weight": np.array([1.0, 2.0, 3.0], dtype=np.float32),
    "body.weight": np.array([[7.0]], dtype=np.float32),
    "counter": np.array([5], dtype=np.int64),
}


def update(site: str, delta: list[float], weight: float) -> Update:
    return Update(site=site, delta={"head.weight": np.array(delta, dtype=np.float32)}, weight=weight)


def apply(strategy: FedAvg, *updates: Update) -> ServerState:
    state = strategy.init(PARAMS)
    collected = strategy.aggregator(state, ("head.weight",))
    for item in updates:
        collected.add(item)
    return strategy.apply(state, collected.result())


def test_mean_is_weighted_by_examples() -> None:
    # (1 * [4, 0, -4] + 3 * [0, 4, 4]) / 4 = [1, 3, 2]
    state = apply(FedAvg(), update("a", [4, 0, -4], 1), update("b", [0, 4, 4], 3))
    np.testing.assert_array_equal(state.params["head.weight"], np.array([2, 5, 5], dtype=np.float32))
    assert state.params["head.weight"].dtype == np.float32


def test_untrained_parameters_and_counters_stay() -> None:
    state = apply(FedAvg(), update("a", [1, 1, 1], 1))
    assert state.params["body.weight"] is PARAMS["body.weight"]
    assert state.params["counter"] is PARAMS["counter"]


def test_server_learning_rate_scales_the_step() -> None:
    state = apply(FedAvg(server_learning_rate=0.5), update("a", [4, 0, -4], 1))
    np.testing.assert_array_equal(state.params["head.weight"], np.array([3, 2, 1], dtype=np.float32))


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_no_weight_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="weight"):
        apply(FedAvg(), update("a", [1, 1, 1], weight))


def test_another_shape_or_name_is_refused_and_changes_nothing() -> None:
    collected = FedAvg().aggregator(FedAvg().init(PARAMS), ("head.weight",))
    collected.add(update("a", [1, 1, 1], 1))
    with pytest.raises(ValueError, match="shape"):
        collected.add(update("b", [1, 1], 1))
    with pytest.raises(ValueError, match="parameters"):
        collected.add(Update(site="b", delta={"head": np.zeros(3)}, weight=1))
    assert collected.result().count == 1


def test_the_mean_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no updates"):
        FedAvg().aggregator(FedAvg().init(PARAMS), ("head.weight",)).result()


@given(
    deltas=st.lists(st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3), min_size=1, max_size=6),
    weights=st.lists(st.floats(0.5, 1000.0), min_size=6, max_size=6),
)
def test_streamed_mean_equals_numpy_and_ignores_the_blocking(deltas: list[list[float]], weights: list[float]) -> None:
    used = weights[: len(deltas)]
    collected = streaming.WeightedMean(PARAMS, ("head.weight",))
    for delta, weight in zip(deltas, used, strict=True):
        collected.add(update("a", delta, weight))
    expected = np.average(np.array(deltas, dtype=np.float64), axis=0, weights=used)
    np.testing.assert_allclose(collected.result().delta["head.weight"], expected, rtol=1e-12, atol=1e-12)


def test_a_parameter_longer_than_a_block_is_summed_whole() -> None:
    size = 2 * streaming.BLOCK + 7
    params = {"w": np.zeros((size, 1), dtype=np.float32)}
    collected = streaming.WeightedMean(params, ("w",))
    delta = np.arange(size, dtype=np.float32).reshape(size, 1)
    collected.add(Update(site="a", delta={"w": delta}, weight=2.0))
    np.testing.assert_array_equal(collected.result().delta["w"], delta)


def test_registry_points_at_the_nearest_name() -> None:
    assert registry.build("fedavg", {"server_learning_rate": 0.5}, local=LOCAL) == FedAvg(server_learning_rate=0.5)
    with pytest.raises(ConfigError, match="did you mean fedavg"):
        registry.build("fedavgg", {}, local=LOCAL)
    with pytest.raises(ConfigError, match="did you mean server_learning_rate"):
        registry.build("fedavg", {"server_learning_rat": 1.0}, local=LOCAL)
    with pytest.raises(ConfigError, match="above 0"):
        registry.build("fedavg", {"server_learning_rate": 0.0}, local=LOCAL)
