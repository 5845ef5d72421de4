"""Releases: two files of a version, and no way to any other file of the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from fedsite.server.release.delivery import delivery_app, release_file


@pytest.fixture
def releases(tmp_path: Path) -> Path:
    version = tmp_path / "releases" / "2026.1"
    version.mkdir(parents=True)
    (version / "manifest.json").write_text("{}")
    (version / "model.onnx").write_bytes(b"onnx" * 100_000)
    (version / "secret.key").write_text("secret")
    (tmp_path / "model.onnx").write_text("outside")
    return tmp_path / "releases"


def test_the_two_files_of_a_version_are_served(releases: Path) -> None:
    client = TestClient(delivery_app(releases))
    assert client.get("/releases/2026.1/manifest.json").json() == {}
    assert client.get("/releases/2026.1/model.onnx").content == b"onnx" * 100_000


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("2026.1", "secret.key"),
        ("2026.1", "../../model.onnx"),
        ("..", "model.onnx"),
        (".", "model.onnx"),
        ("../releases/2026.1", "model.onnx"),
        ("", "model.onnx"),
        ("2026.1\0", "model.onnx"),
        ("2026.2", "model.onnx"),
        ("v" * 65, "model.onnx"),
    ],
)
def test_any_other_path_is_not_there(releases: Path, version: str, name: str) -> None:
    assert release_file(releases, version, name) is None


def test_a_link_out_of_the_directory_is_not_followed(releases: Path) -> None:
    (releases / "linked").symlink_to(releases.parent)
    version = releases / "file-link"
    version.mkdir()
    (version / "model.onnx").symlink_to(releases.parent / "model.onnx")
    assert release_file(releases, "linked", "model.onnx") is None
    assert release_file(releases, "file-link", "model.onnx") is None
    assert release_file(releases, "2026.1", "model.onnx") is not None


def test_encoded_tricks_end_at_404(releases: Path) -> None:
    client = TestClient(delivery_app(releases))
    for path in ("2026.1/%2e%2e/%2e%2e/model.onnx", "%2e%2e/model.onnx", "2026.1/secret.key", "2026.1/", "2026.1"):
        assert client.get(f"/releases/{path}").status_code == 404
