"""SCAFFOLD's control variates in a file: zeros at first, kept by site, no disk for sites that never train."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedsite.protocol.errors import ConfigError
from fedsite.simulations.vectorised.controls import Controls
from fedsite.simulations.vectorised.executor import Order


def test_rows_are_kept_by_site(tmp_path: Path) -> None:
    kept = Controls.create(tmp_path / "c", sites=5, numbers=2)
    kept.write(np.array([3, 1]), np.array([[1, 2], [3, 4]], np.float32))
    assert kept.rows(np.array([1, 2, 3])).tolist() == [[3, 4], [0, 0], [1, 2]]
    order = Order(weights={}, control=np.array([10, 20], np.float32), controls=kept)
    drift = order.drift(np.array([3]))
    assert drift is not None
    assert drift.tolist() == [[9, 18]]
    assert Order(weights={}).drift(np.array([3])) is None


def test_a_site_that_never_trained_takes_no_disk(tmp_path: Path) -> None:
    kept = Controls.create(tmp_path / "c", sites=100_000, numbers=50_000)  # 20 GB, if they all had trained
    kept.write(np.array([70_000]), np.ones((1, 50_000), np.float32))
    assert kept.path.stat().st_blocks * 512 < 1 << 20
    assert kept.rows(np.array([70_000])).sum() == 50_000


def test_a_file_is_not_made_twice(tmp_path: Path) -> None:
    Controls.create(tmp_path / "c", sites=1, numbers=1)
    with pytest.raises(ConfigError, match="File exists"):
        Controls.create(tmp_path / "c", sites=1, numbers=1)
