"""A site's control variate on its disk: which one a round goes on from, whatever came before it."""

from __future__ import annotations

import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedsite.client import variates
from fedsite.client.store import Outbox
from fedsite.protocol.errors import DocumentError


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*"))


def after(folder: Path, number: int, data: bytes) -> None:
    variates.pending(folder, number, data, b"update of " + data)
    variates.paid(folder, number, b"update of " + data)


def test_a_round_goes_on_from_the_last_one_that_counted(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert variates.before(folder, 0) is None
    after(folder, 1, b"one")
    assert variates.before(folder, 1) == b"one"
    after(folder, 2, b"two")
    # Round 2 was not counted: round 3 goes on from round 1, and what round 2 made is gone.
    assert variates.before(folder, 1) == b"one"
    after(folder, 3, b"three")
    assert variates.before(folder, 3) == b"three"
    assert files(folder) == ["000003.variate"]


def test_a_round_that_is_computed_again_moves_nothing_twice(tmp_path: Path) -> None:
    after(tmp_path, 1, b"one")
    for _ in range(3):
        assert variates.before(tmp_path, 1) == b"one"
        after(tmp_path, 2, b"two")
    assert files(tmp_path) == ["000001.variate", "000002.variate"]


def test_nothing_goes_on_from_an_update_that_was_not_paid_for(tmp_path: Path) -> None:
    variates.pending(tmp_path, 1, b"one", b"update")
    assert variates.before(tmp_path, 1) is None
    assert files(tmp_path) == []
    # Kept, and killed before it was paid for: asked again it is paid for, and then of use.
    variates.pending(tmp_path, 2, b"two", b"update")
    for _ in range(2):
        variates.paid(tmp_path, 2, b"update")
    assert variates.before(tmp_path, 2) == b"two"


def test_an_update_pays_for_its_own_variate_only(tmp_path: Path) -> None:
    """Killed between the two writes of other work on the same round: the kept update is that of the first work."""
    after(tmp_path, 1, b"one")
    variates.pending(tmp_path, 1, b"other", b"update that was never kept")
    variates.paid(tmp_path, 1, b"update of one")
    assert variates.before(tmp_path, 1) == b"one"
    variates.pending(tmp_path, 2, b"other", b"update that was never kept")
    variates.paid(tmp_path, 2, b"update of one")
    assert variates.before(tmp_path, 2) is None


def test_it_is_for_this_site_alone(tmp_path: Path) -> None:
    after(tmp_path / "run", 1, b"one")
    assert stat.S_IMODE((tmp_path / "run" / "000001.variate").stat().st_mode) == 0o600


@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
def test_one_that_is_lost_begins_at_zero(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    after(tmp_path, 4, b"four")
    path = tmp_path / "000004.variate"
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage == "cut" else data[:-1] + b"x")
    assert variates.before(tmp_path, 4) is None
    assert "of round 4 is lost" in caplog.text


def test_it_goes_with_the_run(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    run = "01M7YRWEE82F0HP7GJSB7AHSSF"
    outbox.accept(run, b"{}")
    after(outbox.folder(run), 1, b"one")
    outbox.finish(run)
    assert files(outbox.folder(run)) == ["finished"]


@pytest.mark.parametrize("told", [None, True, -1, 3, 2.0, "1"])
def test_a_round_that_cannot_have_counted_is_refused(told: Any) -> None:
    with pytest.raises(DocumentError, match="control of round"):
        variates.counted(SimpleNamespace(body={"control": told}, round=3))  # type: ignore[arg-type]
    assert variates.counted(SimpleNamespace(body={"control": 2}, round=3)) == 2  # type: ignore[arg-type]
