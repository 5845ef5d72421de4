"""Dealing units to sites: nothing lost, nothing twice, sizes and mixes as asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsite.protocol.errors import ConfigError
from fedsite.simulations.populations import dealing, heterogeneity
from fedsite.simulations.populations.spec import PartitionSpec

TWELVE = np.repeat([0, 1, 2], 4)  # twelve units of three classes


def dealt(spec: PartitionSpec, classes: np.ndarray, sites: int, seed: int = 0) -> dealing.Places:
    """With a generator of its own."""
    return dealing.deal(spec, classes, int(classes.max()) + 1, sites, np.random.default_rng(seed))


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(["iid", "dirichlet", "shards", "quantity"]),
    units=st.integers(1, 120),
    classes=st.integers(1, 7),
    sites=st.integers(1, 90),
    least=st.integers(1, 4),
    alpha=st.sampled_from([1e-3, 0.1, 1.0, 1e9]),
    sizes=st.sampled_from(["dirichlet", "lognormal"]),
    seed=st.integers(0, 2**31),
)
def test_every_unit_is_used_and_at_most_once_at_a_site(kind, units, classes, sites, least, alpha, sizes, seed):
    label = np.random.default_rng(seed).integers(0, classes, units)
    spec = PartitionSpec(kind=kind, alpha=alpha, minimum=least, labels=least, sizes=sizes)
    if least > units:
        with pytest.raises(ConfigError):
            dealt(spec, label, sites, seed)
        return
    places = dealt(spec, label, sites, seed)
    used = np.bincount(places.rows, minlength=units)
    assert len(places) == sites
    assert used.min() == used.max() >= 1
    assert used[0] == 1 or sites * least > units
    assert places.counts.min() >= least
    pairs = places.site * units + places.rows
    assert len(np.unique(pairs)) == len(pairs)
    again = dealt(spec, label, sites, seed)
    assert (again.rows == places.rows).all()
    assert (again.offsets == places.offsets).all()


def test_iid_sites_are_of_one_size_to_a_unit():
    assert sorted(dealt(PartitionSpec(kind="iid"), TWELVE, 5).counts.tolist()) == [2, 2, 2, 3, 3]


def test_two_shards_of_two_classes_each():
    # Six sites, two shards each: twelve shards of one unit, so each site has two units.
    places = dealt(PartitionSpec(kind="shards", labels=2), TWELVE, 6)
    assert places.counts.tolist() == [2] * 6
    # Three sites with one shard each get one class each.
    alone = dealt(PartitionSpec(kind="shards", labels=1), TWELVE, 3)
    assert (np.sort(alone.histogram(TWELVE, 3), axis=1) == [0, 0, 4]).all()


def test_a_tiny_alpha_leaves_one_class_at_nearly_every_site_and_a_huge_one_evens_them_out():
    label = np.random.default_rng(1).integers(0, 10, 20_000)
    one = dealt(PartitionSpec(kind="dirichlet", alpha=1e-3), label, 200)
    # Whole sites of one class do not come out even: the remainder is spread.
    assert np.mean(one.histogram(label, 10).max(axis=1) / one.counts) > 0.85
    even = dealt(PartitionSpec(kind="dirichlet", alpha=1e9), label, 200)
    expected = 100 * np.bincount(label) / len(label)
    assert np.abs(even.histogram(label, 10) - expected).max() <= 2
    assert one.counts.tolist() == even.counts.tolist() == [100] * 200


def test_the_mixes_are_dirichlet():
    """Of a symmetric Dir(α) a share has the variance (K - 1) / (K² (K α + 1))."""
    label = np.repeat(np.arange(10), 4000)
    share = dealt(PartitionSpec(kind="dirichlet", alpha=1.0), label, 400).histogram(label, 10) / 100
    assert share.var() == pytest.approx(9 / (100 * 11), rel=0.1)
    assert share.mean() == pytest.approx(0.1)


def test_sizes_are_log_normal_above_the_minimum():
    label = np.zeros(100_000, np.int64)
    counts = dealt(PartitionSpec(kind="quantity", sigma=0.5, minimum=3), label, 400).counts
    assert counts.sum() == 100_000
    assert counts.min() >= 3
    assert np.log(counts - 3).std() == pytest.approx(0.5, rel=0.15)
    even = dealt(PartitionSpec(kind="quantity", sigma=0.0), label, 400).counts
    assert even.tolist() == [250] * 400


def test_more_sites_than_units_deal_the_pool_again():
    places = dealt(PartitionSpec(kind="iid", minimum=2), TWELVE, 15)
    # 15 sites of at least 2 are 30 units: three deals, of five sites with 2 or 3 units each.
    assert np.bincount(places.rows).tolist() == [3] * 12
    assert places.counts.tolist() == [2, 3, 2, 3, 2] * 3 or sorted(places.counts[:5]) == [2, 2, 2, 3, 3]
    for first in (0, 5, 10):
        own = np.concatenate([places.at(site) for site in range(first, first + 5)])
        assert sorted(own.tolist()) == list(range(12))


def test_more_units_at_a_site_than_there_are_is_refused():
    with pytest.raises(ConfigError, match="13 units at every site, of 12"):
        dealt(PartitionSpec(kind="iid", minimum=13), TWELVE, 2)


def test_a_hundred_thousand_sites():
    label = np.random.default_rng(0).integers(0, 5, 60_000)
    places = dealt(PartitionSpec(kind="dirichlet", alpha=0.1), label, 100_000)
    assert np.bincount(places.rows).tolist() == [2] * 60_000
    assert set(places.counts.tolist()) == {1, 2}


def test_figures_of_heterogeneity_by_hand():
    assert heterogeneity.gini(np.array([5, 5, 5])) == 0
    assert heterogeneity.gini(np.array([0, 0, 9])) == pytest.approx(2 / 3)
    # Pooled half and half; each site has one class: half of its mass lies elsewhere.
    assert heterogeneity.distance(np.array([[4, 0], [0, 4]])) == pytest.approx(0.5)
    assert heterogeneity.distance(np.array([[3, 3], [1, 1]])) == 0
