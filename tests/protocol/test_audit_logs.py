"""Logs as somebody has them who was given their files: in several of them, damaged, gone, and copied twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.protocol import audit_lines, audit_logs
from tests.protocol.test_audit_file import KEY, log, verdict


@given(data=st.binary(max_size=300))
def test_whatever_lies_in_a_file_is_a_verdict_and_never_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    folder = tmp_path_factory.mktemp("any")
    log(folder).append("did", {})
    (path,) = audit_lines.files(folder / KEY.public.id)
    good = path.read_bytes()
    path.write_bytes(good + data)
    (checked,) = audit_logs.check([folder])
    assert checked.verdict.ok == (not data)
    path.write_bytes(data)
    (checked,) = audit_logs.check([folder])
    assert checked.verdict.ok == (not data)


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """A log in five files."""
    folder = tmp_path_factory.mktemp("several")
    writer = log(folder, file_bytes=1000)
    while len(audit_lines.files(folder / KEY.public.id)) < 5:
        writer.append("did", {})
    return [path.read_bytes() for path in audit_lines.files(folder / KEY.public.id)]


def judged(folder: Path, files: list[bytes]) -> tuple[int, str] | None:
    """What is wrong with these files as a log, as somebody checks it who was given them."""
    (folder / KEY.public.id).mkdir(exist_ok=True)
    for number, data in enumerate(files):
        (folder / KEY.public.id / f"{number:012d}.jsonl").write_bytes(data)
    (checked,) = audit_logs.check([folder])
    problem = checked.verdict.problem
    return None if problem is None else (problem.entry, problem.fault)


@given(data=st.data())
def test_any_byte_of_any_file_counts(
    tmp_path_factory: pytest.TempPathFactory, several: list[bytes], data: st.DataObject
) -> None:
    which = data.draw(st.integers(0, len(several) - 1))
    at = data.draw(st.integers(0, len(several[which]) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != several[which][at]))
    files = list(several)
    files[which] = files[which][:at] + bytes([byte]) + files[which][at + 1 :]
    entry = sum(part.count(b"\n") for part in [*several[:which], several[which][:at]]) + 1
    found = judged(tmp_path_factory.mktemp("any"), files)
    assert found is not None
    assert found[0] == entry


@pytest.mark.parametrize("which", range(5))
def test_a_file_that_is_gone_is_named_by_its_first_entry(tmp_path: Path, several: list[bytes], which: int) -> None:
    before = sum(part.count(b"\n") for part in several[:which])
    found = judged(tmp_path, [part for number, part in enumerate(several) if number != which])
    assert found == (None if which == 4 else (before + 1, "missing"))  # the last one: only a head that is held shows it


def test_a_copy_and_what_was_written_since_are_one_log(tmp_path: Path) -> None:
    writer = log(tmp_path / "now", file_bytes=900, keep_files=2)
    old = tmp_path / "kept"
    for _ in range(12):
        writer.append("did", {})
        shutil.copytree(writer.folder, old / KEY.public.id, dirs_exist_ok=True)
        writer.append("did", {})
    assert verdict(tmp_path / "now").first > 1
    (checked,) = audit_logs.check([old, tmp_path / "now"])
    assert checked.verdict.ok, checked.verdict.problem
    assert (checked.verdict.first, checked.verdict.head) == (1, writer.head())
    part = audit_lines.files(old / KEY.public.id)[-1]
    part.write_bytes(part.read_bytes().replace(b'"kind":"did"', b'"kind":"dud"'))
    (checked,) = audit_logs.check([old, tmp_path / "now"])
    assert not checked.verdict.ok


def test_a_log_larger_than_any_file_of_heads_is_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log(tmp_path).append("did", {})
    (path,) = audit_lines.files(tmp_path / KEY.public.id)
    monkeypatch.setattr(audit_logs, "_MAX_HEADS", path.stat().st_size - 1)
    assert [one.verdict.ok for one in audit_logs.check([path], [path])] == [True]
