"""`fedsite data check`: the reference that drift is judged by, the age bound, and damage without a traceback."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_site_commands import Done, fedsite, join_on_disk

TASK = """\
schema: fedsite.task/1
name: toy
data: {file: toy.csv, entity: unit, time: time}
channels:
  - {name: temp, unit: degC, minimum: 0, maximum: 100}
rate: {seconds: 10, unit: s}
window: {length: 4, stride: 4}
label: {kind: column, column: state, classes: [good, bad]}
split: {kind: time}
model: {name: mlp}
loss: cross_entropy
metric: {name: accuracy, better: higher}
"""
COUNT = 800


class Toy:
    """A site with one task and one file, named in site.yaml."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.directory = join_on_disk(self.home)
        self.data, self.task = folder / "toy.csv", folder / "toy.yaml"
        self.task.write_text(TASK)
        (self.directory / "site.yaml").write_text(f"data: {{path: {self.data}, oldest: 2d}}\n")
        self.reference = self.directory / "contract" / "toy.json"
        self.write()

    def write(self, *, middle: float = 40.0, count: int = COUNT, age: float = 0.0) -> None:
        start = time.time() - age - 10 * count
        rows = [
            f"m1,{start + 10 * i:.1f},{middle + 5 * ((i * 7919) % 100) / 100:.2f},{'bad' if i % 8 > 3 else 'good'}"
            for i in range(count)
        ]
        self.data.write_text("\n".join(["unit,time,temp,state", *rows]) + "\n")

    def check(self, *arguments: str) -> Done:
        return fedsite(self.home, "data", "check", str(self.task), *arguments)

    def found(self, *arguments: str) -> dict[str, Any]:
        done = self.check(*arguments, "--json")
        assert done.returncode in (0, 3), done.stderr
        value: dict[str, Any] = json.loads(done.stdout)["tasks"][0]
        assert value["ok"] == (done.returncode == 0)
        return value


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path)


def test_the_first_good_check_is_the_reference_until_another_is_accepted(toy: Toy) -> None:
    first = toy.found()
    assert (first["reference"]["new"], first["findings"]) == (True, [])
    assert toy.reference.stat().st_mode & 0o077 == 0
    kept = toy.reference.read_bytes()
    assert toy.found()["reference"] == {"taken": first["reference"]["taken"], "rows": COUNT, "new": False}
    toy.write(middle=70)
    shifted = toy.found()
    (finding,) = shifted["findings"]
    assert (finding["code"], finding["channel"], finding["severity"]) == ("drift", "temp", "warning")
    assert finding["count"] > 0
    assert "fedsite data check toy --accept" in finding["next"]
    assert shifted["ok"]
    assert toy.reference.read_bytes() == kept
    text = toy.check("--accept")
    assert "reference taken now: drift is judged from here on" in text.stdout
    assert toy.found()["findings"] == []


def test_data_that_only_the_command_line_names_is_no_reference(toy: Toy) -> None:
    assert toy.found(f"data.path={toy.data}")["reference"] is None
    assert not toy.reference.exists()
    assert toy.found(f"data.path={toy.data}", "--accept")["reference"]["new"]


def test_data_that_breaks_the_contract_is_never_accepted(toy: Toy) -> None:
    toy.write(middle=150)
    done = toy.check("--accept")
    assert done.returncode == 3
    assert "not accepted" in done.stderr
    assert not toy.reference.exists()
    toy.found()
    assert not toy.reference.exists()


def test_a_damaged_reference_is_a_warning_with_the_way_out(toy: Toy) -> None:
    toy.found()
    toy.reference.write_bytes(b"{")
    broken = toy.found()
    (finding,) = broken["findings"]
    assert (broken["ok"], finding["code"], finding["severity"]) == (True, "drift", "warning")
    assert "--accept" in finding["next"]
    assert toy.reference.read_bytes() == b"{"
    assert toy.found("--accept")["findings"] == []
    assert toy.found()["findings"] == []


def test_a_host_that_has_not_joined_keeps_nothing(toy: Toy, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    done = fedsite(stranger, "data", "check", "pump", "--json")
    assert json.loads(done.stdout)["tasks"][0]["reference"] is None
    assert not stranger.exists()
    refused = fedsite(stranger, "data", "check", "pump", "--accept")
    assert (refused.returncode, "fedsite join" in refused.stderr) == (2, True)


def test_a_reference_that_cannot_be_written(toy: Toy) -> None:
    (toy.directory / "contract").write_text("in the way")
    done = toy.check()
    assert (done.returncode, "no reference was kept" in done.stderr) == (0, True)
    asked = toy.check("--accept")
    assert asked.returncode == 9
    assert "contract" in asked.stderr


def test_the_sites_own_bound_on_age(toy: Toy) -> None:
    toy.write(age=3 * 86_400)
    old = toy.found()
    (finding,) = old["findings"]
    assert (old["ok"], finding["code"], finding["channel"], finding["count"]) == (False, "stale", "time", COUNT)
    assert "72." in finding["found"]
    assert "48.0 hours" in finding["allowed"]
    assert toy.found("data.oldest=9d")["ok"]
    wrong = toy.check("data.oldest=soon")
    assert wrong.returncode == 2
    assert "oldest is 'soon'" in wrong.stderr
    assert "2d" in wrong.stderr


def test_leaving_takes_the_reference_along(toy: Toy) -> None:
    toy.found()
    assert fedsite(toy.home, "leave", "--yes").returncode == 0
    assert not toy.reference.exists()


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 50, b"unit,time,temp,state\n", b"unit,time,temp,state\n,,,\n", b'"', b"\xff"]
)
def test_broken_files_end_with_a_code(toy: Toy, data: bytes) -> None:
    toy.data.write_bytes(data)
    for done in (toy.check(), toy.check("--json"), toy.check("--accept")):
        assert done.returncode == 3
        assert "Traceback" not in done.stdout + done.stderr
