"""Puts the parts of a site together: the same for the agent and for a plain Flower node running our ClientApp."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fedsite.client.audit.log import SiteAudit
from fedsite.client.consent import conditions, host_facts, pause
from fedsite.client.device.scoring import self_test_apart
from fedsite.client.device.slots import Slots, fetch_and_install
from fedsite.client.handler import Handler
from fedsite.client.identity import site as identity
from fedsite.client.identity.site import Site
from fedsite.client.ledger.budget import Budget
from fedsite.client.settings import SettingsFile
from fedsite.client.state_directory import BUDGET
from fedsite.client.store import Outbox
from fedsite.client.work import memory
from fedsite.client.work.worker_link import WorkerLink
from fedsite.protocol.storage import private_directory

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A site that can answer instructions."""

    site: Site
    handler: Handler
    worker: WorkerLink
    outbox: Outbox


def assemble(directory: Path, rules: SettingsFile, fetch: Callable[[str, int], bytes]) -> Parts:
    """Open what is in the site's state directory.

    Args:
        directory: the site's state directory.
        rules: the operator's settings; what changes in their policy holds from the next instruction on.
        fetch: downloads a path of the server, at most so many bytes.

    Raises:
        ConfigError: this host has not joined. Others of the tree: its state is damaged.
    """
    site = identity.load(directory)
    settings = rules.current()
    logs = private_directory(directory / "logs")
    allowed = settings.agent.worker_memory
    worker = WorkerLink(
        logs / "worker.log",
        idle_s=settings.agent.idle_worker_s,
        memory_bytes=memory.default() if allowed is None else allowed,
        threads=settings.policy.cpu_threads,
        niceness=settings.policy.niceness,
    )
    outbox = Outbox(directory / "outbox")
    for run_id in outbox.tidy():
        _log.warning("run %s was never ended by the server; its values and replies are deleted here", run_id)
    slots = Slots(directory, site.federation)

    def install(version: str, manifest_hash: str) -> None:
        fetch_and_install(slots, fetch, partial(self_test_apart, state=directory), version, manifest_hash)

    log = SiteAudit(site, directory / BUDGET)
    handler = Handler(
        site=site,
        settings=rules,
        worker=worker,
        budget=partial(Budget, directory / BUDGET),
        outbox=outbox,
        install=install,
        not_now=conditions.gate(rules.current, host_facts.read, partial(pause.why_not, directory)),
        audit=log,
        heads=log,
    )
    return Parts(site=site, handler=handler, worker=worker, outbox=outbox)
