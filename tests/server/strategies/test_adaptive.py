"""FedAvgM, FedAdam, FedYogi and FedAdagrad on one weight: numbers one can check on paper, and what they become."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.protocol.errors import ConfigError
from fedsite.protocol.plan import LocalPlan
from fedsite.server.strategies import registry
from fedsite.server.strategies.fedavg import FedAvg
from fedsite.server.strategies.fedavgm import FedAvgM
from fedsite.server.strategies.fedopt import FedAdagrad, FedAdam, FedYogi
from fedsite.server.strategies.fedprox import FedProx
from fedsite.server.strategies.strategy import ServerState, Strategy, Update

LOCAL = LocalPlan(steps=1, sampling_rate=1.0)
DELTAS = st.lists(st.floats(-1e-3, 1e-3), min_size=1, max_size=4)


def after(strategy: Strategy, deltas: list[float], start: float = 0.0) -> list[float]:
    """The weight after each round; two sites send d and 3d with weights 1 and 1, so that their mean is 2d."""
    state, found = strategy.init({"w": np.array([start])}), []
    for delta in deltas:
        collected = strategy.aggregator(state, ("w",))
        for site, value in (("a", delta / 2), ("b", 1.5 * delta)):
            collected.add(Update(site=site, delta={"w": np.array([value])}, weight=1.0))
        state = strategy.apply(state, collected.result())
        found.append(float(state.params["w"][0]))
    return found


def test_momentum_by_hand() -> None:
    """m = 1, then 0.5 + 1, then 0.75 + 0."""
    assert after(FedAvgM(momentum=0.5), [1.0, 1.0, 0.0]) == [1.0, 2.5, 3.25]
    assert after(FedAvgM(momentum=0.5, server_learning_rate=0.1), [1.0])[0] == pytest.approx(0.1)


def test_adam_by_hand() -> None:
    """β1 = β2 = 0.5, τ = 1: m = 1, v = 0.5·1 + 0.5·4 = 2.5; then m = 0.5, v = 1.25."""
    found = after(FedAdam(server_learning_rate=1.0, beta1=0.5, beta2=0.5, tau=1.0), [2.0, 0.0])
    assert found[0] == pytest.approx(1 / (np.sqrt(2.5) + 1))
    assert found[1] - found[0] == pytest.approx(0.5 / (np.sqrt(1.25) + 1))


def test_yogi_by_hand() -> None:
    """τ = 1, β2 = 0.5: v = 1 + 0.5·4 = 3, because 4 is above 1; then Δ² = 0.25 is below it: v = 3 − 0.125."""
    found = after(FedYogi(server_learning_rate=1.0, beta1=0.0, beta2=0.5, tau=1.0), [2.0, 0.5])
    assert found[0] == pytest.approx(2 / (np.sqrt(3.0) + 1))
    assert found[1] - found[0] == pytest.approx(0.5 / (np.sqrt(2.875) + 1))


def test_adagrad_by_hand() -> None:
    """v = 1 + 4, then 5 + 4."""
    found = after(FedAdagrad(server_learning_rate=1.0, beta1=0.0, tau=1.0), [2.0, 2.0])
    assert found == pytest.approx([2 / (np.sqrt(5.0) + 1), 2 / (np.sqrt(5.0) + 1) + 2 / 4])


@given(deltas=DELTAS, rate=st.floats(0.1, 10))
def test_without_memory_and_with_a_large_tau_adam_is_fedavg(deltas: list[float], rate: float) -> None:
    adam = FedAdam(server_learning_rate=rate, beta1=0.0, beta2=0.0, tau=rate)
    np.testing.assert_allclose(after(adam, deltas), after(FedAvg(), deltas), rtol=0.03, atol=1e-12)


@given(deltas=DELTAS)
def test_no_momentum_and_no_pull_are_fedavg(deltas: list[float]) -> None:
    assert after(FedAvgM(momentum=0.0), deltas) == after(FedAvg(), deltas)
    # The server of FedProx is FedAvg; that μ = 0 trains as without it is tests/client/work/test_control.py.
    assert after(FedProx(local=LocalPlan(steps=1, sampling_rate=1.0, proximal=1.0)), deltas) == after(FedAvg(), deltas)


def test_what_is_remembered_is_named_and_shaped_like_the_parameters_that_are_trained() -> None:
    strategy = FedAdam()
    state = strategy.init({"w": np.zeros((2, 3), np.float32), "counter": np.array([5])})
    collected = strategy.aggregator(state, ("w",))
    collected.add(Update(site="a", delta={"w": np.ones((2, 3))}, weight=1.0))
    found = strategy.apply(state, collected.result())
    assert {name: value.shape for name, value in found.memory.items()} == {"m/w": (2, 3), "v/w": (2, 3)}
    assert found.params["counter"] is state.params["counter"]
    assert isinstance(found, ServerState)
    assert found.params["w"].dtype == np.float32
    assert strategy.control(found) is None


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("fedadam", {"beta1": 1.0}, "beta1 is 1; allowed: from 0, below 1"),
        ("fedadam", {"beta2": -0.1}, "beta2"),
        ("fedadam", {"tau": 0.0}, "above 0"),
        ("fedadagrad", {"beta2": 0.9}, "unknown strategy.options.beta2"),
        ("fedyogi", {"tau": float("nan")}, "tau is nan"),
        ("fedavgm", {"momentum": 1.0}, "momentum"),
        ("fedavgm", {"server_learning_rate": 0.0}, "above 0"),
        ("fedprox", {}, "with local.proximal 0"),
        ("fedprox", {"local": 1.0}, "unknown strategy.options.local"),
    ],
)
def test_options_that_mean_nothing_are_refused(name: str, options: dict[str, float], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        registry.build(name, options, local=LOCAL)
