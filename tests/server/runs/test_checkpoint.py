"""Checkpoints are whole or none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedsite.protocol import weights
from fedsite.protocol.errors import IntegrityError
from fedsite.server.runs import checkpoint
from fedsite.server.runs.checkpoint import Checkpoint
from fedsite.server.strategies.strategy import ServerState

STATE = ServerState(
    params={"w": np.array([1.0, 2.0], dtype=np.float32)}, memory={"momentum/w": np.array([0.5, 0.5], dtype=np.float32)}
)


def save(folder: Path, number: int, state: ServerState = STATE) -> Path:
    facts = Checkpoint(
        run_id="01J00000000000000000000000",
        plan_hash="ab",
        round=number,
        model_hash=weights.digest(state.params),
        memory_hash=weights.digest(state.memory) if state.memory else "",
        normalisation={"mean": (0.5,), "scale": (2.0,)},
        trained={"s1": number},
    )
    return checkpoint.save(folder, facts, state, weights.encode(state.params))


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    facts, state = found
    assert (facts.round, facts.normalisation, facts.trained) == (2, {"mean": (0.5,), "scale": (2.0,)}, {"s1": 2})
    np.testing.assert_array_equal(state.params["w"], STATE.params["w"])
    np.testing.assert_array_equal(state.memory["momentum/w"], STATE.memory["momentum/w"])


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "missing") is None


def test_a_model_without_its_document_does_not_count(tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2).with_suffix(".json").unlink()
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found[0].round == 1


def test_a_changed_model_is_refused_and_passed_over(tmp_path: Path) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2)
    path.write_bytes(weights.encode({"w": np.zeros(2, dtype=np.float32)}))
    with pytest.raises(IntegrityError, match="has hash"):
        checkpoint.load(path)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found[0].round == 1


def test_old_ones_go_when_all_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "KEEP_BYTES", 1)
    for number in (1, 2, 3):
        save(tmp_path, number, replace(STATE, memory={}))
    assert [path.name for path in checkpoint.paths(tmp_path)] == ["round-0002.safetensors", "round-0003.safetensors"]
    assert len(list(tmp_path.iterdir())) == 4
