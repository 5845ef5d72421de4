"""Explicit clipped sums against autograd, one unit at a time, and against Opacus' hooks, for every architecture."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from opacus import GradSampleModule
from torch import nn

from fedsite.models import catalog, clipped_sums, losses, vector
from fedsite.models.clipped_sums import ClippedSums, supported
from fedsite.models.explicit import explicit
from fedsite.models.loss_gradients import gradient
from fedsite.models.unit_gradients import Outer
from fedsite.privacy import clipping

ACTIVATIONS = st.sampled_from(["relu", "leaky_relu", "tanh"])
NORMS = st.sampled_from(["none", "group"])
WIDTHS = st.lists(st.integers(1, 6), min_size=1, max_size=3)
ODD = st.sampled_from([1, 3, 5])
OPTIONS = {
    "mlp": st.fixed_dictionaries({"hidden": st.lists(st.integers(1, 6), max_size=3), "activation": ACTIVATIONS}),
    "autoencoder": st.fixed_dictionaries({"hidden": WIDTHS, "code": st.integers(1, 3), "activation": ACTIVATIONS}),
    "cnn1d": st.fixed_dictionaries(
        {"channels": WIDTHS, "kernel": ODD, "stride": st.integers(1, 3), "pool": st.sampled_from(["mean", "flatten"]),
         "hidden": st.lists(st.integers(1, 4), max_size=1), "activation": ACTIVATIONS, "norm": NORMS}
    ),
    "cnn2d": st.fixed_dictionaries(
        {"channels": WIDTHS, "kernel": ODD, "stride": st.integers(1, 3), "activation": ACTIVATIONS, "norm": NORMS}
    ),
    "conv_autoencoder": st.fixed_dictionaries(
        {"channels": WIDTHS, "kernel": ODD, "code": st.integers(1, 3), "activation": ACTIVATIONS, "norm": NORMS}
    ),
    "tcn": st.fixed_dictionaries(
        {"channels": WIDTHS, "kernel": st.integers(1, 4), "activation": ACTIVATIONS, "norm": NORMS}
    ),
    "gru": st.fixed_dictionaries({"hidden": st.integers(1, 5), "layers": st.integers(1, 3)}),
}  # fmt: skip
RECONSTRUCT = ("autoencoder", "conv_autoencoder")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model with data of one kind."""

    module: nn.Module
    x: torch.Tensor
    y: torch.Tensor
    loss: str


def case(name, options, time, features, outputs, windows, loss, seed=0) -> Case:
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(windows, time, features)).astype(np.float32))
    if loss == "reconstruction":
        y = x
    elif loss == "cross_entropy":
        y = torch.from_numpy(rng.integers(0, outputs, windows))
    elif loss == "binary_cross_entropy":
        outputs, y = 1, torch.from_numpy(rng.integers(0, 2, windows).astype(np.float32))
    else:
        y = torch.from_numpy(rng.normal(size=(windows, outputs)).astype(np.float32))
    module = catalog.build(name, options, time=time, features=features, outputs=outputs, seed=seed)
    return Case(module=module, x=x, y=y, loss=loss)


@st.composite
def cases(draw) -> Case:
    name = draw(st.sampled_from(sorted(OPTIONS)))
    loss = (
        "reconstruction"
        if name in RECONSTRUCT
        else draw(st.sampled_from(sorted(set(losses.names()) - {"reconstruction"})))
    )
    shape = draw(st.integers(3, 9)), draw(st.integers(1, 4))
    return case(
        name,
        draw(OPTIONS[name]),
        *shape,
        draw(st.integers(1, 3)),
        draw(st.integers(1, 12)),
        loss,
        draw(st.integers(0, 9)),
    )


def own_gradients(made: Case, rows: np.ndarray, sizes: np.ndarray | None) -> np.ndarray:
    """Each unit's gradient by autograd, one unit after the other [units, numbers]."""
    module = copy.deepcopy(made.module).double()
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    criterion = losses.loss_function(made.loss)
    found = []
    for own in np.split(rows, np.cumsum(np.ones(len(rows), dtype=np.int64) if sizes is None else sizes)[:-1]):
        y = made.y[own]
        value = criterion(module(made.x[own].double()), y.double() if y.is_floating_point() else y).mean()
        found.append(torch.cat([part.flatten() for part in torch.autograd.grad(value, parameters)]).numpy())
    return np.stack(found)


def sums(made: Case) -> ClippedSums:
    return ClippedSums(made.module, made.x, made.y, losses.loss_function(made.loss))


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.linalg.norm(found - expected) <= 1e-9 * np.linalg.norm(expected) + 1e-13)


@given(made=cases(), data=st.data())
@settings(max_examples=40, deadline=None, phases=[p for p in Phase if p is not Phase.shrink])
def test_units_are_clipped_and_summed_as_if_each_were_alone(made, data):
    windows = len(made.x)
    rows = np.array(data.draw(st.lists(st.integers(0, windows - 1), min_size=1, max_size=windows)))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(rows) - 1) if len(rows) > 1 else st.nothing())))
    entity_sizes = np.diff([0, *cuts, len(rows)])
    explicit_sums = sums(made)
    for sizes in (None, entity_sizes):
        try:
            expected = own_gradients(made, rows, sizes)
        except ValueError:  # torch normalises no group of a single number
            assume(False)
        norms = np.linalg.norm(expected, axis=1)
        for bound in (np.median(norms) + 1e-3, 1e3):  # some are clipped, none is
            assert close(explicit_sums.total(rows, sizes, bound), clipping.clip_rows(expected, bound).sum(0))


SHIPPED = [
    ("mlp", {}, 4, 3, "mse"),
    ("mlp", {"hidden": []}, 1, 5, "binary_cross_entropy"),
    ("autoencoder", {}, 1, 12, "reconstruction"),
    ("cnn1d", {"norm": "group"}, 16, 3, "cross_entropy"),
    ("cnn2d", {}, 8, 8, "cross_entropy"),
    ("cnn2d", {"stride": 1, "pool": 2}, 8, 9, "cross_entropy"),
    ("conv_autoencoder", {}, 15, 3, "reconstruction"),
    ("tcn", {"norm": "group"}, 16, 3, "mse"),
    ("gru", {"layers": 2}, 6, 3, "mse"),
]


@pytest.mark.parametrize(("name", "options", "time", "features", "loss"), SHIPPED)
def test_opacus_hooks_give_the_same_sum(name, options, time, features, loss):
    made = case(name, options, time, features, 3, 20, loss)
    reference = GradSampleModule(copy.deepcopy(made.module).double(), loss_reduction="sum")
    y = made.y.double() if made.y.is_floating_point() else made.y
    losses.loss_function(loss)(reference(made.x.double()), y).sum().backward()
    # A layer that runs at each time step leaves one entry for each, in a list.
    each = [
        part if isinstance(part := parameter.grad_sample, torch.Tensor) else torch.stack(part).sum(0)
        for parameter in reference.parameters()
    ]
    rows = torch.cat([part.flatten(1) for part in each], 1).numpy()
    bound = float(np.median(np.linalg.norm(rows, axis=1)))
    expected = clipping.clip_rows(rows, bound).sum(0)
    assert close(sums(made).total(np.arange(20), None, bound), expected)


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_every_shipped_architecture_has_formulas(name):
    assert sorted(OPTIONS) == sorted(set(catalog.names()) - set(catalog.installed()))
    assert supported(catalog.build(name, {}, time=8, features=8, outputs=2, seed=1))


@pytest.mark.parametrize("pattern", ["head", "*weight", "*bias", "*0*"])
@pytest.mark.parametrize(("name", "options", "time", "features", "loss"), SHIPPED)
def test_only_what_is_trained_is_summed(name, options, time, features, loss, pattern):
    made = case(name, options, time, features, 3, 7, loss)
    if not vector.trainable(made.module, pattern):
        return
    rows, sizes = np.arange(7), np.array([3, 4])
    for own in (None, sizes):
        expected = own_gradients(made, rows, own)
        assert close(sums(made).total(rows, own, 0.1), clipping.clip_rows(expected, 0.1).sum(0))


@pytest.mark.parametrize(("name", "options", "time", "features", "loss"), SHIPPED)
def test_a_unit_whose_gradient_is_not_finite_counts_for_nothing(name, options, time, features, loss):
    made = case(name, options, time, features, 3, 8, loss)
    made.x[2, -1, 0] = np.inf
    made.x[5, 0, 0] = np.nan
    rows = np.arange(8)
    for sizes, broken in ((None, [2, 5]), (np.array([2, 2, 2, 2]), [1, 2])):
        expected = own_gradients(made, rows, sizes)
        assert set(np.flatnonzero(~np.isfinite(expected).all(1))) <= set(broken)
        found = sums(made).total(rows, sizes, 0.1)
        assert close(found, clipping.clip_rows(expected, 0.1).sum(0))
    assert not sums(made).total(np.array([2, 5]), None, 0.1).any() or name == "gru"


def test_large_samples_are_taken_in_parts(monkeypatch):
    made = case("cnn1d", {}, 12, 2, 3, 30, "cross_entropy")
    rows, sizes = np.arange(30), np.array([1, 9, 4, 12, 4])
    whole = [sums(made).total(rows, own, 0.1) for own in (None, sizes)]
    monkeypatch.setattr(clipped_sums, "CHUNK_NUMBERS", 4000)
    assert all(
        close(sums(made).total(rows, own, 0.1), expected) for own, expected in zip((None, sizes), whole, strict=True)
    )
    assert not sums(made).total(rows[:0], None, 0.1).any()
    assert not sums(made).total(rows[:0], rows[:0], 0.1).any()


def test_a_model_from_elsewhere_is_left_to_autograd():
    class Derived(type(catalog.build("mlp", {}, time=2, features=2, outputs=1, seed=1))):
        pass

    assert not supported(nn.Linear(2, 2))
    assert not supported(Derived(Derived.Options(), time=2, features=2, outputs=1))


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)),
        nn.Sequential(nn.Conv1d(2, 2, 3, groups=2)),
        nn.Sequential(nn.Conv1d(2, 2, 3, padding="same")),
        nn.Sequential(nn.Linear(3, 3), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Linear(3, 3), nn.Flatten(0)),
        nn.Sequential(*[nn.Linear(3, 3)] * 2),
    ],
)
def test_a_step_without_a_formula_is_seen(module):
    assert explicit(module) is None


@pytest.mark.parametrize("name", losses.names())
def test_gradients_of_losses_are_autograd_s(name):
    made = case("autoencoder" if name == "reconstruction" else "mlp", {}, 3, 2, 3, 5, name)
    answer = made.module(made.x).detach().double().requires_grad_()
    y = made.y.double() if made.y.is_floating_point() else made.y
    (expected,) = torch.autograd.grad(losses.loss_function(name)(answer, y).sum(), answer)
    found = gradient(losses.loss_function(name))(answer.detach().numpy(), made.y.numpy())
    assert np.allclose(found, expected.numpy(), rtol=1e-12, atol=1e-17)
    unknown = gradient(lambda prediction, target: losses.loss_function(name)(prediction, target))
    assert np.array_equal(unknown(answer.detach().numpy(), made.y.numpy()), expected.numpy())


@pytest.mark.parametrize("wanted", [("weight",), ("weight", "bias")])
@pytest.mark.parametrize("small", ["inputs", "gradients"])
def test_no_norm_is_too_small_because_a_square_vanished(wanted: tuple[str, ...], small: str) -> None:
    """1e-163² is 0 in a float64, and |A|·|B| is 9e-9: more than a clipping norm of 1e-9 lets pass."""
    sizes = {"inputs": 1e152, "gradients": 1e152, small: 1e-163}
    a, b = np.full((1, 900), sizes["inputs"]), np.full((1, 900), sizes["gradients"])
    layer = Outer(wanted=wanted, inputs_ni=a, gradients_no=b)
    with np.errstate(all="ignore"):
        scale = clipping.factors(np.sqrt(layer.squares()), 1e-9)
    totals = [np.zeros((900, 900)) if name == "weight" else np.zeros(900) for name in wanted]
    layer.add(scale, totals)
    assert np.sqrt(sum(float((total**2).sum()) for total in totals)) <= 1e-9
