"""What the demo is told is sorted and checked before anything starts."""

from pathlib import Path

import pytest
from rich.console import Console

from fedsite.protocol.errors import ConfigError
from fedsite.simulations.demo import story as demo
from fedsite.telemetry.errors import TelemetryError


def test_by_default_the_pump_runs_privately() -> None:
    options = demo.read([])
    assert options.task.name == "pump"
    assert options.asked.privacy.mode == "sample"
    assert options.asked.privacy.epsilon == 8.0


def test_own_keys_stay_and_the_rest_goes_to_launch() -> None:
    options = demo.read(["sites=2", "seed=5", "out=elsewhere", "privacy=none", "rounds.count=3"])
    assert (options.sites, options.seed, options.out) == (2, 5, Path("elsewhere"))
    assert options.launch == ("privacy=none", "rounds.count=3", "seed=5")
    assert options.asked.rounds.count == 3


def test_a_target_without_a_mode_means_privacy() -> None:
    options = demo.read(["privacy.epsilon=2"])
    assert (options.asked.privacy.mode, options.asked.privacy.epsilon) == ("sample", 2.0)


def test_an_experiment_brings_its_own_privacy() -> None:
    options = demo.read(["experiment=pump_window"])
    assert options.asked.privacy.unit == "window"
    assert "privacy=sample" not in options.launch


@pytest.mark.parametrize(
    ("argument", "found"),
    [
        ("sites=none", "sites is 'none'"),
        ("sites=0", "sites is '0'"),
        ("seed=-1", "seed is '-1'"),
        ("keep=maybe", "keep is 'maybe'"),
        ("out=", "out is empty"),
        ("data.path=", "data.path is empty"),
        ("rounds.cuont=3", "unknown override rounds.cuont"),
        ("privacy=maximum", "privacy=maximum"),
        ("fast", "argument 'fast'"),
    ],
)
def test_what_means_nothing_is_refused(argument: str, found: str) -> None:
    with pytest.raises(ConfigError, match=found) as raised:
        demo.read([argument])
    assert raised.value.allowed
    assert raised.value.next_step or "sites" in found


def test_an_unknown_task_is_named_with_the_nearest() -> None:
    with pytest.raises(TelemetryError) as raised:
        demo.read(["task=pmup"])
    assert "did you mean pump?" in raised.value.allowed


def refused(tmp_path: Path, *arguments: str) -> Exception:
    """The error that ends a demo before it set anything up."""
    options = demo.read([f"out={tmp_path / 'out'}", *arguments])
    with pytest.raises(Exception) as raised:  # noqa: PT011 - of whichever layer knows
        demo.play(options, Console(quiet=True))
    assert not list(tmp_path.rglob("ca.key"))
    return raised.value


def test_what_no_site_or_server_would_take_is_told_before_anything_starts(tmp_path: Path) -> None:
    many = refused(tmp_path, "sites=101")
    assert (str(many.found), "1 to 100" in many.allowed) == ("sites=101", True)  # type: ignore[attr-defined]
    assert "/nonexistent.csv does not exist" in str(refused(tmp_path, "data.path=/nonexistent.csv"))
    assert "count is -1" in str(refused(tmp_path, "rounds.count=-1", "privacy=none"))


def test_a_folder_that_no_demo_made_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "out" / "state" / "thesis.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("years of work")
    assert "not what a demo left" in str(refused(tmp_path))
    assert precious.read_text() == "years of work"
