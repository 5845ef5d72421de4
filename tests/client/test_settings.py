"""The operator's settings: what is written wins in order, what is wrong is named with file, key and nearest name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.client.settings import FILE, PolicySettings, Settings, load
from fedsite.protocol.errors import ConfigError
from fedsite.protocol.output import exit_code


def test_without_a_file_the_careful_defaults_hold(tmp_path: Path) -> None:
    found = load(tmp_path)
    assert found == Settings()
    assert found.policy.require_privacy
    assert found.policy.minimum_protection == "sealed"
    assert found.policy.cohort_min == 3


def test_overrides_win_over_the_file_and_keep_what_they_do_not_name(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("data: {path: a.csv, seed: 4}\npolicy: {epsilon_max: 3, tasks: [pump]}\n")
    found = load(tmp_path, ["data.path=7", "policy.epsilon_max=2.5", "data.tasks.pump.site=pump-2"])
    assert (found.data.path, found.data.seed) == ("7", 4)  # a path is text
    assert (found.policy.epsilon_max, found.policy.tasks) == (2.5, ("pump",))
    assert found.source("pump").site == "pump-2"
    assert found.source("ward").site is None


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.pth=x", ["data.pth", "did you mean path?"]),
        ("polcy.tasks=[a]", ["polcy", "did you mean policy?"]),
        ("policy.epsilon_max=lots", ["policy.epsilon_max", "'lots'", "a number"]),
        ("policy.epsilon_max=-1", ["policy", "epsilon_max is -1", "0.0 to"]),
        ("policy.minimum_protection=seal", ["'seal'", "secagg, sealed, none"]),
        ("policy.cohort_min=1", ["policy", "cohort_min is 1", "2 to"]),
        ("policy.colluding_min=-1", ["policy", "colluding_min is -1", "0 to"]),
        ("policy.require_privacy=1", ["true or false"]),
        ("policy.tasks=[pump@sha256:abcdef0123456789]", ["pump@sha256:abcdef", "all 64 digits", "policy test"]),
        ("policy.tasks=['pump@SHA256:" + "AB" * 32 + "']", ["NAME@sha256:HASH", "lower case"]),
        ("policy.tasks=['']", ["tasks holds ''"]),
        ("policy.units=[sample]", ["policy.units[0] is 'sample'", "window, entity, site"]),
        ("policy.units=entity", ["policy.units is 'entity'", "a list"]),
        ("policy.approval=always", ["'always'", "automatic, once, each"]),
        ("policy.hours=22:00-06:00", ["policy.hours is '22:00-06:00'", "a list"]),
        ("policy.hours=[late]", ["hours 'late'", "22:00-06:00"]),
        ("policy.epsilon_round=-1", ["epsilon_round is -1", "0.0 to"]),
        ("policy.max_celsius=500", ["max_celsius is 500", "200"]),
        ("policy.cpu_threads=0", ["cpu_threads is 0", "1 to"]),
        ("policy.niceness=-5", ["niceness is -5", "0 to 19"]),
        ("agent.metered=maybe", ["agent.metered is 'maybe'", "auto"]),
        ("nothing", ["'nothing'", "key=value"]),
        ("data.tasks.pump.sit=1", ["data.tasks.pump.sit", "did you mean site?"]),
        ("agent.idle_worker_s={", ["override agent.idle_worker_s, line 1", "YAML"]),
        ("data.path=", ["data.path is empty", "data.path=FILE_OR_FOLDER"]),
        ("data.tasks.pump.path= ", ["data.tasks.pump.path is empty"]),
    ],
)
def test_a_wrong_override_is_named(tmp_path: Path, override: str, words: list[str]) -> None:
    with pytest.raises(Exception) as error:  # noqa: PT011 - two layers' errors, both with exit code 2
        load(tmp_path, [override])
    assert exit_code(error.value) == 2
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data: [", ["site.yaml", "line"]),
        ("data:\n  path: a\n  path: b\n", ["site.yaml", "path"]),
        ("- a\n", ["site.yaml", "list"]),
        ("policy: {epsilon: 3}\n", ["site.yaml", "policy.epsilon", "epsilon_max"]),
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "site.yaml").write_text(text)
    with pytest.raises(Exception) as error:  # noqa: PT011
        load(tmp_path)
    assert exit_code(error.value) == 2
    for word in words:
        assert word in str(error.value)


def test_the_operators_file_may_be_empty(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("# nothing yet\n")
    assert load(tmp_path) == Settings()
    with pytest.raises(ConfigError):
        load(tmp_path, ["=3"])


def test_the_training_process_is_never_given_less_than_it_starts_with(tmp_path: Path) -> None:
    assert load(tmp_path).agent.worker_memory is None
    assert load(tmp_path, ["agent.worker_memory=2000000000"]).agent.worker_memory == 2_000_000_000
    assert load(tmp_path, ["agent.worker_memory=0"]).agent.worker_memory == 0
    with pytest.raises(ConfigError, match="worker_memory is 1000"):
        load(tmp_path, ["agent.worker_memory=1000"])


NAMES = [field.name for field in dataclasses.fields(PolicySettings)]
WORDS = st.sampled_from(
    ["once", "none", "window", "pump@sha256:" + "a" * 64, "pump@sha256:aa", "22:00-06:00", "25:00-1:00"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | WORDS
VALUES = st.recursive(
    SCALARS, lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=5), one, max_size=3), max_leaves=6
)
SECTIONS = st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=12), VALUES, max_size=4) | VALUES


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any")


@given(SECTIONS)
def test_any_value_of_the_policy_is_a_policy_or_is_named(folder: Path, section: Any) -> None:
    """JSON is YAML; its NaN and Infinity are words there."""
    kept_or_named(folder, json.dumps({"policy": section}).encode())


@given(
    st.binary(max_size=200)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=200).map(
        lambda text: f"policy:\n  {text}".encode("utf-8", "replace")
    )
)
def test_any_bytes_are_settings_or_are_named(folder: Path, data: bytes) -> None:
    kept_or_named(folder, data)


def kept_or_named(folder: Path, data: bytes) -> None:
    """The settings that these bytes are, whole and in range; or what is wrong, what would be right, and what to do."""
    (folder / FILE).write_bytes(data)
    found: Any = read_or_error(folder)
    if isinstance(found, Exception):
        assert exit_code(found) == 2, repr(found)
        assert FILE in found.found  # type: ignore[attr-defined]
        assert found.allowed or found.next_step  # type: ignore[attr-defined]
        return
    assert dataclasses.replace(found.policy) == found.policy  # checked again


def read_or_error(folder: Path) -> Settings | Exception:
    try:
        return load(folder)
    except Exception as error:
        return error
