"""Every architecture: shapes, per-example gradients, no mixing of examples, and what makes each of them what it is."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from opacus import GradSampleModule
from opacus.validators import ModuleValidator
from torch import nn

from fedsite.models import catalog, layers
from fedsite.protocol.errors import ConfigError

TIME, FEATURES, OUTPUTS = 9, 4, 3
SMALL = {
    "autoencoder": {"hidden": [6], "code": 2},
    "cnn1d": {"channels": [4, 6], "kernel": 3, "hidden": [5], "norm": "group"},
    "cnn2d": {"channels": [4, 6], "hidden": [5], "norm": "group"},
    "conv_autoencoder": {"channels": [6, 4], "kernel": 3, "code": 2, "norm": "group"},
    "gru": {"hidden": 5, "layers": 2},
    "mlp": {"hidden": [6]},
    "tcn": {"channels": [4, 4], "norm": "group"},
}


def build(name, **options):
    return catalog.build(name, SMALL[name] | options, time=TIME, features=FEATURES, outputs=OUTPUTS, seed=1)


@pytest.mark.parametrize("name", catalog.names())
def test_output_shape_for_any_number_of_windows(name):
    module = build(name)
    tail = (TIME, FEATURES) if "autoencoder" in name else (OUTPUTS,)
    for count in (0, 1, 5):
        assert module(torch.zeros(count, TIME, FEATURES)).shape == (count, *tail)


@pytest.mark.parametrize("name", catalog.names())
def test_input_is_left_alone_and_windows_do_not_mix(name):
    module = build(name)
    x = torch.randn(4, TIME, FEATURES, generator=torch.Generator().manual_seed(0))
    kept = x.clone()
    together = module(x)
    assert torch.equal(x, kept)
    alone = torch.cat([module(x[index : index + 1]) for index in range(4)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", catalog.names())
def test_per_example_gradients_are_those_of_each_example_alone(name):
    module = build(name)
    assert ModuleValidator.validate(module, strict=False) == []
    alone = copy.deepcopy(module)
    x = torch.randn(3, TIME, FEATURES, generator=torch.Generator().manual_seed(0))
    sampled = GradSampleModule(module, loss_reduction="sum")
    sampled(x).square().sum().backward()
    for index in range(3):
        alone.zero_grad()
        alone(x[index : index + 1]).square().sum().backward()
        for (label, parameter), (_, single) in zip(module.named_parameters(), alone.named_parameters(), strict=True):
            torch.testing.assert_close(parameter.grad_sample[index], single.grad, atol=1e-4, rtol=1e-3, msg=label)


def test_gru_equals_torch_gru():
    module = catalog.build("gru", {"hidden": 5}, time=TIME, features=FEATURES, outputs=5, seed=0)
    layer = module.layers[0]
    reference = torch.nn.GRU(FEATURES, 5, batch_first=True)
    with torch.no_grad():
        reference.weight_ih_l0.copy_(layer.input.weight)
        reference.bias_ih_l0.copy_(layer.input.bias)
        reference.weight_hh_l0.copy_(layer.recurrent.weight)
        reference.bias_hh_l0.copy_(layer.recurrent.bias)
        module.head.weight.copy_(torch.eye(5))
        module.head.bias.zero_()
    x = torch.randn(2, TIME, FEATURES)
    torch.testing.assert_close(module(x), reference(x)[1][0], atol=1e-5, rtol=1e-4)


def test_tcn_is_causal_and_reaches_back_as_far_as_its_dilations():
    # Two blocks of two convolutions, kernel 3, dilations 1 and 2: 1 + 2*2*1 + 2*2*2 = 13 steps.
    module = catalog.build("tcn", {"channels": [4, 4], "activation": "tanh"}, time=20, features=1, outputs=1, seed=0)
    x = torch.zeros(1, 20, 1, requires_grad=True)
    module(x).sum().backward()
    seen = np.flatnonzero(x.grad[0, :, 0].abs().numpy() > 0)
    assert seen.min() == 20 - 13
    assert seen.max() == 19


@pytest.mark.parametrize("time", [1, 2, 5, 8, 13])
def test_conv_autoencoder_rebuilds_any_length(time):
    module = catalog.build("conv_autoencoder", {}, time=time, features=2, outputs=1, seed=0)
    assert module(torch.zeros(2, time, 2)).shape == (2, time, 2)


def test_cnn2d_pools_after_each_convolution():
    options = {"channels": [16, 32], "stride": 1, "pool": 2, "hidden": [128]}
    module = catalog.build("cnn2d", options, time=28, features=28, outputs=10, seed=0)
    assert [layer for layer in module.convolutions if isinstance(layer, nn.MaxPool2d)]
    assert module.head[0].in_features == 32 * 7 * 7
    assert sum(parameter.numel() for parameter in module.parameters()) == 206_922
    assert module(torch.zeros(2, 28, 28)).shape == (2, 10)
    odd = catalog.build("cnn2d", {"channels": [3], "stride": 1, "pool": 2}, time=9, features=5, outputs=2, seed=0)
    assert odd.head[0].in_features == 3 * 4 * 2


def test_a_window_smaller_than_its_pools_is_refused():
    with pytest.raises(ConfigError, match=r"pool 4 on windows of 9 x 4"):
        catalog.build("cnn2d", {"stride": 1, "pool": 4}, time=9, features=4, outputs=2, seed=0)


def test_cnn1d_pooling_choices():
    flat = catalog.build("cnn1d", {"channels": [4], "pool": "flatten"}, time=9, features=2, outputs=1, seed=0)
    mean = catalog.build("cnn1d", {"channels": [4], "pool": "mean"}, time=9, features=2, outputs=1, seed=0)
    assert flat.head[0].in_features == 4 * 5
    assert mean.head[0].in_features == 4


@pytest.mark.parametrize(("channels", "groups"), [(8, 4), (6, 3), (7, 1), (2, 2)])
def test_group_norm_takes_the_largest_divisor_up_to_four(channels, groups):
    assert layers.norm("group", channels).num_groups == groups
