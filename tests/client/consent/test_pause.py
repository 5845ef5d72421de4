"""A pause: what it says it does, what a damaged file means, and that a full disk changes nothing."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.client.audit import log
from fedsite.client.consent import host_facts, pause
from fedsite.client.consent.conditions import gate
from fedsite.client.identity import site
from fedsite.protocol import audit, audit_file, audit_lines
from fedsite.protocol.errors import ConfigError, RefusalCode, StorageError
from tests.cli.test_site_commands import join_on_disk

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_a_pause_holds_until_its_end_and_no_longer(tmp_path: Path) -> None:
    assert pause.read(tmp_path, NOW) is None
    made, changed = pause.begin(tmp_path, 2 * HOUR, "maintenance", NOW)
    assert (made, changed) == (pause.Pause(since=NOW, until=NOW + 2 * HOUR, reason="maintenance"), True)
    assert (tmp_path / pause.FILE).stat().st_mode & 0o777 == 0o600
    assert pause.read(tmp_path, NOW + HOUR) == made
    assert pause.read(tmp_path, NOW + 2 * HOUR) is None


def test_a_pause_without_a_length_ends_by_resume_only(tmp_path: Path) -> None:
    pause.begin(tmp_path, None, "", NOW)
    assert pause.read(tmp_path, NOW + 10_000 * HOUR) == pause.Pause(since=NOW)
    assert pause.end(tmp_path, NOW) is True
    assert pause.read(tmp_path, NOW) is None
    assert pause.end(tmp_path, NOW) is False


def test_pausing_again_changes_the_end_and_keeps_since_and_reason(tmp_path: Path) -> None:
    pause.begin(tmp_path, HOUR, "maintenance", NOW)
    again, changed = pause.begin(tmp_path, HOUR, "", NOW)
    assert (again.until, changed) == (NOW + HOUR, False)
    later, changed = pause.begin(tmp_path, None, "", NOW + HOUR / 2)
    assert (later, changed) == (pause.Pause(since=NOW, until=None, reason="maintenance"), True)


def test_one_that_is_over_does_not_lend_its_beginning(tmp_path: Path) -> None:
    pause.begin(tmp_path, HOUR, "maintenance", NOW)
    later, _ = pause.begin(tmp_path, HOUR, "", NOW + 3 * HOUR)
    assert (later.since, later.reason) == (NOW + 3 * HOUR, "")
    assert pause.end(tmp_path, NOW + 9 * HOUR) is False  # over already
    assert not (tmp_path / pause.FILE).exists()


@pytest.mark.parametrize("lasting", [timedelta(0), -HOUR, timedelta(days=400)])
def test_a_length_out_of_range_changes_nothing(tmp_path: Path, lasting: timedelta) -> None:
    with pytest.raises(ConfigError, match="a pause of"):
        pause.begin(tmp_path, lasting, "", NOW)
    with pytest.raises(ConfigError, match="a reason of 201"):
        pause.begin(tmp_path, HOUR, "x" * 201, NOW)
    assert os.listdir(tmp_path) == []


@given(st.binary(max_size=200))
def test_a_damaged_file_is_a_pause_until_somebody_decides(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        (directory / pause.FILE).write_bytes(data)
        held = pause.read(directory, NOW)
        assert held is not None
        assert held.until is None
        assert "damaged" in held.reason
        made, changed = pause.begin(directory, HOUR, "", NOW)
        assert (pause.read(directory, NOW), changed, made.reason) == (made, True, "")
        (directory / pause.FILE).write_bytes(data)
        assert pause.end(directory, NOW) is True
        assert pause.read(directory, NOW) is None


@given(st.integers(0, 2**31), st.none() | st.integers(1, 31_000_000), st.text(max_size=200))
def test_what_is_written_is_what_is_read(offset: int, lasting: int | None, reason: str) -> None:
    now = NOW + timedelta(seconds=offset, microseconds=17)
    with tempfile.TemporaryDirectory() as folder:
        made, _ = pause.begin(Path(folder), None if lasting is None else timedelta(seconds=lasting), reason, now)
        assert pause.read(Path(folder), now) == made


def test_a_pause_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        pause.begin(tmp_path / "gone", HOUR, "", NOW)


def entries(home: Path) -> list[tuple[str, dict[str, Any]]]:
    """What the audit log of a site says."""
    (paths,) = audit_lines.logs([home / "site" / audit_file.FOLDER]).values()
    return [(one.kind, dict(one.facts)) for one in map(audit.read, (line.data for line in audit_lines.lines(paths)))]


def test_a_pause_and_its_end_stand_in_the_audit_log(tmp_path: Path) -> None:
    directory = join_on_disk(tmp_path)
    pause.begin(directory, HOUR, "maintenance", NOW)
    pause.begin(directory, HOUR, "", NOW)  # as it was
    pause.end(directory, NOW)
    pause.end(directory, NOW)
    found = entries(tmp_path)[1:]
    assert [kind for kind, _ in found] == ["paused", "resumed"]
    assert {name: found[0][1][name] for name in ("since", "until", "reason")} == {
        "since": "2026-03-01T12:00:00Z", "until": "2026-03-01T13:00:00Z", "reason": "maintenance",
    }  # fmt: skip
    assert found[0][1]["by"] == found[1][1]["by"] != ""


def test_what_the_log_cannot_tell_is_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StorageError("no space")

    directory = join_on_disk(tmp_path)
    monkeypatch.setattr(log, "record", full)
    for act in (lambda: pause.begin(directory, None, "", NOW), lambda: pause.end(directory, NOW)):
        with pytest.raises(StorageError):
            act()
        assert pause.read(directory, NOW) is not None  # the careful side


def test_a_user_without_a_name_is_told_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site.getpass, "getuser", lambda: {}["uid"])
    assert site.person() == f"uid {os.getuid()}"


def test_a_paused_site_says_not_now_and_ends_what_has_begun(kit: Any) -> None:
    plan, handler = kit.centre.plan(), paused_handler(kit)
    assert kit.answer(kit.centre.prepare(kit.site, plan), handler).outcome == "ok"
    pause.begin(kit.site.directory, HOUR, "", kit.now)
    for asked in (kit.centre.ask(kit.site, "statistics", plan), kit.centre.train(kit.site, plan)):
        header = kit.answer(asked, handler)
        assert (header.outcome, header.code) == ("refused", RefusalCode.NOT_NOW)
    assert [operation for operation, _ in kit.worker.calls] == ["cost", "prepare"]
    assert kit.spent() == []
    pause.end(kit.site.directory, kit.now)
    assert kit.answer(kit.centre.ask(kit.site, "statistics", plan), handler).outcome == "ok"
    pause.begin(kit.site.directory, HOUR, "", kit.now)
    assert kit.answer(kit.centre.ask(kit.site, "finish", plan, round=1), handler).outcome == "ok"


def paused_handler(kit: Any) -> Any:
    not_now = gate(lambda: kit.settings, host_facts.read, lambda: pause.why_not(kit.site.directory, lambda: kit.now))
    return kit.built(not_now=not_now)
