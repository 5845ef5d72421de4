"""Kernels are compiled for runs that are longer than compiling, and used by any once they are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedsite.simulations.vectorised import choice, compiled
from fedsite.simulations.vectorised.job import Layout
from tests.simulated_jobs import job, population

DENSE = job(local={"steps": 4, "sampling_rate": 0.5})
IMAGES = job("cross_entropy", "cnn1d", {"channels": [4], "kernel": 3, "stride": 1}, local={"steps": 4})


def test_a_short_run_compiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba", reason="kernels need Numba: pip install 'fedsite[fast]'")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    people = population("value", (10, 10, 30))
    # 4 steps, each of half of 10 windows: 20 windows in a training.
    enough = compiled.PRODUCTS // (20 * Layout.of(DENSE.module()).size) + 1
    assert "which pays from 6e+10 products" in str(compiled.too_short(DENSE, people, enough // 2))
    assert compiled.too_short(DENSE, people, enough) is None
    assert compiled.too_short(IMAGES, population("class"), 2499) == (
        "kernels are not compiled here yet, which pays from 10,000 local steps of sites; this run has 9,996"
    )
    assert compiled.too_short(IMAGES, population("class"), 2500) is None
    found = choice.choose(DENSE, people, trainings=1)
    assert (found.executor.name, found.passed_over[0][0]) == ("batched", "compiled")
    monkeypatch.setattr(compiled, "cached", lambda: True)
    assert choice.choose(DENSE, people, trainings=1).executor.name == "compiled"
    monkeypatch.undo()
    assert choice.choose(DENSE, people, "compiled").executor.name == "compiled"
