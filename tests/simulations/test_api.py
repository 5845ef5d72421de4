"""Simulations from a notebook: columns, own strategies and models; the example of the documentation runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsite.protocol.errors import ConfigError
from fedsite.simulations.api import Result, simulate
from tests import toy_study

RESEARCH = Path(__file__).resolve().parents[2] / "docs" / "research.md"


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    task, *rest = toy_study.write(tmp_path_factory.mktemp("toys"))
    return task.partition("=")[2], rest


@pytest.fixture(scope="module")
def result(toys: tuple[str, list[str]]) -> Result:
    task, rest = toys
    return simulate(task, *rest, "strategy=fedavg,fedadam", rounds=2, seeds=2)


def test_curves_are_columns(result: Result) -> None:
    assert result.curves["round"].tolist() == [1, 2] * 4
    assert result.curves["seed"].tolist() == [0, 0, 1, 1] * 2
    assert result.curves["group"].tolist() == ["fedavg"] * 4 + ["fedadam"] * 4
    assert np.isfinite(result.curves["metric"]).all()
    assert result.curves.frame().shape == (8, len(result.curves))
    assert len(result.sites["site"]) == 20


def test_a_notebook_shows_the_curves(result: Result) -> None:
    shown = result._repr_html_()
    assert shown.count("<polyline") == 2
    assert "http" not in shown
    assert repr(result).startswith("accuracy after 2 rounds: fedavg")
    assert set(result.metric) == {"fedavg", "fedadam"}


def test_baselines_are_trained_where_they_are_asked_for(toys: tuple[str, list[str]], result: Result) -> None:
    task, rest = toys
    rest = [item for item in rest if not item.startswith("simulation.baselines")]
    (found,) = simulate(task, *rest, rounds=1, baselines=True).runs
    assert found.metric.central is not None
    assert found.metric.local_only is not None
    assert result.runs[0].metric.central is None


def test_own_strategy_and_own_model(toys: tuple[str, list[str]]) -> None:
    import torch
    from torch import nn

    from fedsite.server.strategies.fedavg import FedAvg

    class Halved(FedAvg):
        """A server that goes half the way."""

        def apply(self, state: Any, aggregate: Any) -> Any:
            found = super().apply(state, aggregate)
            half = {name: (value + state.params[name]) / 2 for name, value in found.params.items()}
            return type(found)(params=half, memory=found.memory)

    def linear(*, time: int, features: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(time * features, outputs))

    task, rest = toys
    rest = [item for item in rest if not item.startswith("simulation.executor")]
    plain, half = (simulate(task, *rest, rounds=1, model=linear, strategy=kind) for kind in (FedAvg(), Halved()))
    name = "1.weight"
    assert plain.params[0][name].shape == (2, 2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        start = linear(time=1, features=2, outputs=2).state_dict()[name].numpy()
    np.testing.assert_allclose(half.params[0][name] - start, (plain.params[0][name] - start) / 2, atol=1e-6)
    with pytest.raises(ConfigError, match="model of your own"):
        simulate(task, *rest, "simulation.workers=2", model=linear)


def test_the_documentations_example_runs(toys: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    section = RESEARCH.read_text().partition("## From a notebook")[2].partition("\n## ")[0]
    code = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert code
    task, rest = toys
    monkeypatch.setattr(
        "fedsite.simulations.api.simulate", lambda name, *more, **given: _small(task, rest, more, given)
    )
    names: dict[str, Any] = {}
    for block in code:
        exec(compile(block, "docs/research.md", "exec"), names)  # noqa: S102
    assert names["result"].curves["metric"].size


def _small(task: str, rest: list[str], more: tuple[str, ...], given: dict[str, Any]) -> Result:
    """The same call on a task that takes no time."""
    kept = [item for item in more if not item.startswith(("privacy", "simulation.", "local."))]
    plain = [item for item in rest if not item.startswith("simulation.executor") or "model" not in given]
    return simulate(task, *plain, *kept, **{**given, "rounds": 2, "seeds": 2})
