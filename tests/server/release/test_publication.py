"""The end of a run, with the real exporter and runtime: calibrated, measured, signed, delivered; or refused."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsite.models import catalog, vector
from fedsite.models.runtime import Scorer
from fedsite.protocol import release as manifests
from fedsite.protocol.errors import IntegrityError
from fedsite.protocol.plan import PrivacyPlan, ProtectionPlan, ReleasePlan
from fedsite.server.release import build as release
from fedsite.server.release.build import Candidate, Signer
from fedsite.server.release.publication import Publication
from fedsite.server.rounds.spent import claim
from fedsite.telemetry.task import read_task
from tests import simulated_site
from tests.simulated_fleet import Play, SimulatedFleet
from tests.simulated_site import TASK

OPTIONS: dict[str, Any] = {"hidden": [4], "activation": "tanh"}


@pytest.fixture
def fleet() -> SimulatedFleet:
    fleet = SimulatedFleet()
    for site in fleet.all:
        site.target = 0.25
    return fleet


@pytest.fixture
def play(fleet: SimulatedFleet, tmp_path: Path) -> Play:
    module = catalog.build("mlp", OPTIONS, time=1, features=2, outputs=1, seed=3)
    signer = Signer(tmp_path / "releases", fleet.key, fleet.federation.id)
    play = Play(
        fleet=fleet,
        folder=tmp_path / "runs",
        publish=Publication(signer),
        initial=dict(vector.state(module)),
        options=OPTIONS,
    )
    return play.with_rounds(count=1)


def with_parity(fleet: SimulatedFleet, error: float) -> None:
    """Have every site judge the int8 graph too: an rmse of `error`."""
    for site in fleet.all:
        honest = site.values

        def values(header: Any, frame: Any, honest: Any = honest) -> Any:
            found = honest(header, frame)
            if header.kind == "evaluate" and "graph" in frame.blobs:
                found |= {"parity/error": np.array([(error / 10) ** 2 * 10]), "parity/count": np.array([10.0])}
            return found

        site.values = values  # type: ignore[method-assign]


def test_a_release_is_signed_measured_and_at_every_site(play: Play, fleet: SimulatedFleet, tmp_path: Path) -> None:
    for site in fleet.all:
        site.target = 0.0
    fleet["west"].target = 1.0  # the mean is 1/3: errors 1/3, 1/3, -2/3, so the rmse is sqrt(2)/3
    rmse = 2**0.5 / 3
    with_parity(fleet, rmse * 1.01)
    played = play.run()
    found = played.result["release"]
    assert found["verified_sites"] == 3
    assert found["parity"]["fp32"] == pytest.approx(rmse)
    assert found["parity"]["int8"] == pytest.approx(rmse * 1.01)
    data = (tmp_path / "releases" / found["version"] / "manifest.json").read_bytes()
    model = (tmp_path / "releases" / found["version"] / "model.onnx").read_bytes()
    manifest = manifests.verify(data, fleet.federation, datetime.now(UTC), expected_hash=found["manifest_hash"])
    manifests.check_model(manifest, model)
    outputs = Scorer(model).predict(manifest.golden.inputs.unpack())
    assert np.abs(outputs - manifest.golden.outputs.unpack()).max() <= manifest.golden.tolerance
    assert manifest.privacy == {"mode": "none"}
    assert manifest.normalisation.mean == (5.0, 5.0)
    install = next(header for header in fleet["north"].seen if header.kind == "install")
    assert install.body == {"version": found["version"], "manifest_hash": found["manifest_hash"]}
    assert [site["installed"] for site in played.result["sites"]] == ["ok"] * 3


def test_an_int8_model_that_lost_too_much_is_not_released(play: Play, fleet: SimulatedFleet, tmp_path: Path) -> None:
    fleet["west"].target = 1.0
    with_parity(fleet, 3.0)
    result = play.run().result
    assert (result["outcome"], result["release"]) == ("completed", None)
    assert "% worse" in result["release_refusal"]
    assert not list((tmp_path / "releases").glob("*/manifest.json"))
    assert not any(header.kind == "install" for header in fleet["north"].seen)


def test_sites_without_calibration_leave_ranges_to_synthetic_inputs(play: Play, fleet: SimulatedFleet) -> None:
    for site in fleet.all:
        simulated_site.during("calibrate", lambda s, h, f: [])(site)
    played = play.run()
    assert played.result["release"]["verified_sites"] == 3
    assert played.result["release"]["parity"]["int8"] is None
    event = next(event for event in played.events if event["kind"] == "quantized")
    assert event["calibrated"] is False


def test_a_site_that_does_not_install_is_named_with_its_code(play: Play, fleet: SimulatedFleet) -> None:
    no = simulated_site.RefusalCode.SELF_TEST
    simulated_site.during("install", lambda s, h, f: [s.reply(h, f, {}, {}, no)])(fleet["west"])
    result = play.run().result
    assert result["outcome"] == "completed"
    assert (result["release"]["verified_sites"], result["release"]["failed"]) == (2, {"west": "self-test"})


def test_a_private_manifest_carries_the_claim(play: Play, fleet: SimulatedFleet, tmp_path: Path) -> None:
    play.privacy = PrivacyPlan(mode="sample", epsilon=50.0, noise_multiplier=2.0)
    for site in fleet.all:
        site.private = True
    result = play.run().result
    data = (tmp_path / "releases" / result["release"]["version"] / "manifest.json").read_bytes()
    manifest = manifests.verify(data, fleet.federation, datetime.now(UTC))
    assert manifest.privacy["epsilon"] == result["privacy"]["epsilon_max"]
    assert manifest.privacy["unit"] == "window"
    assert not any(header.kind in ("calibrate", "evaluate") for header in fleet["north"].seen)


@pytest.mark.parametrize(
    ("better", "fp32", "int8", "good"),
    [
        ("lower", 10.0, 10.1, True),
        ("lower", 10.0, 10.3, False),
        ("lower", 10.0, 9.0, True),
        ("higher", 0.9, 0.89, True),
        ("higher", 0.9, 0.8, False),
        ("higher", 0.9, None, True),
        ("lower", None, None, True),
    ],
)
def test_parity_is_a_relative_loss(play: Play, better: str, fp32: float | None, int8: float | None, good: bool) -> None:
    task = read_task({**TASK, "metric": {**TASK["metric"], "better": better}})
    plan = dataclasses.replace(play.plan(), release=ReleasePlan(parity=0.02))
    candidate = Candidate(fp32=b"", int8=b"", deviation=0.01, threshold=None)
    if good:
        release.check_parity(plan, task, candidate, fp32, int8)
    else:
        with pytest.raises(IntegrityError, match=r"release\.parity"):
            release.check_parity(plan, task, candidate, fp32, int8)


def test_another_model_is_refused_without_any_metric(play: Play) -> None:
    candidate = Candidate(fp32=b"", int8=b"", deviation=0.9, threshold=None)
    with pytest.raises(IntegrityError, match="deviate"):
        release.check_parity(play.plan(), read_task(TASK), candidate, None, None)


def test_no_epsilon_without_privacy(play: Play) -> None:
    assert claim(play.plan(), {}) == {"mode": "none"}


def test_calibration_and_parity_come_from_secure_sums(play: Play, fleet: SimulatedFleet) -> None:
    play.protection = ProtectionPlan(mode="secagg", examples_max=64)
    for site in fleet.all:
        site.target = 0.0
    fleet["west"].target = 1.0
    rmse = 2**0.5 / 3
    with_parity(fleet, rmse * 1.01)
    played = play.run()
    found = played.result["release"]
    assert found["verified_sites"] == 3
    assert found["parity"]["fp32"] == pytest.approx(rmse, abs=1e-4)
    assert found["parity"]["int8"] == pytest.approx(rmse * 1.01, abs=1e-4)
    opened = [event["purpose"] for event in played.events if event["kind"] == "sum" and event["outcome"] == "opened"]
    assert opened == ["statistics", "train", "calibrate", "evaluate"]
    assert next(event for event in played.events if event["kind"] == "quantized")["calibrated"] is True


def test_a_secure_parity_of_fewer_windows_is_no_parity(play: Play, fleet: SimulatedFleet) -> None:
    play.protection = ProtectionPlan(mode="secagg", examples_max=64)
    with_parity(fleet, 0.1)
    fleet["west"].values = type(fleet["west"]).values.__get__(fleet["west"])  # this one cannot run the int8 graph
    assert play.run().result["release"]["parity"]["int8"] is None
