"""What a part of the product asks for: wheels for small devices too, and a way on where a package is not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# A device with glibc 2.28 takes wheels of every older one as well.
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
TRAINING = {"torch", "opacus", "hydra-core", "onnx", "onnxscript"}


def requirements(extra: str) -> list[str]:
    """What `pip install fedsite[extra]` asks for, parts of the product spelled out."""
    found = list(PROJECT["dependencies"])
    for item in PROJECT["optional-dependencies"][extra]:
        if item.startswith("fedsite["):
            for name in item[len("fedsite[") : -1].split(","):
                found += requirements(name)
        else:
            found.append(item)
    return list(dict.fromkeys(found))


def names(extra: str) -> set[str]:
    return {item.split(">")[0].split("=")[0].split("<")[0].strip() for item in requirements(extra)}


def test_a_scoring_device_installs_nothing_that_trains_or_plans() -> None:
    assert not names("score") & (TRAINING | {"psutil"})
    assert {"onnxruntime", "polars", "numpy", "cryptography"} <= names("score")
    assert names("site") - names("score") == {"torch", "opacus", "psutil"}


@pytest.mark.slow
def test_wheels_of_a_scoring_device_resolve_for_aarch64(tmp_path: Path) -> None:
    """Markers are still those of the machine that runs pip: more may be asked for than the device needs, never less."""
    report = tmp_path / "report.json"
    _pip("install", "--dry-run", "--ignore-installed", f"--target={tmp_path / 'nowhere'}", f"--report={report}",
         *requirements("score"))  # fmt: skip
    _wheels_of(report)


@pytest.mark.slow
def test_wheels_of_a_site_are_there_for_aarch64(tmp_path: Path) -> None:
    """Torch is asked for by itself: a resolver would fetch gigabytes, and its CUDA build's libraries with it.

    What the others of a site's part depend on is what they depend on here, each within all its bounds.
    """
    wanted = {name: bound for name, bound in _closure("site").items() if name not in _closure("score")}
    torch = wanted.pop("torch")
    report = tmp_path / "report.json"
    asked = [f"{name}{bound}" for name, bound in wanted.items()]
    _pip("install", "--dry-run", "--ignore-installed", "--no-deps", f"--target={tmp_path / 'nowhere'}",
         f"--report={report}", *asked)  # fmt: skip
    _wheels_of(report)
    said = _pip("index", "versions", "torch").stdout
    versions = said.partition("Available versions:")[2].splitlines()[0].split(",")
    assert list(torch.filter([version.strip() for version in versions])), said


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pip for the other machine; skips where no index can be asked or offers what is asked for."""
    line = [sys.executable, "-m", "pip", *arguments, "--only-binary=:all:", "--python-version=3.11"]
    line += ["--implementation=cp", *(f"--platform={platform}" for platform in PLATFORMS)]
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=800, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        pytest.skip("the package index is too slow: pip had no answer in 800 s")
    if done.returncode != 0:
        errors = [text for text in done.stderr.splitlines() if text.startswith("ERROR")] or [done.stderr[-500:]]
        if any("(from versions: none)" in text or "No matching distribution" in text for text in errors):
            pytest.skip(f"no index that pip is told of offers this for aarch64: {errors[0]:.200}")
        if "No module named pip" in done.stderr:
            pytest.skip("pip is missing here: python -m ensurepip")
        raise AssertionError("\n".join(errors))
    return done


def _wheels_of(report: Path) -> None:
    """Every file that would be installed is a wheel that runs on the device."""
    wheels = [Path(item["download_info"]["url"]).name for item in json.loads(report.read_text())["install"]]
    assert wheels
    for wheel in wheels:
        assert wheel.endswith(".whl"), wheel
        assert wheel.endswith("-any.whl") or "aarch64" in wheel, wheel


def _closure(extra: str) -> dict[str, SpecifierSet]:
    """Everything that comes with a part, by name, each with all the bounds that any other sets."""
    found: dict[str, SpecifierSet] = {}
    waiting = [Requirement(text) for text in requirements(extra)]
    while waiting:
        item = waiting.pop()
        name = canonicalize_name(item.name)
        known = found.get(name)
        found[name] = item.specifier if known is None else known & item.specifier
        if known is not None:
            continue
        for text in metadata.requires(name) or []:
            inner = Requirement(text)
            if inner.marker is None or inner.marker.evaluate({"platform_machine": "aarch64", "extra": ""}):
                waiting.append(inner)
    return found


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [("hydra", ["launch", "task=pump"], "server"), ("polars", ["data", "check", "pump"], "score")],
)
def test_a_package_of_another_part_is_named_with_the_way_to_it(
    package: str, arguments: list[str], extra: str, tmp_path: Path
) -> None:
    probe = (
        f"import sys; sys.modules[{package!r}] = None; from fedsite.client.cli import run; sys.exit(run({arguments!r}))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FEDSITE_")}
    done = subprocess.run(
        [sys.executable, "-c", probe],
        capture_output=True, text=True, timeout=120, env=environment | {"FEDSITE_HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert f"needs {package}" in done.stderr
    assert f"pip install 'fedsite[{extra}]'" in done.stderr
