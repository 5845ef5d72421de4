"""Recurrent kernels: torch's gradients, the explicit step's, and each window's own norm."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from fedsite.models import gru
from fedsite.models.steps_recurrent import Recurrent
from fedsite.simulations.vectorised import compiled

pytest.importorskip("numba", reason="kernels need numba: pip install 'fedsite[fast]'")
pytestmark = pytest.mark.slow  # compiles on its own; that the whole executor trains like the loop is tested by default

ONE = np.float32(1.0)
SIZES = [(5, 4, 6, 7), (9, 3, 20, 33), (1, 1, 1, 16), (12, 11, 3, 48)]  # steps, windows, inputs, hidden


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    """The kernels, which are compiled into the cache that the executor uses."""
    compiled.warm()
    from fedsite.simulations.vectorised import recurrent

    return recurrent


class Trial:
    """One layer with random weights and windows, gone through forward and back."""

    def __init__(self, kernels: Any, steps: int, windows: int, inputs: int, hidden: int) -> None:
        rng = np.random.default_rng(steps)
        self.sizes, self._kernels = (steps, windows, inputs, hidden), kernels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(steps)
            self.layer = gru.Layer(inputs, hidden)
        self.x = torch.from_numpy(rng.standard_normal((windows, steps, inputs), np.float32)).requires_grad_()
        self.up = torch.from_numpy(rng.standard_normal((windows, hidden), np.float32))
        self.compact = np.concatenate([value.detach().numpy().reshape(-1) for value in self.layer.parameters()])
        self.flat = np.zeros(kernels.weight_size(inputs, hidden), np.float32)
        kernels.add_weights(self.compact, 0, self.flat, 0, inputs, hidden, True)
        self.space = np.full(kernels.space_size(*self.sizes), np.nan, np.float32)
        rows = self.x.detach().numpy().reshape(-1)
        kernels.take_windows(rows, 0, steps * inputs, self.space, 0, steps, windows, inputs)
        kernels.forward(self.flat, 0, self.space, 0, *self.sizes)
        self.wide = kernels.wide(hidden)
        start = kernels.states_at(0, steps, windows, inputs)
        states = self.space[start : start + (steps + 1) * windows * self.wide]
        self.states = states.reshape(steps + 1, windows, self.wide)[1:].copy()
        flow = np.zeros((windows, self.wide), np.float32)
        flow[:, :hidden] = self.up
        self.turned = np.zeros(3 * self.wide * max(self.wide, kernels.wide(inputs)), np.float32)
        none = np.zeros(0, np.float32)
        kernels.backward(self.flat, 0, self.space, 0, *self.sizes, flow.reshape(-1), none, self.turned)

    def gradient(self, window: int = -1) -> np.ndarray:
        """In the model's own order."""
        found, compact = np.zeros_like(self.flat), np.zeros_like(self.compact)
        self._kernels.push(found, 0, self.space, 0, *self.sizes, window, ONE, 0)
        self._kernels.add_weights(compact, 0, found, 0, *self.sizes[2:], False)
        return compact

    def wanted(self, windows: slice = slice(None)) -> tuple[torch.Tensor, ...]:
        """Torch's gradients: of the parameters, then of the inputs."""
        last = self.layer(self.x)[-1]
        return torch.autograd.grad((last * self.up)[windows].sum(), [*self.layer.parameters(), self.x])


def flat(parts: Any) -> np.ndarray:
    """One vector."""
    return np.concatenate([np.asarray(part).reshape(-1) for part in parts])


def close(found: np.ndarray, wanted: np.ndarray) -> bool:
    """To what float32 sums allow."""
    return bool(np.linalg.norm(found - wanted) <= 1e-6 * np.linalg.norm(wanted))


@pytest.mark.parametrize("sizes", SIZES)
def test_states_and_gradients_are_those_of_torch(kernels: ModuleType, sizes: tuple[int, int, int, int]) -> None:
    trial = Trial(kernels, *sizes)
    hidden = sizes[3]
    assert np.abs(trial.states[..., :hidden] - trial.layer(trial.x).detach().numpy()).max() < 1e-6
    assert not trial.states[..., hidden:].any()
    *parameters, inputs = trial.wanted()
    assert close(trial.gradient(), flat(parameters))
    steps, windows, features, _ = sizes
    below = np.full(steps * windows * kernels.wide(features), np.nan, np.float32)
    kernels.back_to_inputs(trial.flat, 0, trial.space, 0, *sizes, below, np.zeros_like(trial.turned))
    found = below.reshape(steps, windows, -1)[..., :features].swapaxes(0, 1)
    assert close(found, inputs.numpy())


def test_the_explicit_step_of_a_real_site_says_the_same(kernels: ModuleType) -> None:
    trial = Trial(kernels, *SIZES[0])
    steps, windows, _, hidden = SIZES[0]
    site = Recurrent(trial.layer)
    states = site.forward(trial.x.detach().numpy().astype(np.float64))
    assert np.abs(trial.states[..., :hidden] - states).max() < 1e-6
    flowing = np.zeros((steps, windows, hidden))
    flowing[-1] = trial.up.numpy()
    site.backward(flowing)
    parts = site.units(None)
    totals = [np.zeros(tuple(value.shape)) for value in trial.layer.parameters()]
    for part, two in zip(parts, (totals[:2], totals[2:]), strict=True):
        part.add(np.ones(windows), two)
    assert close(trial.gradient(), flat(totals))
    squares, scratch = sum(part.squares() for part in parts), np.empty_like(trial.flat)
    found = [kernels.window_square(scratch, trial.space, 0, *trial.sizes, window) for window in range(windows)]
    assert np.allclose(found, squares, rtol=1e-5)


@pytest.mark.parametrize("window", [0, 3])
def test_a_window_has_its_own_gradient_and_norm(kernels: ModuleType, window: int) -> None:
    trial = Trial(kernels, *SIZES[0])
    wanted = flat(trial.wanted(slice(window, window + 1))[:-1])
    assert close(trial.gradient(window), wanted)
    scratch = np.empty_like(trial.flat)
    square = kernels.window_square(scratch, trial.space, 0, *trial.sizes, window)
    assert np.isclose(square, np.square(wanted).sum(), rtol=1e-5)
    whole = trial.gradient()
    kernels.rescale_window(trial.space, 0, *trial.sizes, window, np.float32(0.25))
    assert close(trial.gradient(), whole - 0.75 * wanted)
