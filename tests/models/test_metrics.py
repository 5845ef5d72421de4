"""Metrics: merging equals pooling, values by hand, bounds per privacy unit, and histograms close to exact figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsite.models import metrics, scores
from fedsite.protocol.errors import ConfigError, DataError

RMSE = metrics.Metric(name="rmse", maximum=10.0)


def example(name, rng, count):
    if name in metrics.REGRESSION:
        return rng.normal(size=(count, 2)), rng.normal(size=(count, 2))
    if name in metrics.CLASSES:
        return rng.normal(size=(count, 3)), rng.integers(0, 3, count)
    return np.exp(rng.normal(size=count)), rng.integers(0, 2, count)


def merged(parts):
    return {key: np.sum([part[key] for part in parts], axis=0) for key in parts[0]}


@settings(max_examples=20)
@given(
    name=st.sampled_from(metrics.NAMES),
    sizes=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
def test_merged_sums_are_the_sums_of_the_pool(name, sizes, seed):
    rng = np.random.default_rng(seed)
    metric = metrics.Metric(name=name, maximum=3.0)
    parts = [example(name, rng, size) for size in sizes]
    pooled = metrics.sums(metric, *(np.concatenate([part[index] for part in parts]) for index in (0, 1)))
    together = merged([metrics.sums(metric, *part) for part in parts])
    assert pooled.keys() == together.keys()
    for key, array in pooled.items():
        np.testing.assert_allclose(together[key], array, atol=1e-9)
    assert metrics.value(metric, together) == pytest.approx(metrics.value(metric, pooled), abs=1e-9)


@settings(max_examples=30)
@given(
    name=st.sampled_from(metrics.NAMES),
    seed=st.integers(0, 2**32 - 1),
    scale=st.floats(0.01, 100),
    entities=st.booleans(),
    wild=st.booleans(),
)
def test_one_unit_changes_the_sums_by_at_most_the_sensitivity(name, seed, scale, entities, wild):
    rng = np.random.default_rng(seed)
    metric = metrics.Metric(name=name, maximum=3.0)
    prediction, target = example(name, rng, 20)
    if wild and name not in metrics.CLASSES:
        prediction.flat[0] = np.nan
    unit = np.repeat(np.arange(4), 5) if entities else None
    left = np.ones(20, bool)
    left[:5] = False if entities else [False, True, True, True, True]

    def of(rows):
        reference = {"reference": prediction[rows]} if name == "f1_at_threshold" else {}
        entity = {} if unit is None else {"unit": unit[rows]}
        if reference and unit is not None:
            reference["reference_unit"] = unit[rows]
        found = metrics.sums(metric, prediction[rows], target[rows], scale=scale, **entity, **reference)
        return np.concatenate([array.ravel() for array in found.values()])

    change = np.linalg.norm(of(np.ones(20, bool)) - of(left))
    assert change <= metrics.sensitivity(metric) + 1e-9


def test_rmse_and_mae_by_hand_in_label_units():
    prediction, target = np.array([[0.1], [0.5]]), np.array([[0.0], [0.2]])
    found = metrics.sums(RMSE, prediction, target, scale=10.0)
    assert metrics.value(RMSE, found) == pytest.approx(math.sqrt((1 + 9) / 2))
    mae = metrics.Metric(name="mae", maximum=10.0)
    assert metrics.value(mae, metrics.sums(mae, prediction, target, scale=10.0)) == pytest.approx(2.0)
    # Without a maximum the same figure, unclipped.
    assert metrics.value("rmse", metrics.sums("rmse", prediction, target, scale=10.0)) == pytest.approx(math.sqrt(5))


def test_errors_are_clipped_at_the_maximum_and_nan_counts_as_the_worst():
    prediction, target = np.array([[100.0], [np.nan]]), np.zeros((2, 1))
    assert metrics.value(RMSE, metrics.sums(RMSE, prediction, target)) == pytest.approx(10.0)
    assert metrics.exact(RMSE, prediction[:1], target[:1]) == pytest.approx(100.0)


def test_accuracy_and_macro_f1_by_hand():
    logits = np.array([[2.0, 1.0], [2.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    truth = np.array([0, 1, 1, 1])
    assert metrics.value("accuracy", metrics.sums("accuracy", logits, truth)) == 0.75
    # Class 0: precision 1/2, recall 1, F1 2/3. Class 1: precision 1, recall 2/3, F1 4/5.
    assert metrics.value("macro_f1", metrics.sums("macro_f1", logits, truth)) == pytest.approx((2 / 3 + 4 / 5) / 2)
    binary = np.array([[1.0], [-1.0]])
    assert metrics.value("accuracy", metrics.sums("accuracy", binary, np.array([1, 1]))) == 0.5


def test_entities_weigh_the_same_whatever_their_size():
    prediction = np.array([[1.0], [1.0], [1.0], [3.0]])
    found = metrics.sums("mae", prediction, np.zeros((4, 1)), unit=np.array([5, 5, 5, 8]))
    assert found["count"][0] == 2.0
    assert metrics.value("mae", found) == pytest.approx(2.0)


def test_ranking_by_hand():
    score, truth = np.array([0.1, 0.2, 0.4, 0.8]), np.array([0, 1, 0, 1])
    for name, expected in (("auroc", 0.75), ("best_f1", 0.8)):
        assert metrics.value(name, metrics.sums(name, score, truth)) == pytest.approx(expected)
        assert metrics.exact(name, score, truth) == pytest.approx(expected)
    found = metrics.sums("f1_at_threshold", score, truth)
    assert metrics.value("f1_at_threshold", found, threshold=0.3) == pytest.approx(0.5)
    assert metrics.exact("f1_at_threshold", score, truth, threshold=0.3) == pytest.approx(0.5)


@pytest.mark.parametrize("spread", [0.1, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("separation", [0.3, 1.0, 3.0])
def test_histogram_figures_are_close_to_exact(spread, separation):
    rng = np.random.default_rng(1)
    truth = (rng.random(5000) < 0.2).astype(int)
    score = np.exp(spread * (rng.normal(size=5000) + separation * truth))
    for name, tolerance in (("auroc", 0.002), ("best_f1", 0.01)):
        assert metrics.value(name, metrics.sums(name, score, truth)) == pytest.approx(
            metrics.exact(name, score, truth), abs=tolerance
        )
    logits = 2 * (rng.normal(size=(5000, 1)) + separation * truth[:, None])
    assert metrics.value("auroc", metrics.sums("auroc", logits, truth)) == pytest.approx(
        metrics.exact("auroc", logits, truth), abs=0.002
    )


def test_threshold_from_the_reference_scores():
    rng = np.random.default_rng(0)
    normal = np.exp(0.5 * rng.normal(size=20_000))
    metric = metrics.Metric(name="f1_at_threshold")
    score = np.concatenate([np.full(50, 1.0), np.full(50, 9.0)])
    truth = np.repeat([0, 1], 50)
    found = metrics.sums(metric, score, truth, reference=normal)
    assert metrics.value(metric, found) == 1.0
    assert scores.quantile(found["reference"], 0.99) == pytest.approx(np.quantile(normal, 0.99), rel=0.03)
    assert metrics.exact(metric, score, truth, reference=normal) == 1.0


def test_negative_noisy_counts_and_nothing_to_judge():
    assert metrics.value(RMSE, {"error": np.array([-3.0]), "count": np.array([10.0])}) == 0.0
    assert metrics.value(RMSE, {"error": np.array([3.0]), "count": np.array([-1.0])}) is None
    assert metrics.value("accuracy", {"correct": np.array([-1.0, 5.0])}) == 0.0
    assert metrics.value("macro_f1", {"confusion": np.full((3, 3), -1.0)}) is None
    assert metrics.value("auroc", {"histogram": np.full((2, scores.BINS), -1.0)}) is None
    noisy = np.random.default_rng(0).normal(size=(2, scores.BINS))
    assert 0 <= metrics.value("auroc", {"histogram": noisy}) <= 1
    assert metrics.exact("auroc", np.ones(3), np.zeros(3, int)) is None


def test_anomaly_score_is_the_windows_mean_square():
    x, rebuilt = np.zeros((2, 3, 2)), np.zeros((2, 3, 2))
    rebuilt[1, 0, 0] = 3.0
    np.testing.assert_allclose(metrics.anomaly_score(x, rebuilt), [0.0, 1.5])
    assert metrics.anomaly_score(x[:0], rebuilt[:0]).shape == (0,)


def test_wrong_metrics_and_misfits():
    with pytest.raises(ConfigError, match="did you mean rmse"):
        metrics.read("rmsd")
    with pytest.raises(ConfigError, match="no maximum"):
        metrics.sensitivity("rmse")
    with pytest.raises(ConfigError, match="maximum is -1"):
        metrics.read({"name": "rmse", "maximum": -1})
    with pytest.raises(DataError, match="rmse"):
        metrics.sums("rmse", np.zeros((3, 2)), np.zeros(3))
    with pytest.raises(DataError, match="labels 0 to 7"):
        metrics.sums("accuracy", np.zeros((2, 3)), np.array([0, 7]))
    with pytest.raises(DataError):
        metrics.sums("auroc", np.zeros((3, 4)), np.zeros(3))
