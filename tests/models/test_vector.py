"""Weights as arrays and as a vector: inverses, strictness, and which parameters are trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedsite.models import catalog, vector
from fedsite.protocol import weights
from fedsite.protocol.errors import ConfigError, IntegrityError

FINITE = st.floats(-1e6, 1e6, width=32)
STATES = st.dictionaries(
    st.text("abc.w", min_size=1, max_size=6),
    arrays.arrays(np.float32, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), elements=FINITE),
    max_size=5,
)


def model(seed=0):
    return catalog.build("mlp", {"hidden": [3]}, time=2, features=2, outputs=1, seed=seed)


@given(STATES)
def test_unflatten_is_the_inverse_of_flatten(state):
    flat = vector.flatten(state)
    assert flat.shape == (vector.size(state),)
    back = vector.unflatten(flat, state)
    assert list(back) == sorted(state)
    for name, array in state.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)


@given(STATES)
def test_apply_undoes_delta(state):
    moved = {name: array + np.float32(1.0) for name, array in state.items()}
    change = vector.delta(moved, state, list(state))
    for name, array in vector.apply(state, change).items():
        np.testing.assert_allclose(array, moved[name], rtol=1e-5, atol=0.2)


def test_load_is_the_inverse_of_state():
    first, second = model(1), model(2)
    vector.load(second, vector.state(first))
    for name, array in vector.state(first).items():
        np.testing.assert_array_equal(array, vector.state(second)[name])


def test_state_is_a_copy_with_sorted_names():
    module = model()
    state = vector.state(module)
    assert list(state) == ["layers.0.bias", "layers.0.weight", "layers.2.bias", "layers.2.weight"]
    state["layers.0.bias"][:] = 9.0
    assert not (vector.state(module)["layers.0.bias"] == 9.0).any()


def broken(**changes):
    state = vector.state(model())
    for name, change in changes.items():
        state[name.replace("_", ".")] = change
    return state


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({k: v for k, v in broken().items() if k != "layers.0.bias"}, ["layers.0.bias", "missing"]),
        (broken(extra=np.zeros(1, np.float32)), ["unexpected tensor extra"]),
        (broken(layers_0_bias=np.zeros(4, np.float32)), ["layers.0.bias", "[4]", "[3]"]),
        (broken(layers_0_bias=np.zeros(3, np.float64)), ["layers.0.bias", "float64", "float32"]),
        (broken(layers_0_bias=np.array([0, np.nan, 0], np.float32)), ["layers.0.bias", "NaN"]),
        (broken(layers_2_weight=np.full((1, 3), np.inf, np.float32)), ["layers.2.weight", "infinity"]),
    ],
)
def test_load_refuses_and_changes_nothing(state, words):
    module = model(7)
    before = vector.state(module)
    with pytest.raises(IntegrityError) as caught:
        vector.load(module, state)
    for word in words:
        assert word in str(caught.value)
    for name, array in vector.state(module).items():
        np.testing.assert_array_equal(array, before[name])


def test_delta_and_apply_refuse_strangers():
    state = vector.state(model())
    with pytest.raises(IntegrityError, match="nobody"):
        vector.delta(state, state, ["nobody"])
    with pytest.raises(IntegrityError, match="nobody"):
        vector.apply(state, {"nobody": np.zeros(1, np.float32)})
    with pytest.raises(IntegrityError, match="NaN"):
        vector.apply(state, {"layers.0.bias": np.full(3, np.nan, np.float32)})
    with pytest.raises(IntegrityError, match=r"\[5\]"):
        vector.unflatten(np.zeros(5), state)


def test_delta_by_hand():
    old = {"a": np.array([1.0, 2.0], np.float32), "b": np.array([5.0], np.float32)}
    new = {"a": np.array([1.5, 1.0], np.float32), "b": np.array([9.0], np.float32)}
    change = vector.delta(new, old, ["a"])
    np.testing.assert_array_equal(change["a"], [0.5, -1.0])
    applied = vector.apply(old, change)
    np.testing.assert_array_equal(applied["a"], [1.5, 1.0])
    np.testing.assert_array_equal(applied["b"], [5.0])


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("all", ["layers.0.bias", "layers.0.weight", "layers.2.bias", "layers.2.weight"]),
        ("head", ["layers.2.bias", "layers.2.weight"]),
        ("*.weight", ["layers.0.weight", "layers.2.weight"]),
    ],
)
def test_trainable_subset(pattern, names):
    module = model()
    assert vector.trainable(module, pattern) == names
    assert sorted(name for name, parameter in module.named_parameters() if parameter.requires_grad) == names


@pytest.mark.parametrize("name", catalog.names())
def test_head_is_the_last_layer_that_runs(name):
    module = catalog.build(name, time=8, features=2, outputs=1, seed=0)
    chosen = vector.trainable(module, "head")
    assert 1 <= len(chosen) <= 2
    # Only the head gets a gradient, and it gets one.
    module(torch.randn(2, 8, 2)).sum().backward()
    assert sorted(label for label, p in module.named_parameters() if p.grad is not None) == chosen


def test_trainable_that_matches_nothing_lists_what_there_is():
    with pytest.raises(ConfigError, match=r"heads matches no parameter.*layers\.0\.weight"):
        vector.trainable(model(), "heads")


def test_init_file(tmp_path):
    path = tmp_path / "start.safetensors"
    path.write_bytes(weights.encode(vector.state(model(5))))
    module = model(6)
    vector.load_file(module, path)
    np.testing.assert_array_equal(vector.flatten(vector.state(module)), vector.flatten(vector.state(model(5))))


def test_init_file_that_does_not_fit(tmp_path):
    with pytest.raises(ConfigError, match=r"model\.init=.*missing\.safetensors"):
        vector.load_file(model(), tmp_path / "missing.safetensors")
    path = tmp_path / "other.safetensors"
    path.write_bytes(weights.encode({"x": np.zeros(1, np.float32)}))
    with pytest.raises(IntegrityError, match=r"other\.safetensors.*layers\.0\.bias.*model\.options"):
        vector.load_file(model(), path)
    path.write_bytes(b"not weights at all")
    with pytest.raises(IntegrityError, match=r"other\.safetensors"):
        vector.load_file(model(), path)
