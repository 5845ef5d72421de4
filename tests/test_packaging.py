"""The list of packages, the type checkers' links and the tree say the same."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {"client", "conf", "models", "privacy", "protocol", "server", "simulations", "telemetry"}


def test_every_package_is_listed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(settings["tool"]["setuptools"]["packages"])
    found = {
        "fedsite." + ".".join(path.parent.relative_to(ROOT).parts)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert listed == found


def test_fedsite_is_a_namespace() -> None:
    assert not (ROOT / "__init__.py").exists()


def test_type_checkers_see_every_folder() -> None:
    links = {path.name: path.resolve() for path in (ROOT / ".typings" / "fedsite").iterdir()}
    assert links == {name: ROOT / name for name in FOLDERS}


def test_every_folder_with_modules_is_a_package() -> None:
    for folder in FOLDERS - {"conf"}:
        for path in (ROOT / folder).rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), path
