"""What `fedsite simulate` is told: every key is listed, typed and checked, and a sweep is Hydra's own."""

from __future__ import annotations

from typing import Any

import pytest

from fedsite.protocol import shape
from fedsite.protocol.errors import ConfigError, ExitCode
from fedsite.simulations.runs import planned, settings, study
from fedsite.simulations.runs.settings import SimulationSettings
from fedsite.simulations.sweeps import sweep


@pytest.fixture(scope="module")
def plain() -> settings.SimulateSettings:
    return settings.compose([])


def keys(value: Any, before: str = "") -> set[str]:
    if not isinstance(value, dict):
        return {before}
    return {key for name, item in value.items() for key in keys(item, f"{before}.{name}")}


def test_the_shipped_file_lists_every_setting_at_its_default(plain: settings.SimulateSettings) -> None:
    # Only keys of conf/ are known to the command line.
    assert plain.simulation == SimulationSettings()
    from omegaconf import OmegaConf

    from fedsite.server.settings import choices

    assert choices("simulation") == ["cross_device", "default", "quick"]
    from importlib import resources

    text = resources.files("fedsite.conf").joinpath("simulation/default.yaml").read_text()
    assert keys(OmegaConf.to_container(OmegaConf.create(text))) == keys(shape.plain(SimulationSettings()))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["simulation.partition.alpa=1"], "did you mean simulation.partition.alpha"),
        (["simulation=quik"], "did you mean quick"),
        (["simulation.partition.kind=dirichle"], "natural, iid, dirichlet, shards, quantity"),
        (["simulation.sites=0"], "1 to 100000"),
        (["simulation.workers=0"], "1 or more"),
        (["simulation.epochs=1"], "both or neither"),
        (["simulation.engine=flow"], "vectorised, flower"),
        (["simulation.attack.kind=flip"], "simulation.attack: kind is 'flip'; allowed: none, label-flip"),
        (["simulation.fleet.speed.spread=9"], "simulation.fleet.speed: spread is 9"),
        (["data.pth=x"], "did you mean data.path"),
        (["tak=pump"], "did you mean task"),
    ],
)
def test_a_wrong_setting_names_what_is_allowed(overrides: list[str], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings.compose(overrides)
    assert expected in str(caught.value)
    assert "simulat" in str(caught.value)
    assert caught.value.exit_code == ExitCode.USAGE


def test_the_plan_is_that_of_launch_and_the_same_every_day() -> None:
    asked = settings.compose(["task=pump", "privacy=none", "simulation.cohort=4", "simulation.sites=9"])
    first, second = planned.plan(asked, 9).plan, planned.plan(asked, 9).plan
    assert first.hash == second.hash
    assert (first.rounds.goal, first.protection.mode, first.task_name) == (4, "secagg", "pump")
    with pytest.raises(ConfigError, match="the same number"):
        planned.plan(settings.compose(["rounds.goal=3", "simulation.cohort=4"]), 9)


def test_how_fast_it_is_computed_is_no_part_of_what(plain: settings.SimulateSettings) -> None:
    assert study.key(settings.compose(["simulation.workers=2", "simulation.baselines.central=false"])) == study.key(
        plain
    )
    assert study.key(settings.compose(["seed=1"])) != study.key(plain)


@pytest.mark.parametrize(
    ("overrides", "cells"),
    [
        (["seed=1"], [("seed=1",)]),
        (["a=1,2", "seed=range(0,2)"], [("a=1", "seed=0"), ("a=1", "seed=1"), ("a=2", "seed=0"), ("a=2", "seed=1")]),
        (["privacy=glob(s*)"], [("privacy=sample",), ("privacy=site",)]),
        (["model.options.hidden=[3,4],[5]"], [("model.options.hidden=[3,4]",), ("model.options.hidden=[5]",)]),
        (["task_file='a b.yaml',c.yaml"], [("task_file=a b.yaml",), ("task_file=c.yaml",)]),
        (["task_file=my task's.yaml"], [("task_file=my task's.yaml",)]),
    ],
)
def test_a_sweep_is_expanded(overrides: list[str], cells: list[tuple[str, ...]]) -> None:
    assert sweep.cells(overrides) == cells


@pytest.mark.parametrize(
    "override", ["seed", "seed=[1", "seed=range(3,0)", "seed=range(0,3,0)", "x=interval(0,1)", "seed=range(0,99999)"]
)
def test_a_sweep_over_nothing_or_too_much_is_refused(override: str) -> None:
    with pytest.raises(ConfigError):
        sweep.cells([override])
