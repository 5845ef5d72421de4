"""What commands tell people to type: it exists, and the help of a command says what it takes."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer

from fedsite.client import application, cli

ROOT = Path(__file__).resolve().parents[2]
CODE = [path for folder in ("client", "server", "simulations", "telemetry", "protocol", "privacy", "models") for path in
        sorted((ROOT / folder).rglob("*.py"))]  # fmt: skip
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "conf").rglob("*.yaml"))]
# A command as it stands in a message or a page: the word after `fedsite`, and the next one.
COMMAND = re.compile(r"(?<![\w./-])fedsite ([a-z]+)(?: ([a-z]+))?(?=[\s,.;:)`\"'\\\]|]|$)")
STEP = re.compile(r"next_step=|remedy|next: |`fedsite|^(\$ )?fedsite")  # lines that tell somebody to type something
MISTAKES = {"stauts"}  # shown as such


def commands() -> dict[str, set[str]]:
    """Every command, with the commands of its group."""
    app, missing = application.build()
    assert not missing
    root = typer.main.get_command(app)
    assert isinstance(root, click.Group)
    return {
        name: set(command.commands) if isinstance(command, click.Group) else set()
        for name, command in root.commands.items()
    }


def test_every_command_that_is_named_exists() -> None:
    known = commands()
    seen = 0
    for path in [*CODE, *PAGES]:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if STEP.search(line)]
        for first, second in COMMAND.findall("\n".join(lines)):
            assert first in known or first in MISTAKES, f"{path.name}: fedsite {first}"
            assert not second or not known.get(first) or second in known[first], (
                f"{path.name}: fedsite {first} {second}"
            )
            seen += 1
    assert seen > 100


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["launch"], ["privacy.epsilon", "task_file=FILE", "rounds.count"]),
        (["up"], ["data.path", "policy.epsilon_max"]),
        (["join"], ["file:PATH"]),
        (["data", "check"], ["data.path"]),
        (["demo"], ["sites=N"]),
    ],
)
def test_help_says_what_can_be_given(arguments: list[str], words: list[str]) -> None:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert application.run([*arguments, "--help"]) == 0
    for word in words:
        assert word in said.getvalue()


def test_ctrl_c_while_the_commands_are_imported_is_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(application, "run", interrupted)
    assert cli.run(["status"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_the_entry_point_imports_nothing_before_it_can_be_interrupted() -> None:
    # An editable install's own finder imports some of them, so what matters is what this module adds.
    probe = "import sys; a = set(sys.modules); import fedsite.client.cli; print(*sorted(set(sys.modules) - a))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert set(done.stdout.split()) <= {"fedsite", "fedsite.client", "fedsite.client.cli", "__future__"}, done
