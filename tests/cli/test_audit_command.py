"""`fedsite audit`: two sides of one federation, whole and not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fedsite.protocol import audit_lines
from fedsite.protocol.audit_file import AuditFile
from fedsite.protocol.keys import SigningKey
from tests.cli.test_site_commands import fedsite

Edit = Callable[[list[bytes]], list[bytes]]


class Sides:
    """A site and a server that exchanged heads three times."""

    def __init__(self, home: Path) -> None:
        self.home = home
        keys = {"site": SigningKey.generate(), "server": SigningKey.generate()}
        self.ids = {side: key.public.id for side, key in keys.items()}
        self.logs = {side: AuditFile(home / side / "audit", key, owner=side) for side, key in keys.items()}
        for number in range(1, 4):
            asked = self.logs["server"].append("exchange", {"run_id": f"run-{number}"})
            facts = {"run_id": f"run-{number}", "late": False}
            answered = self.logs["site"].append("released", facts, {self.ids["server"]: asked})
            self.logs["server"].append("heads", {}, {self.ids["site"]: answered})

    def file(self, side: str) -> Path:
        (path,) = audit_lines.files(self.logs[side].folder)
        return path

    def edit(self, side: str, how: Edit) -> None:
        path = self.file(side)
        path.write_bytes(b"".join(how(path.read_bytes().splitlines(keepends=True))))


@pytest.fixture
def sides(tmp_path: Path) -> Sides:
    return Sides(tmp_path)


def test_both_logs_of_a_host_are_checked_against_each_other(sides: Sides) -> None:
    done = fedsite(sides.home, "audit", "verify", "--json")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert (value["schema"], value["ok"]) == ("fedsite.audit-verified/1", True)
    rows = {row["signer"]: row for row in value["logs"]}
    assert {rows[sides.ids["site"]]["compared"], rows[sides.ids["server"]]["compared"]} == {3}
    assert fedsite(sides.home, "audit", "verify").returncode == 0


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (
            lambda lines: [*lines[:2], lines[2].replace(b"run-2", b"run-9"), *lines[3:]],
            "entry 3 is not as it was signed",
        ),
        (lambda lines: [*lines[:2], *lines[3:]], "entry 3 is missing"),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], "entry 3 stands here again"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "entry 2 stands here, and belongs before entry 3"),
        (lambda lines: lines[:-1], "entry 4 is missing: the log ends with entry 3"),
    ],
)
def test_what_was_done_to_a_log_is_named_and_ends_with_8(sides: Sides, how: Edit, words: str) -> None:
    sides.edit("site", how)
    done = fedsite(
        sides.home, "audit", "verify", str(sides.file("site")), "--against", str(sides.logs["server"].folder)
    )
    assert done.returncode == 8
    assert words in done.stderr
    assert done.stdout == ""
    assert str(sides.file("site")) in done.stderr or "the end" in done.stderr


def test_a_cut_end_alone_is_not_seen_and_that_is_said(sides: Sides) -> None:
    sides.edit("site", lambda lines: lines[:-1])
    done = fedsite(sides.home, "audit", "verify", str(sides.file("site")))
    assert done.returncode == 0
    assert "only a head that somebody else holds can show" in done.stderr.replace("\n", " ")


def test_a_head_that_was_kept_shows_a_log_that_was_written_anew(sides: Sides, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    kept.write_text(fedsite(sides.home, "audit", "head", str(sides.logs["site"].folder), "--json").stdout)
    good = fedsite(sides.home, "audit", "verify", str(sides.logs["site"].folder), "--against", str(kept))
    assert good.returncode == 0
    sides.edit("site", lambda lines: lines[:1])
    for _ in range(4):
        sides.logs["site"].append("released", {"run_id": "another"})
    done = fedsite(sides.home, "audit", "verify", str(sides.logs["site"].folder), "--against", str(kept))
    assert done.returncode == 8
    assert "rewritten" in done.stderr
    assert str(kept) in done.stderr


def test_a_log_that_went_back_is_seen_by_whoever_kept_both_heads(sides: Sides) -> None:
    sides.edit("server", lambda lines: lines[:1])
    again = sides.logs["server"].append("exchange", {"run_id": "another"})
    sides.logs["site"].append("released", {}, {sides.ids["server"]: again})
    done = fedsite(sides.home, "audit", "verify", str(sides.logs["site"].folder))
    assert done.returncode == 8
    assert f"two entries 2 of the log of {sides.ids['server']}" in done.stderr


def test_a_log_signed_by_somebody_else_is_not_this_sites(sides: Sides) -> None:
    other = AuditFile(sides.home / "else", SigningKey.generate(), owner="site")
    other.append("released", {})
    (theirs,) = audit_lines.files(other.folder)
    sides.file("site").write_bytes(theirs.read_bytes())
    done = fedsite(sides.home, "audit", "verify", str(sides.logs["site"].folder))
    assert done.returncode == 8
    assert "and not by" in done.stderr


def test_a_damaged_log_proves_nothing_against_another(sides: Sides) -> None:
    sides.edit("server", lambda lines: [lines[0], *lines[2:]])
    done = fedsite(sides.home, "audit", "verify", str(sides.file("site")), "--against", str(sides.file("server")))
    assert done.returncode == 8
    assert str(sides.ids["server"]) in done.stderr


def test_show_prints_what_stands_there(sides: Sides) -> None:
    done = fedsite(sides.home, "audit", "show", str(sides.file("site")), "--json", "--last", "2")
    assert [json.loads(line)["facts"]["run_id"] for line in done.stdout.splitlines()] == ["run-2", "run-3"]
    done = fedsite(sides.home, "audit", "show", "--run", "run-1")
    assert "late=false" in done.stdout
    assert [line.split()[2] for line in done.stdout.splitlines()] == ["released", "exchange"]
    sides.edit("site", lambda lines: [lines[0], b"nonsense\n", *lines[2:]])
    done = fedsite(sides.home, "audit", "show", str(sides.file("site")))
    assert done.returncode == 0
    assert "is no entry" in done.stderr


@pytest.mark.parametrize("command", ["verify", "show", "head"])
def test_a_host_without_a_log(tmp_path: Path, command: str) -> None:
    done = fedsite(tmp_path, "audit", command)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no audit log" in done.stderr
    assert fedsite(tmp_path, "audit", command, str(tmp_path / "not-there")).returncode == 2


def test_against_something_else_or_nothing(sides: Sides, tmp_path: Path) -> None:
    gone = fedsite(sides.home, "audit", "verify", str(sides.file("site")), "--against", str(tmp_path / "gone.json"))
    assert (gone.returncode, gone.stdout) == (2, "")
    assert "gone.json is not there" in gone.stderr
    nonsense = tmp_path / "heads.json"
    nonsense.write_text('{"schema":"fedsite.audit-heads/1","heads":[{"signer":"x"}]}')
    done = fedsite(sides.home, "audit", "verify", str(sides.file("site")), "--against", str(nonsense))
    assert done.returncode == 2
