"""Attackers change their own rows and gains, and nobody else's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedsite.protocol.errors import ConfigError
from fedsite.simulations.attacks.poison import attackers, poison, triggered
from fedsite.simulations.attacks.spec import KINDS, AttackSpec, Trigger
from fedsite.simulations.vectorised.population import Population

LABELS = ("label-flip", "backdoor")


def people(values: bool = False) -> Population:
    """Five sites of four windows of 3 x 2; classes 0, 1, 2, 0 at each."""
    x = np.arange(5 * 4 * 6, dtype=np.float32).reshape(20, 3, 2) / 100
    y = np.tile([0, 1, 2, 0], 5)
    return Population(
        x=x,
        y=y.astype(np.float32)[:, None] if values else y,
        offsets=np.arange(0, 21, 4),
        entity=np.zeros(20, np.int64),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mapped", [False, True], ids=["held", "mapped"])
def test_honest_rows_stay_and_what_was_given_is_not_changed(kind: str, mapped: bool, tmp_path: Path) -> None:
    given = people()
    if mapped:
        given.save(tmp_path)
        given = Population.open(tmp_path)
    found = poison(given, AttackSpec(kind=kind, share=0.4, scale=3.0, target=2, fraction=1.0), seed=7)
    honest = ~np.isin(np.repeat(np.arange(5), 4), found.sites)
    for name in ("x", "y", "entity", "offsets"):
        before, after = getattr(given, name), getattr(found.population, name)
        assert np.array_equal(before, getattr(people(), name))
        assert np.array_equal(
            after if name == "offsets" else after[honest], before if name == "offsets" else before[honest]
        )
    assert len(found.sites) == (0 if kind == "none" else 2)
    changed = not np.array_equal(found.population.x, given.x) or not np.array_equal(found.population.y, given.y)
    assert changed == (kind in (*LABELS, "random"))
    assert (found.population.folder is None) == (changed or not mapped)


def test_what_each_attacker_does() -> None:
    def run(kind: str, **more: object) -> tuple[Population, list[float] | None]:
        found = poison(people(), AttackSpec(kind=kind, share=1.0, **more), seed=1)  # type: ignore[arg-type]
        return found.population, None if found.gains is None else found.gains.tolist()

    assert run("sign-flip", scale=2.0)[1] == [-2.0] * 5
    assert run("scaled", scale=10.0)[1] == [10.0] * 5
    assert run("free-rider")[1] == [0.0] * 5
    flipped, gains = run("label-flip", source=0, target=1)
    assert flipped.y.tolist() == [1, 1, 2, 1] * 5
    assert gains is None
    assert run("label-flip", target=2)[0].y.tolist() == [2] * 20
    back, gains = run("backdoor", scale=5.0, target=1, fraction=1.0, trigger=Trigger(steps=1, features=2, value=9.0))
    assert back.y.tolist() == [1] * 20
    assert (back.x[:, 2] == 9.0).all()
    assert np.array_equal(back.x[:, :2], people().x[:, :2])
    assert gains == [5.0] * 5


def test_labels_that_are_values_become_the_target() -> None:
    found = poison(people(values=True), AttackSpec(kind="label-flip", share=0.2, target=0.5), seed=1)
    own = np.repeat(np.arange(5), 4) == found.sites[0]
    assert found.population.y.shape == (20, 1)
    assert (found.population.y[own] == 0.5).all()


def test_attackers_follow_the_seed() -> None:
    assert attackers(50, 0.2, 3).tolist() == attackers(50, 0.2, 3).tolist() != attackers(50, 0.2, 4).tolist()
    assert len(attackers(50, 0.2, 3)) == 10
    assert len(attackers(3, 0.01, 3)) == 1


def test_attacks_that_cannot_be_are_refused() -> None:
    unlabelled = Population(
        x=np.zeros((2, 1, 1), np.float32),
        y=np.zeros(0, np.float32),
        offsets=np.array([0, 2]),
        entity=np.zeros(2, np.int64),
    )
    with pytest.raises(ConfigError, match="without labels"):
        poison(unlabelled, AttackSpec(kind="label-flip"), 0)
    with pytest.raises(ConfigError, match="class 5"):
        poison(people(), AttackSpec(kind="label-flip", target=5), 0)
    with pytest.raises(ConfigError, match="labels are values"):
        poison(people(values=True), AttackSpec(kind="label-flip", source=1), 0)
    with pytest.raises(ConfigError, match="trigger of 4 readings"):
        triggered(people().x, Trigger(steps=4))
    with pytest.raises(ConfigError, match=r"kind is 'ddos'"):
        AttackSpec(kind="ddos")
    with pytest.raises(ConfigError, match="share is 0"):
        AttackSpec(share=0.0)
    with pytest.raises(ConfigError, match="steps is 0"):
        Trigger(steps=0)
