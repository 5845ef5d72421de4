"""Sites built of toy data: classes, holdouts, entities, sensors and drift, with numbers that can be checked by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fedsite.protocol.errors import ConfigError
from fedsite.simulations.populations import heterogeneity
from fedsite.simulations.populations.building import build
from fedsite.simulations.populations.sites import Sites
from fedsite.simulations.populations.spec import DriftSpec, PartitionSpec, ShiftSpec
from fedsite.telemetry.dataset import SiteData, Windows
from fedsite.telemetry.task import Task, read_task

DOCUMENT = {
    "schema": "fedsite.task/1",
    "name": "toy",
    "data": {"source": "file", "file": "toy.csv", "format": "csv"},
    "channels": [{"name": name, "unit": "1", "minimum": -100.0, "maximum": 100.0} for name in ("a", "b")],
    "window": {"length": 4},
    "label": {"kind": "column", "column": "state", "classes": ["good", "worn", "bad"]},
    "split": {"kind": "time", "fraction": 0.25},
    "model": {"name": "mlp", "options": {"hidden": [4]}},
    "loss": "cross_entropy",
    "metric": {"name": "accuracy", "better": "higher", "unit": "1"},
    "training": {"rounds": 2, "local": {"steps": 2, "sampling_rate": 0.5, "learning_rate": 0.1}},
}


def windows(count: int, seed: int, *, each: int = 5) -> Windows:
    """Entities of `each` windows; a third of the windows of each class."""
    rng = np.random.default_rng(seed)
    return Windows(
        x=rng.normal(10.0, 2.0, (count, 4, 2)).astype(np.float32),
        y=np.arange(count) % 3,
        entity=np.arange(count) // each,
        entities=tuple(f"e{number}" for number in range(-(-count // each))),
        time=np.arange(count, dtype=np.float64),
    )


def data(train: int = 60, holdout: int = 20, seed: int = 0) -> SiteData:
    """One site; the entities of the holdout are those of the first training windows."""
    return SiteData(
        train=windows(train, seed),
        holdout=windows(holdout, seed + 1),
        features=("a", "b"),
        minimum=np.full(2, -100.0, np.float32),
        maximum=np.full(2, 100.0, np.float32),
        overlap=1,
    )


@pytest.fixture(scope="module")
def task() -> Task:
    return read_task(DOCUMENT)


def built(task: Task, kind: str, sites: int | None = None, **options: object) -> Sites:
    """Of two loaded sites."""
    given = {name: options.pop(name) for name in ("shift", "drift", "seed") if name in options}
    loaded = {"north": data(), "south": data(30, 10, seed=5)}
    return build(task, loaded, partition=PartitionSpec(kind=kind, **options), sites=sites, **given)


def test_natural_sites_are_as_loaded(task):
    sites = built(task, "natural")
    assert list(sites) == ["north", "south"]
    for name, size in (("north", 60), ("south", 30)):
        assert len(sites[name].train) == size
        np.testing.assert_array_equal(sites[name].train.x, data(size, seed=0 if size == 60 else 5).train.x)
    repeated = built(task, "natural", 5)
    assert repeated.train.counts.tolist() == [60, 30, 60, 30, 60]
    assert repeated.deals == 3
    assert built(task, "natural", 1).train.counts.tolist() == [60]


@pytest.mark.parametrize("kind", ["natural", "iid", "dirichlet", "shards", "quantity"])
def test_the_population_holds_what_the_mapping_holds(task, kind):
    sites = built(task, kind, 4 if kind != "natural" else None, shift=ShiftSpec(gain=0.2, offset=1.0))
    population = sites.population()
    for number, name in enumerate(sites):
        own = slice(population.offsets[number], population.offsets[number + 1])
        one = sites[name]
        np.testing.assert_array_equal(one.train.x, population.x[own])
        np.testing.assert_array_equal(one.train.y, population.y[own])
        np.testing.assert_array_equal(one.train.entity, population.entity[own])
    whole = sites.joined()
    assert len(whole.holdout) == 30
    np.testing.assert_array_equal(whole.holdout.x, np.concatenate([one.holdout.x for one in sites.values()]))


def test_the_holdout_has_the_labels_of_the_training_windows(task):
    sites = built(task, "shards", 3, labels=1)
    for one in sites.values():
        assert set(one.train.y) == set(one.holdout.y)
        assert len(set(one.train.y)) == 1
        assert len(one.train) == 30
    assert sorted(sites.holdout.counts.tolist()) == [9, 10, 11]  # of the three labels


def test_entities_stay_together_where_they_are_the_unit(task):
    sites = built(task, "quantity", 4, unit="entity")
    assert heterogeneity.measure(sites).split_entities == 0
    homes: dict[int, set[str]] = {}
    for name, one in sites.items():
        for entity in (*one.train.entity, *one.holdout.entity):
            homes.setdefault(int(entity), set()).add(name)
    assert len(homes) == 18
    assert all(len(found) == 1 for found in homes.values())
    assert heterogeneity.measure(built(task, "iid", 4)).split_entities == 18
    assert built(task, "iid", 4).unit == "window"
    assert build(task, {"a": data()}, partition=PartitionSpec(kind="iid"), sites=2, unit="entity").unit == "entity"
    with pytest.raises(ConfigError, match="2 units at every site, of 1"):
        build(task, {"a": data(5, 0)}, partition=PartitionSpec(kind="iid", unit="entity", minimum=2), sites=1)


def test_real_labels_are_cut_into_bins_and_inputs_into_clusters(task):
    loaded = data()
    real = dataclasses.replace(loaded, train=dataclasses.replace(loaded.train, y=np.arange(60, dtype=np.float32)))
    real = dataclasses.replace(real, holdout=dataclasses.replace(real.holdout, y=np.full(20, 1e9, np.float32)))
    found = build(task, {"a": real}, partition=PartitionSpec(kind="iid", bins=6)).classes
    assert (found.by, found.count) == ("label bins", 6)
    assert np.bincount(found.train).tolist() == [10] * 6
    assert set(found.holdout) == {5}
    apart = np.where(np.arange(60) % 2, 50.0, -50.0).astype(np.float32)
    far = dataclasses.replace(loaded, train=dataclasses.replace(loaded.train, x=loaded.train.x + apart[:, None, None]))
    found = build(task, {"a": far}, partition=PartitionSpec(kind="iid", by="cluster", bins=2)).classes
    assert (found.by, found.count) == ("cluster", 2)
    assert abs(int(found.train[::2].sum()) - int(found.train[1::2].sum())) == 30


def test_sensors_are_shifted_by_site_and_channel(task):
    sites = built(task, "iid", 200, shift=ShiftSpec(gain=0.1, offset=0.5), seed=3)
    gain, offset = sites.sensors.drawn(np.arange(200), 0)
    assert np.log(gain).std() == pytest.approx(0.1, rel=0.15)
    assert (offset / sites.sensors.spread).std() == pytest.approx(0.5, rel=0.15)
    plain = built(task, "iid", 200, seed=3)
    name = "site-007"
    moved = (plain[name].train.x - sites.sensors.centre) * gain[7] + sites.sensors.centre + offset[7]
    np.testing.assert_allclose(sites[name].train.x, moved, rtol=1e-5)
    # What a site's sensors are does not depend on how many sites there are.
    np.testing.assert_array_equal(sites.sensors.drawn(np.array([7]), 0)[0][0], gain[7])


def test_drift_grows_by_phases_and_labels_become_rare(task):
    drift = DriftSpec(every=10, phases=3, offset=1.0, prior=1.0)
    sites = built(task, "iid", 3, drift=drift)
    assert [sites.phase_of(number) for number in (1, 10, 11, 20, 21, 99)] == [0, 0, 1, 1, 2, 2]
    assert sites.phases(25) == ((1, 10), (11, 20), (21, 25))
    assert sites.phases(5) == ((1, 5),)
    assert sites.at(3) is sites
    np.testing.assert_allclose(sites.sensors.drawn(np.arange(3), 2)[1], 2 * sites.sensors.drawn(np.arange(3), 1)[1])
    last, kept = sites.at(30), sites.kept_labels()
    own = sites.train.histogram(sites.classes.train, 3)
    assert last.population().counts.tolist() == own[np.arange(3), kept].tolist()
    for number, one in enumerate(last.values()):
        assert set(one.train.y) | set(one.holdout.y) == {kept[number]}
    half = sites.at(15)
    assert (half.train.counts > last.train.counts).all()
    assert (half.train.counts < sites.train.counts).all()
    assert set(last.train.rows) <= set(half.train.rows)
    assert last.at(1).train is sites.train
    assert built(task, "iid", 3).phases(25) == ((1, 25),)


def test_features_move_as_their_channel_does():
    document = DOCUMENT | {"features": [{"kind": kind, "channels": ["b"]} for kind in ("mean", "std", "max")]}
    loaded = data()
    x = np.tile(np.float32([10.0, 2.0, 12.0]), (60, 1, 1)) + np.linspace(-1, 1, 60, dtype=np.float32)[:, None, None]
    loaded = dataclasses.replace(
        loaded, train=dataclasses.replace(loaded.train, x=x), features=("b.mean", "b.std", "b.max"),
        holdout=loaded.holdout.take(np.arange(0)), minimum=np.full(3, -1e3, np.float32),
        maximum=np.full(3, 1e3, np.float32),
    )  # fmt: skip
    sites = build(read_task(document), {"a": loaded}, shift=ShiftSpec(gain=0.3, offset=2.0))
    gain, offset = sites.sensors.drawn(np.array([0]), 0)
    assert len(set(gain[0])) == 1
    assert offset[0, 1] == 0
    assert offset[0, 0] == offset[0, 2] != 0
    found = sites["a"].train.x[:, 0]
    np.testing.assert_allclose(found[:, 1], x[:, 0, 1] * gain[0, 0], rtol=1e-5)
    np.testing.assert_allclose(found[:, 2] - found[:, 0], 2.0 * gain[0, 0], rtol=1e-4)


def test_specs_refuse_what_cannot_be():
    for spec, options in (
        (PartitionSpec, {"alpha": 0.0}), (PartitionSpec, {"minimum": 0}), (ShiftSpec, {"gain": -1.0}),
        (DriftSpec, {"phases": 1}), (DriftSpec, {"prior": 1.5}),
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            spec(**options)
    with pytest.raises(ConfigError, match="100001"):
        built(read_task(DOCUMENT), "iid", 100_001)
