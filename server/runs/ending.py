"""Runs that end without their driver: never started, or lost. They get a result like any other."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from fedsite.protocol import documents, storage
from fedsite.protocol.errors import FedsiteError
from fedsite.server.audit_log import RunTrail, open_log
from fedsite.server.home import ServerHome
from fedsite.server.rounds.session import RunOutcome
from fedsite.server.runs.folder import RunDirectory
from fedsite.server.runs.journal import Journal, Reader
from fedsite.server.runs.record import Record

if TYPE_CHECKING:
    from fedsite.server.link.admin_client import AdminClient


def end(run: RunDirectory, journal: Journal, outcome: RunOutcome, reason: str) -> None:
    """Write result, delete the run's key, journal the end. Only where no driver writes any more."""
    with contextlib.suppress(FedsiteError):
        record = Record(run.plan())
        result = record.result(outcome=outcome, reason=reason, seconds=0.0, metric=None, release=None)
        storage.write_atomic(run.result_file, documents.canonical(result))
    run.key_file.unlink(missing_ok=True)
    journal.record("finished", outcome=outcome, reason=reason, metric=None, seconds=0.0)


def close(run: RunDirectory, outcome: RunOutcome, reason: str) -> None:
    """End a run that nobody drives."""
    with contextlib.closing(Journal(run.journal_file, run.run_id)) as journal:
        with contextlib.suppress(FedsiteError):  # a run is ended, told or not
            journal.audit = RunTrail(open_log(ServerHome(run.path.parents[1])), run.run_id).mirror
        end(run, journal, outcome, reason)


def driven(run: RunDirectory, client: AdminClient) -> bool:
    """Whether Flower still runs, or is about to start, a driver of this run.

    Raises:
        UnreachableError: the server does not answer.
    """
    return any(item["run_id"] == run.run_id and item["status"] != "finished" for item in client.runs())


def over(run: RunDirectory) -> bool:
    """Whether the journal says that the run is finished."""
    events = Reader(run.journal_file).events()
    return bool(events) and events[-1]["kind"] == "finished"
