"""The agent as a process: one per state directory, its log, its state file, its signals, and a clean end."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from fedsite.client import assembly, state_directory
from fedsite.client.agent import Agent, StateReport
from fedsite.client.carried import standing
from fedsite.client.health import facts as health_facts
from fedsite.client.health import findings as health
from fedsite.client.identity import site
from fedsite.client.link.unsent import Unsent
from fedsite.client.local.activity import Board
from fedsite.client.settings import SettingsFile
from fedsite.protocol import documents, instants
from fedsite.protocol.errors import ExitCode, FedsiteError

_log = logging.getLogger(__name__)


def run(directory: Path, rules: SettingsFile) -> int:
    """Run the agent until a signal; the exit code to end with: 130 after Ctrl-C, 0 after SIGTERM.

    Raises:
        ConfigError: this host has not joined, its settings are wrong, or an agent runs already.
        TrustError: the server is not this federation's, or has revoked this site.
    """
    from fedsite.client.local import local_serving

    os.environ.pop("FEDSITE_TOKEN", None)  # a container may still have it; no child is to
    settings = rules.current()
    site.load(directory)
    with state_directory.only_one(directory):
        _log_to_stderr(settings.agent.log)
        board = Board(pid=os.getpid())
        # First of all: whoever binds a socket for its owner alone must not have other threads yet.
        with local_serving.serving(directory, settings, board) as socket:
            return _run(directory, rules, board, socket)


def _run(directory: Path, rules: SettingsFile, board: Board, socket: Path | None) -> int:
    from fedsite.client.identity import enrolment
    from fedsite.client.identity.renewal import CertificateRenewal
    from fedsite.client.link.flower_fleet import FleetLink, poll_delay

    connection = enrolment.open_connection(directory)
    link = FleetLink(connection)
    renewal = CertificateRenewal(directory, lambda: enrolment.use_new_pair(connection, directory))
    parts = assembly.assemble(directory, rules, lambda path, limit: link.fetch(path, limit=limit))
    state = directory / state_directory.STATE
    constant: dict[str, Any] = {"pid": os.getpid(), "since": board.look()[1].since}
    if rules.overrides:
        constant[health_facts.OVERRIDES] = list(rules.overrides)
    if socket is not None:
        constant["socket"] = str(socket)
    file = StateReport(lambda value: _write(state, value), constant)
    last: Mapping[str, Any] = {}

    def report(told: Mapping[str, Any]) -> None:
        nonlocal last
        last = told
        file({**told, **not_renewed(renewal.problem)})
        board.report(told)

    def between() -> None:
        standing.unmark(directory)
        before = renewal.problem
        renewal.when_due()
        if renewal.problem is not before:
            report(last)

    agent = Agent(
        link=link,
        handler=parts.handler,
        worker=parts.worker,
        delay=poll_delay,
        unsent=Unsent(parts.outbox),
        report=report,
        between=between,
    )
    received: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        agent.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    _log.info("site %s (%s) of federation %s", parts.site.name, parts.site.id, parts.site.federation.name)
    try:
        agent.run()
    finally:
        state.unlink(missing_ok=True)
    return int(ExitCode.INTERRUPTED if signal.SIGINT in received else ExitCode.OK)


def not_renewed(problem: FedsiteError | None) -> dict[str, Any]:
    """What the state file says of a certificate that could not be renewed, as a finding for the screens."""
    if problem is None:
        return {}
    again = "it is tried again by itself; fedsite doctor tries the way"
    title = "the certificate was not renewed"
    found = health.from_error(health_facts.RENEWAL, title, problem, severity="warning", depends_on=("link",))
    return {health_facts.RENEWAL: health.plain(replace(found, remedy=found.remedy or again))}


def _write(path: Path, value: dict[str, Any]) -> None:
    """Replace the state file, twice per instruction: whole for a reader, but not worth waiting for the disk."""
    new = path.with_suffix(".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(documents.canonical({**value, "at": instants.text(instants.now())}))
    new.replace(path)


def _log_to_stderr(level: str) -> None:
    """Our own log lines, and warnings of everybody else."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("fedsite").setLevel(level.upper())
