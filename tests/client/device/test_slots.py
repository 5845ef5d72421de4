"""Releases on the device: only what the federation signed, tried before it is used, and a way back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsite.client.device import scoring
from fedsite.client.device.slots import MANIFEST, MODEL, Slots, fetch_and_install
from fedsite.client.settings import Settings
from fedsite.protocol import release
from fedsite.protocol.errors import ConfigError, FedsiteError, IntegrityError, RefusalCode, StorageError, TrustError
from fedsite.telemetry.location import DataLocation
from fedsite.telemetry.task import load_task
from tests.toy_release import linear, onnx, signed


@pytest.fixture
def weight() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(11, 5)).astype(np.float32)


@pytest.fixture
def slots(kit: Any) -> Slots:
    return Slots(kit.site.directory, kit.site.federation)


def put(slots: Slots, manifest: bytes, model: bytes, test: Callable[[Path], None] = lambda slot: None) -> Any:
    return slots.install(manifest, model, expected_hash=release.manifest_hash(manifest), self_test=test)


def test_two_releases_take_turns_and_a_rollback_returns(slots: Slots, kit: Any, weight: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="no release"):
        slots.current()
    model = linear(weight)
    assert put(slots, signed(kit.centre, model, weight), model).slot == "a"
    assert slots.other() is None
    with pytest.raises(ConfigError, match="no earlier release"):
        slots.rollback()
    second = linear(weight * 2)
    assert put(slots, signed(kit.centre, second, weight * 2, "1.1"), second).slot == "b"
    assert slots.current().manifest.version == "1.1"
    assert slots.rollback().manifest.version == "1.0"
    assert slots.current().model == model
    assert slots.rollback().manifest.version == "1.1"


def test_the_same_release_again_changes_nothing(slots: Slots, kit: Any, weight: np.ndarray) -> None:
    model = linear(weight)
    manifest = signed(kit.centre, model, weight)
    put(slots, manifest, model)
    assert put(slots, manifest, model).slot == "a"
    assert slots.other() is None


def test_what_is_forged_altered_or_failing_never_becomes_current(slots: Slots, kit: Any, weight: np.ndarray) -> None:
    model = linear(weight)
    good = signed(kit.centre, model, weight)
    put(slots, good, model)
    other = type(kit.centre)()
    with pytest.raises(TrustError):
        put(slots, signed(other, model, weight, "2.0"), model)
    with pytest.raises(IntegrityError) as altered:
        put(slots, signed(kit.centre, model, weight, "2.0"), model + b"\0")
    assert altered.value.refusal == RefusalCode.RELEASE_INVALID
    with pytest.raises(IntegrityError):
        slots.install(
            signed(kit.centre, model, weight, "2.0"), model, expected_hash="0" * 64, self_test=lambda slot: None
        )
    with pytest.raises(TrustError, match="expired"):
        put(slots, signed(kit.centre, model, weight, "2.0", expires="2026-01-01T00:00:00Z"), model)

    def fail(slot: Path) -> None:
        raise IntegrityError("self-test", refusal=RefusalCode.SELF_TEST)

    with pytest.raises(IntegrityError):
        put(slots, signed(kit.centre, model, weight, "2.0"), model, fail)
    assert slots.current().manifest.version == "1.0"
    assert slots.other() is None


def test_a_full_disk_leaves_the_current_release(
    slots: Slots, kit: Any, weight: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = linear(weight)
    put(slots, signed(kit.centre, model, weight), model)
    from fedsite.protocol import storage

    def full(path: Path, data: bytes, mode: int = 0o600) -> None:
        raise StorageError(f"{path}: no space left")

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_atomic", full)
        with pytest.raises(StorageError):
            put(slots, signed(kit.centre, model, weight, "2.0"), model)
    assert slots.current().manifest.version == "1.0"


@pytest.mark.parametrize("name", [MODEL, MANIFEST])
def test_a_file_changed_on_disk_is_never_used(slots: Slots, kit: Any, weight: np.ndarray, name: str) -> None:
    model = linear(weight)
    put(slots, signed(kit.centre, model, weight), model)
    path = kit.site.directory / "slots" / "a" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(FedsiteError, match="slot a") as error:
        slots.current()
    assert int(error.value.exit_code) in (4, 8)
    for left in (b"{", None):
        path.unlink() if left is None else path.write_bytes(left)
        with pytest.raises(IntegrityError, match="slot a") as error:
            slots.current()
        assert "fedsite model rollback" in error.value.next_step


def test_the_self_test_runs_apart_and_compares_every_output(
    slots: Slots, kit: Any, joined: Any, weight: np.ndarray
) -> None:
    apart = partial(scoring.self_test_apart, state=kit.site.directory)
    model = linear(weight)
    put(slots, signed(kit.centre, model, weight), model, apart)
    wrong = linear(weight + 0.01)
    with pytest.raises(IntegrityError, match="an output differs") as error:
        put(slots, signed(kit.centre, wrong, weight, "2.0"), wrong, apart)
    assert error.value.refusal == RefusalCode.SELF_TEST
    foreign = onnx.load_from_string(model)
    foreign.graph.node[0].op_type = "SequenceAt"
    for bad in (b"no model", foreign.SerializeToString()):
        with pytest.raises(IntegrityError, match="self-test: the model does not load"):
            put(slots, signed(kit.centre, bad, weight, "2.0"), bad, apart)
    assert slots.current().manifest.version == "1.0"


def test_fetching_checks_the_pinned_hash_before_the_model_is_asked_for(
    slots: Slots, kit: Any, weight: np.ndarray
) -> None:
    model = linear(weight)
    manifest = signed(kit.centre, model, weight)
    files = {"/releases/1.0/manifest.json": manifest, "/releases/1.0/model.onnx": model}
    asked: list[str] = []

    def fetch(path: str, limit: int) -> bytes:
        asked.append(path)
        return files[path]

    def install(version: str, digest: str) -> Any:
        return fetch_and_install(slots, fetch, lambda slot: None, version, digest)

    with pytest.raises(IntegrityError):
        install("1.0", "0" * 64)
    assert asked == ["/releases/1.0/manifest.json"]
    with pytest.raises(FedsiteError):
        install("../../enrol", "0" * 64)
    assert len(asked) == 1
    assert install("1.0", release.manifest_hash(manifest)).manifest.version == "1.0"


def test_scoring_the_holdout_gives_the_metric_and_a_latency(kit: Any, weight: np.ndarray) -> None:
    model = linear(weight)
    manifest = release.verify(signed(kit.centre, model, weight), kit.site.federation, kit.now)
    found = scoring.score(manifest, model, DataLocation(site=0))
    assert (found.part, found.labelled) == ("holdout", True)
    assert found.metric is not None
    assert 0.0 <= found.metric <= 1.0
    assert found.values.shape == (found.windows, 5)
    assert 0 < found.latency_ms[0] <= found.latency_ms[1]
    everything = scoring.score(manifest, model, DataLocation(site=0), everything=True)
    assert everything.part == "all"
    assert everything.windows > found.windows


def test_a_file_without_labels_and_split_is_scored_without_a_metric(
    kit: Any, weight: np.ndarray, tmp_path: Path
) -> None:
    import polars as pl

    rows = 240
    task = load_task("pump")
    frame = {name: np.full(rows, 1.0 + index) for index, name in enumerate(task.channel_names)}
    time = np.concatenate([np.arange(60) + 10_000 * burst for burst in range(4)]).astype(float)
    pl.DataFrame({"machine": ["m1"] * rows, "time": time, **frame}).write_csv(tmp_path / "new.csv")
    model = linear(weight)
    manifest = release.verify(signed(kit.centre, model, weight), kit.site.federation, kit.now)
    found = scoring.score(manifest, model, DataLocation(path=tmp_path / "new.csv"))
    assert (found.part, found.labelled, found.metric, found.windows) == ("all", False, None, 4)


def test_a_release_for_other_features_is_refused(kit: Any) -> None:
    small = np.ones((3, 5), np.float32)
    model = linear(small)
    manifest = release.verify(signed(kit.centre, model, small), kit.site.federation, kit.now)
    with pytest.raises(IntegrityError, match="3 features"):
        scoring.score(manifest, model, DataLocation(site=0))


def test_settings_reach_the_location(tmp_path: Path) -> None:
    from fedsite.client import data
    from fedsite.client.settings import load

    (tmp_path / "site.yaml").write_text("data:\n  path: common.csv\n  tasks:\n    pump: {path: pumps.csv, site: 2}\n")
    chosen = load(tmp_path, ["data.tasks.pump.columns.flow=Q"])
    where = data.location(chosen, load_task("pump"))
    assert where.path == Path.cwd() / "pumps.csv"
    assert (where.site, where.columns) == (2, {"flow": "Q"})
    assert data.from_plain(data.plain(where)) == where
    assert data.location(Settings(), load_task("pump")).path is None


def test_kill_minus_nine_of_the_agent_ends_a_self_test_in_the_middle(tmp_path: Path, joined: Any) -> None:
    psutil = pytest.importorskip("psutil", reason="pip install 'fedsite[dev]'")
    slot = tmp_path / "slot"
    slot.mkdir()
    os.mkfifo(slot / MANIFEST)  # nobody ever writes to it
    agent = f"""
from pathlib import Path
from fedsite.client.device import scoring
scoring.self_test_apart(Path({str(slot)!r}), Path({str(joined.directory)!r}))
"""
    parent = subprocess.Popen([sys.executable, "-c", agent])
    with (slot / MANIFEST).open("wb"):  # returns when the child opens it to read
        (child,) = psutil.Process(parent.pid).children()
        parent.kill()
        parent.wait()
        child.wait(timeout=10)
