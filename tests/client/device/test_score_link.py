"""Scoring in a process of its own: the same scores as here, by the release that is installed now, and an end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsite.client.device.release_scorer import ReleaseScorer
from fedsite.client.device.score_child import CHECK_S, Scoring
from fedsite.client.device.score_link import ScoreLink
from fedsite.client.device.slots import CURRENT, MODEL, Slots
from fedsite.client.identity.site import Site
from fedsite.protocol import local_pb2, release
from fedsite.protocol.errors import ConfigError, DataError, IntegrityError

pytest.importorskip("onnx", reason="pip install 'fedsite[server]'")
from tests.toy_release import linear, signed

pytest.importorskip("onnxruntime", reason="pip install 'fedsite[score]'")

FEATURES = 11
X = np.random.default_rng(3).normal(size=(4, 1, FEATURES)).astype(np.float32)


def install(kit: Any, version: str, seed: int) -> None:
    weight = np.random.default_rng(seed).normal(size=(FEATURES, 5)).astype(np.float32)
    model = linear(weight)
    normalisation = release.Normalisation(mean=(0.5,) * FEATURES, scale=(2.0,) * FEATURES)
    manifest = signed(kit.centre, model, weight, version, normalisation=normalisation)
    Slots(kit.site.directory, kit.site.federation).install(
        manifest, model, expected_hash=release.manifest_hash(manifest), self_test=lambda slot: None
    )


def expected(kit: Any) -> np.ndarray:
    installed = Slots(kit.site.directory, kit.site.federation).current()
    return ReleaseScorer(installed.manifest, installed.model).score(X).values


def asked(x: np.ndarray = X, task: str = "", **changes: int) -> local_pb2.Windows:
    shape = dict(zip(("windows", "time", "features"), x.shape, strict=True)) | changes
    return local_pb2.Windows(task=task, values=x.astype("<f4").tobytes(), **shape)


def given(told: local_pb2.Scores) -> np.ndarray:
    return np.frombuffer(told.values, "<f8").reshape(tuple(told.shape))


@pytest.fixture
def link(kit: Any, joined: Site) -> Iterator[ScoreLink]:
    (joined.directory / "logs").mkdir()
    found = ScoreLink(joined.directory, memory_bytes=0, idle_s=60.0)
    yield found
    found.close()
    assert found.pid is None


def test_scores_are_those_of_this_process_and_follow_the_release(link: ScoreLink, kit: Any) -> None:
    with pytest.raises(ConfigError, match="no release is installed"):
        link.score(asked())
    install(kit, "1.0", 1)
    first = link.score(asked(task="pump"))
    assert (first.version, list(first.shape)) == ("1.0", [4, 5])
    assert first.milliseconds > 0
    assert not first.HasField("threshold")
    np.testing.assert_array_equal(given(first), expected(kit))
    install(kit, "2.0", 2)
    second = link.score(asked())
    assert second.version == "2.0"
    np.testing.assert_array_equal(given(second), expected(kit))
    Slots(kit.site.directory, kit.site.federation).rollback()
    assert link.score(asked()).version == "1.0"


def test_windows_that_do_not_fit_are_refused_and_the_next_are_scored(link: ScoreLink, kit: Any) -> None:
    install(kit, "1.0", 1)
    hole = X.copy()
    hole[1, 0, 3] = np.nan
    for wrong, words in (
        (asked(windows=5), "windows \\[5, 1, 11\\] in 176 bytes"),
        (asked(windows=0), "windows \\[0, 1, 11\\]"),
        (asked(time=11, features=1), "windows of shape"),
        (asked(X.reshape(2, 2, 11)), "windows of shape"),
        (asked(hole), "1 values that are no numbers"),
        (local_pb2.Windows(windows=(1 << 32) - 1, time=1 << 31, features=1 << 31), "in 0 bytes"),
    ):
        with pytest.raises(DataError, match=words):
            link.score(wrong)
    with pytest.raises(ConfigError, match="the release is for task pump"):
        link.score(asked(task="ward"))
    np.testing.assert_array_equal(given(link.score(asked())), expected(kit))


def test_the_process_ends_when_idle_and_starts_again_and_holds_no_torch(link: ScoreLink, kit: Any) -> None:
    install(kit, "1.0", 1)
    link.score(asked())
    first = link.pid
    assert first is not None
    assert "torch" not in Path(f"/proc/{first}/maps").read_text() if sys.platform == "linux" else True
    link.rest()
    assert link.pid == first
    link._worker.idle_s = 0.0
    link.rest()
    assert link.pid is None
    assert link.score(asked()).version == "1.0"
    assert link.pid != first
    os.kill(link.pid or 0, 9)
    while link.pid is not None:
        time.sleep(0.01)
    assert link.score(asked()).version == "1.0"


def test_closing_ends_it_for_good(link: ScoreLink, kit: Any) -> None:
    install(kit, "1.0", 1)
    link.score(asked())
    link.close()
    assert link.pid is None
    with pytest.raises(ConfigError, match="the agent is ending"):
        link.score(asked())


def test_a_model_that_was_changed_on_the_disk_is_used_for_seconds_only(
    kit: Any, joined: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(kit, "1.0", 1)
    scoring, now = Scoring(joined.directory), [100.0]
    monkeypatch.setattr("fedsite.client.device.score_child.time.monotonic", lambda: now[0])
    arguments = {"shape": list(X.shape), "task": ""}
    scoring.score(arguments, {"x": X.tobytes()})
    slot = (joined.directory / CURRENT).read_text()
    (joined.directory / "slots" / slot / MODEL).write_bytes(b"changed")
    scoring.score(arguments, {"x": X.tobytes()})
    now[0] += CHECK_S
    for _ in range(2):
        with pytest.raises(IntegrityError):
            scoring.score(arguments, {"x": X.tobytes()})
