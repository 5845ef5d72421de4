"""Every group, every experiment and every task composes into a plan; wrong words get the nearest right one."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedsite.protocol.errors import ConfigError, ExitCode, FedsiteError
from fedsite.protocol.plan import RoundPlan
from fedsite.server import settings
from fedsite.server.plans import planning
from fedsite.telemetry.task import shipped_names

FEDERATION = "0" * 32
CHOICES = [(group, name) for group in settings.GROUPS for name in settings.choices(group)]


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_choice_composes(group: str, name: str) -> None:
    found = settings.compose([f"{group}={name}"])
    assert found.rounds.minimum is None or found.rounds.minimum >= 1


@pytest.mark.parametrize("name", shipped_names())
def test_every_task_has_a_plan_that_both_ends_read(name: str) -> None:
    planned = planning.make(settings.compose([f"task={name}"]), FEDERATION)
    assert RoundPlan.parse(planned.plan.encode()) == planned.plan
    assert planned.plan.model.parameters > 0
    assert set(planned.trained) <= set(planned.initial)


def test_the_first_example_is_the_default() -> None:
    found = settings.compose([])
    assert (found.task, found.protection.mode) == ("pump", "secagg")
    assert (found.privacy.mode, found.privacy.epsilon) == ("sample", 8.0)  # sites refuse a run without privacy


def test_overrides_win_over_experiments_and_these_over_groups() -> None:
    found = settings.compose(
        ["experiment=engine_rul_private", "privacy.epsilon=2", "rounds=patient", "rounds.minimum=5"]
    )
    assert (found.task, found.privacy.epsilon, found.privacy.delta) == ("engine_rul", 2.0, 1e-5)
    assert (found.rounds.minimum, found.rounds.deadline_s) == (5, 3600.0)


def test_paths_and_globs_are_taken_as_they_stand() -> None:
    found = settings.compose(["task_file=my task's=1.yaml", "model.trainable=*.weight", "model.options.hidden=[3, 4]"])
    assert found.task_file == "my task's=1.yaml"
    assert found.model.trainable == "*.weight"
    assert found.model.options == {"hidden": [3, 4]}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("rounds.cont=3", "did you mean rounds.count"),
        ("privcy=none", "did you mean privacy"),
        ("privacy=smple", "did you mean sample"),
        ("strategy=fedvag", "did you mean fedavg"),
        ("experiment=engine_rul", "did you mean engine_rul_"),
        ("rounds.count=abc", "an integer"),
        ("rounds.count", "key=value"),
        ("local=3", "sets a whole section"),
        ("data.path=x", "at the site: fedsite up data.path=x"),
        ("rounds.count=[1", "rounds.count=[1"),
        ("+x=1", "key=value"),
    ],
)
def test_a_wrong_override_names_what_is_allowed(override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings.compose([override])
    assert expected in str(caught.value)
    assert caught.value.exit_code == ExitCode.USAGE


def test_an_epsilon_without_privacy_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"privacy=sample privacy\.epsilon=4"):
        settings.compose(["privacy=none", "privacy.epsilon=4"])


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["task=pumpp"], "did you mean pump"),
        (["model.name=mlpp"], "did you mean mlp"),
        (["model.options.hiden=[3]"], "did you mean hidden"),
        (["model.trainable=nothing*"], "matches no parameter"),
        (["model.init=missing.safetensors"], "missing.safetensors"),
        (["local.optimizer=sdg"], "sgd, adam"),
        (["local.learning_rate=-1"], "learning_rate is -1"),
        (["rounds.goal=1", "rounds.minimum=2"], "goal is 1"),
        (["strategy.options.server_learning_rte=1"], "did you mean server_learning_rate"),
        (["task_file=missing.yaml"], "missing.yaml"),
        (["task_file=task.txt"], "a .yaml file"),
        (["privacy=sample", "privacy.unit=patient"], "window, entity"),
    ],
)
def test_a_wrong_value_is_refused_before_anything_starts(overrides: list[str], expected: str) -> None:
    with pytest.raises(FedsiteError) as caught:
        planning.make(settings.compose(overrides), FEDERATION)
    assert expected in str(caught.value)
    assert caught.value.exit_code == ExitCode.USAGE


def test_malformed_yaml_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("schema: fedsite.task/1\nname: mine\nchannels: [\n  {name: a\n")
    with pytest.raises(ConfigError) as caught:
        planning.make(settings.compose([f"task_file={path}"]), FEDERATION)
    assert "mine.yaml" in str(caught.value)
    assert "line" in str(caught.value)
