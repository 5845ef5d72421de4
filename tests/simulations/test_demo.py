"""What the demo is told is sorted and checked before anything starts."""

from pathlib import Path

import pytest

from fedsite.protocol.errors import ConfigError
from fedsite.simulations import demo
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
