"""From named values to the vector of a sum and back: weights, missing sums, shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedsite.client.work.protect import vector
from fedsite.privacy.sampling import SeededSource
from fedsite.protocol.errors import IntegrityError
from fedsite.protocol.secagg import fixedpoint
from fedsite.protocol.secagg.fixedpoint import Field
from fedsite.protocol.secagg.manifest import Manifest

SOURCE = SeededSource(0)


def manifest(*fields: Field, **changes: Any) -> Manifest:
    values: dict[str, Any] = {"purpose": "train", "plan_hash": "0" * 64, "sites": 4, "fields": fields}
    return Manifest(**(values | changes))


def decoded(terms: Manifest, *vectors: bytes) -> dict[str, Any]:
    """The sum of vectors, as the server reads it."""
    total = np.zeros(terms.words, np.uint32)
    for data in vectors:
        total += np.frombuffer(data, "<u4").astype(np.uint32)
    return fixedpoint.decode(terms.fields, fixedpoint.from_ring(total), terms.scales, sites=terms.sites)


def test_two_sites_weigh_what_they_have() -> None:
    terms = manifest(
        Field(name="delta/w", shape=(2,), bound=4.0, weighted=True),
        Field(name="loss", shape=(1,), bound=1e4, weighted=True, wide=True),
        Field(name="weight", shape=(1,), bound=1.0, weighted=True),
        examples_max=1 << 16,
    )
    one = {"delta/w": np.array([1.0, -1.0]), "loss": np.array([0.5]), "weight": np.array([100.0])}
    other = {"delta/w": np.array([3.0, 1.0]), "loss": np.array([2.5]), "weight": np.array([300.0])}
    found = decoded(terms, vector(one, terms, SOURCE), vector(other, terms, SOURCE))
    share = found["weight"][0]
    assert share * (1 << 16) == pytest.approx(400.0, rel=1e-6)
    assert found["delta/w"] / share == pytest.approx([2.5, 0.5], abs=1e-5)
    assert found["loss"] / share == pytest.approx([2.0], abs=1e-5)
    assert one["weight"] == [100.0]  # the caller's own


def test_without_weighted_fields_every_site_weighs_one() -> None:
    terms = manifest(Field(name="delta/w", shape=(2, 2), bound=1.0))
    values = {"delta/w": np.array([[0.5, 2.0], [-3.0, np.nan]]), "weight": np.array([1.0])}
    found = decoded(terms, vector(values, terms, SOURCE), vector(values, terms, SOURCE))
    assert found["delta/w"] == pytest.approx(np.array([[1.0, 2.0], [-2.0, 0.0]]), abs=1e-8)


def test_sums_that_a_site_has_not_are_zeros_and_updates_are_not() -> None:
    fields = [Field(name=f"{name}/count", shape=(2,), bound=9.0, wide=True) for name in ("evaluation", "parity")]
    terms = manifest(*fields, purpose="evaluate")
    found = decoded(terms, vector({"parity/count": np.array([1.0, 2.0])}, terms, SOURCE))
    assert found["evaluation/count"].tolist() == [0.0, 0.0]
    assert found["parity/count"] == pytest.approx([1.0, 2.0], abs=1e-6)
    delta = manifest(Field(name="delta/w", shape=(2,), bound=1.0))
    for values in ({}, {"delta/w": np.zeros(3)}):
        with pytest.raises(IntegrityError, match="delta/w"):
            vector(values, delta, SOURCE)


def test_a_vector_is_little_endian_words() -> None:
    terms = manifest(Field(name="delta/w", shape=(1,), bound=float((2**31 - 1) // 4 - 1)))  # one step is one
    assert vector({"delta/w": np.array([-2.0])}, terms, SOURCE) == b"\xfe\xff\xff\xff"
