"""The forms in which files come from loggers and disks: each is read, or has its one code and says what to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fedsite.telemetry import contract
from fedsite.telemetry.location import DataLocation
from tests.telemetry.test_contract_damage import NOW, TASKS, WHOLE, columns, csv

TASK = TASKS["as it is"]
TEXT = csv(columns()).decode()
TWICE = TEXT.replace("\n", ",flow\n", 1).replace("d\n", "d,99\n")
FORMS: dict[str, tuple[str, bytes, tuple[str, ...]]] = {
    "with a byte order mark": ("toy.csv", b"\xef\xbb\xbf" + TEXT.encode(), ()),
    "with DOS line ends": ("toy.csv", TEXT.replace("\n", "\r\n").encode(), ()),
    "UTF-16": ("toy.csv", TEXT.encode("utf-16"), ("data-unreadable",)),
    "Latin-1": ("toy.csv", TEXT.replace("a,", "ä,").encode("latin-1"), ("data-unreadable",)),
    "a line too long": ("toy.csv", TEXT.encode() + b"a,1,2,3,good,7\n", ("data-unreadable",)),
    "header only": ("toy.csv", TEXT.partition("\n")[0].encode(), ("too-few-windows",)),
    "a column twice": ("toy.csv", TWICE.encode(), ("column-missing",)),
    "infinite": ("toy.csv", TEXT.replace(",20,", ",inf,", 1).encode(), ("range",)),
    "mixed types": ("toy.csv", TEXT.replace(",20,", ",warm,", 1).encode(), ("not-a-number",)),
    "a line twice": ("toy.csv", TEXT.encode() + TEXT.splitlines()[-1].encode(), ("time",)),
    "backwards": ("toy.csv", "\n".join([TEXT.splitlines()[0], *TEXT.splitlines()[:0:-1]]).encode(), ()),
    "empty CSV": ("toy.csv", b"", ("data-unreadable",)),
    "empty Parquet": ("toy.parquet", b"", ("data-unreadable",)),
    "half a Parquet": ("toy.parquet", WHOLE["toy.parquet"][:400], ("data-unreadable",)),
    "empty npz": ("toy.npz", b"", ("data-unreadable",)),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_each_form_of_a_file_has_its_code(tmp_path: Path, name: str) -> None:
    file, data, codes = FORMS[name]
    (tmp_path / "as").mkdir()
    (tmp_path / "as" / file).write_bytes(data)
    (tmp_path / file).symlink_to(tmp_path / "as" / file)
    for path in (tmp_path / file, tmp_path / "as"):
        assert contract.codes(contract.check(TASK, DataLocation(path=path), now=NOW)) == codes


def test_what_may_not_be_read_is_named_and_never_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "toy.csv").write_bytes(TEXT.encode())
    listed = os.scandir

    def denied(path: Any) -> Any:
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr("os.scandir", denied)
    (finding,) = contract.check(TASK, DataLocation(path=tmp_path), now=NOW)
    assert (finding.code, finding.text) == (
        "data-unreadable", f"{tmp_path / 'secret'} cannot be read (Permission denied)"
    )  # fmt: skip
    assert "let this user read it" in finding.remedy


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "toy.csv")
    (finding,) = contract.check(TASK, DataLocation(path=tmp_path / "toy.csv"), now=NOW)
    assert "neither file nor folder" in finding.text
