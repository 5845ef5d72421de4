"""The journal: order, compare-and-set, and readers beside the writer."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedsite.protocol.errors import IntegrityError, StorageError
from fedsite.server.runs.journal import Journal, Reader

RUN = "01J00000000000000000000000"


def test_events_come_back_in_order_while_the_writer_is_open(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db", RUN, clock=lambda: 0.0)
    written = [journal.record("round", number=1), journal.record("reply", site="a", code=None)]
    reader = Reader(tmp_path / "journal.db")
    assert reader.events() == written
    assert reader.events(after=1) == written[1:]
    assert written[0] == {
        "schema": "fedsite.event/1",
        "run": RUN,
        "sequence": 1,
        "at": "1970-01-01T00:00:00.000Z",
        "kind": "round",
        "number": 1,
    }
    journal.close()
    assert reader.events() == written


def test_one_driver_claims_the_newest_epoch(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db", RUN)
    assert not journal.claim(1, "first")
    journal.offer(1)
    assert journal.claim(1, "first")
    assert not journal.claim(1, "second")
    journal.offer(2)
    journal.offer(3)
    assert not journal.claim(2, "second")
    assert Reader(tmp_path / "journal.db").owner() == (3, None)
    assert journal.claim(3, "third")
    assert Reader(tmp_path / "journal.db").owner() == (3, "third")
    journal.close()


def test_follow_ends_with_the_run(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db", RUN)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        journal.record("finished" if len(waits) == 2 else "round")

    kinds = [event["kind"] for event in Reader(tmp_path / "journal.db").follow(wait)]
    assert kinds == ["round", "finished"]
    assert len(waits) == 2
    journal.close()


def test_a_journal_survives_being_opened_again_and_belongs_to_one_run(tmp_path: Path) -> None:
    first = Journal(tmp_path / "journal.db", RUN)
    first.record("round", number=1)
    first.close()
    again = Journal(tmp_path / "journal.db", RUN)
    assert again.record("round", number=2)["sequence"] == 2
    again.close()
    with pytest.raises(IntegrityError, match="journal of run"):
        Journal(tmp_path / "journal.db", RUN[:-1] + "1")


def test_no_file_yet_is_no_events(tmp_path: Path) -> None:
    assert Reader(tmp_path / "journal.db").events() == []
    assert Reader(tmp_path / "journal.db").owner() == (0, None)


def test_an_unusable_directory_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="unable to open"):
        Journal(tmp_path / "missing" / "journal.db", RUN)
