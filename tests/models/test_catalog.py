"""The catalog: names, options, seeds, and models that a site installed itself."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch
from torch import nn

from fedsite.models import catalog, vector
from fedsite.protocol.errors import ConfigError

SHAPE = {"time": 12, "features": 3, "outputs": 2}


def test_names_are_the_seven_architectures():
    assert catalog.names() == ["autoencoder", "cnn1d", "cnn2d", "conv_autoencoder", "gru", "mlp", "tcn"]
    assert catalog.installed() == []


@pytest.mark.parametrize("name", catalog.names())
def test_same_seed_same_weights_and_global_randomness_untouched(name):
    before = torch.get_rng_state()
    first = vector.state(catalog.build(name, **SHAPE, seed=3))
    again = vector.state(catalog.build(name, **SHAPE, seed=3))
    other = vector.state(catalog.build(name, **SHAPE, seed=4))
    assert torch.equal(before, torch.get_rng_state())
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert not all(np.array_equal(first[key], other[key]) for key in first)


def test_options_reach_the_model():
    module = catalog.build("mlp", {"hidden": [5], "activation": "relu"}, **SHAPE, seed=0)
    assert [tuple(p.shape) for p in module.parameters()] == [(5, 36), (5,), (2, 5), (2,)]
    assert vector.parameters(module) == 5 * 36 + 5 + 2 * 5 + 2


def test_check_fills_in_defaults():
    assert catalog.check("mlp", {"hidden": [8]}) == {"hidden": [8], "activation": "tanh"}


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("mpl", {}, ["mpl", "did you mean mlp"]),
        ("mlp", {"hiden": [4]}, ["model.options.hiden", "did you mean hidden"]),
        ("mlp", {"hidden": "wide"}, ["model.options.hidden", "'wide'"]),
        ("mlp", {"hidden": [0]}, ["hidden is 0", "1 to"]),
        ("mlp", {"hidden": [True]}, ["hidden[0]", "integer"]),
        ("mlp", {"activation": "swish"}, ["swish", "tanh"]),
        ("cnn1d", {"kernel": 4}, ["kernel is 4", "odd", "kernel=5"]),
        ("cnn1d", {"norm": "batch"}, ["batch", "group"]),
        ("tcn", {"channels": []}, ["channels has 0 entries"]),
        ("gru", {"hidden": 1.5}, ["hidden", "1.5", "integer"]),
    ],
)
def test_wrong_name_or_option_is_named(name, options, words):
    with pytest.raises(ConfigError) as caught:
        catalog.build(name, options, **SHAPE, seed=0)
    for word in words:
        assert word in str(caught.value)


def test_wrong_input_shape_is_named():
    with pytest.raises(ConfigError, match="time is 0"):
        catalog.build("mlp", time=0, features=3, outputs=1, seed=0)


class Doubler(nn.Module):
    """What another package may bring."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Options:
        factor: float = 2.0

    def __init__(self, settings, *, time, features, outputs):
        super().__init__()
        self.factor = settings.factor
        self.layer = nn.Linear(time * features, outputs)


class Plain:
    """An entry point that is no architecture."""


def test_installed_models_join_and_cannot_shadow(monkeypatch):
    entries = [
        EntryPoint("doubler", f"{__name__}:Doubler", catalog.GROUP),
        EntryPoint("plain", f"{__name__}:Plain", catalog.GROUP),
        EntryPoint("gone", "no_such_package_here:Model", catalog.GROUP),
        EntryPoint("mlp", f"{__name__}:Doubler", catalog.GROUP),
    ]
    monkeypatch.setattr(catalog, "entry_points", lambda group: entries)
    monkeypatch.setattr(EntryPoint, "load", _load(EntryPoint.load))
    assert catalog.installed() == ["doubler", "gone", "plain"]
    assert catalog.build("doubler", {"factor": 3}, **SHAPE, seed=0).factor == 3.0
    assert type(catalog.build("mlp", **SHAPE, seed=0)).__name__ == "MLP"
    with pytest.raises(ConfigError, match="no Options"):
        catalog.build("plain", **SHAPE, seed=0)
    with pytest.raises(ConfigError, match="no_such_package_here"):
        catalog.build("gone", **SHAPE, seed=0)


def _load(original):
    """Test modules are not importable by name under importlib mode."""

    def load(entry):
        return globals()[entry.attr] if entry.module == __name__ else original(entry)

    return load
