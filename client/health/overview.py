"""One look at a site as one value (`fedsite.status/2`): what `fedsite status` and the agent's local API both tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fedsite.client.carried import standing
from fedsite.client.consent import pause as pauses
from fedsite.client.device.slots import Installed
from fedsite.client.health import checks as health_checks
from fedsite.client.health import facts as health_facts
from fedsite.client.health import findings as health
from fedsite.client.health.checks import Balance
from fedsite.client.health.facts import Facts
from fedsite.client.health.findings import Finding
from fedsite.client.identity.site import Site
from fedsite.client.ledger import forgotten
from fedsite.client.work import memory
from fedsite.protocol import instants

SCHEMA: Final = "fedsite.status/2"
TRAINING_BYTES: Final = 600 << 20  # at most, of a shipped task (tests/benchmarks/agent_memory.py)
DISK_BYTES: Final = 64 << 20  # answers of two rounds, a release, logs
PAYLOADS_KEPT: Final = 8  # of the model's size: answers are kept twice for each kind, a release in two slots


def findings(facts: Facts) -> list[Finding]:
    """What is not well, the worst first."""
    return health.present(checks(facts))


def checks(facts: Facts) -> list[Finding | None]:
    """What each check says, hidden or not."""
    state = str(facts.agent.get("state"))
    allowed = facts.settings.agent.worker_memory if facts.settings is not None else None
    training = state == "working"  # which takes the very memory that is asked for
    return [
        *facts.problems,
        # Files are signed by the identity: nothing uses a carried site's certificate.
        None if facts.carried is not None else health_checks.certificate(facts.certificate_expires, facts.now),
        health_checks.disk(facts.disk_free, disk_needed(facts.model), str(facts.directory)),
        health_checks.memory(
            None if training else facts.memory_available,
            memory.default() if allowed is None else allowed,
            TRAINING_BYTES,
        ),
        *(health_checks.contract(contract, facts.now) for contract in facts.contracts),
        standing.finding(facts.carried, facts.now) if facts.carried is not None else health_checks.agent(state),
        health_checks.link(state, str(facts.agent.get("error", ""))),
        overridden(health_facts.overrides(facts.agent)),
        health_checks.approvals(facts.waiting),
        health_checks.pause(facts.pause),
        health_checks.conditions(facts.not_now),
        health_checks.outbox(facts.unsent, facts.unsent_since, facts.now),
        *(health_checks.budget(balance) for balance in facts.balances),
        forgotten.finding(facts.runs_forgotten),
        health_checks.uncounted(facts.balances),
    ]


def overridden(given: Sequence[str]) -> Finding | None:
    """Whether the agent goes by settings of its command line, which no other command sees."""
    if not given:
        return None
    return Finding(
        code="overrides",
        severity="info",
        title="the agent was started with settings of its own",
        text=", ".join(given),
        remedy="put them into site.yaml: the other commands (data check, doctor, privacy, rounds) go by that file",
    )


def disk_needed(model: Installed | None) -> int:
    """Bytes that have to be free for answers and a release of this site's size."""
    return DISK_BYTES + PAYLOADS_KEPT * (model.manifest.fp32_bytes if model is not None else 0)


def value(who: Site, facts: Facts, found: Sequence[Finding]) -> dict[str, Any]:
    """The whole as JSON; nothing in it is a reading, a key or the name of an entity."""
    expires = facts.certificate_expires
    rules = facts.settings.policy if facts.settings is not None else None
    return {
        "schema": SCHEMA,
        "site": {"id": who.id, "name": who.name},
        "federation": {"id": who.federation.id, "name": who.federation.name, "address": who.federation.address},
        "certificate": {
            "expires": None if expires is None else instants.text(expires),
            "days": None if expires is None else round(health_checks.days(expires, facts.now), 1),
        },
        "agent": dict(facts.agent),
        "pause": None if facts.pause is None else pauses.plain(facts.pause),
        "not_now": list(facts.not_now),
        "approvals": {"waiting": list(facts.waiting)},
        "outbox": {
            "unsent": facts.unsent,
            "since": None if facts.unsent_since is None else instants.text(facts.unsent_since),
        },
        "carried": standing.plain(facts.carried),
        "budget": {
            "epsilon_max": None if rules is None else rules.epsilon_max,
            "delta": None if rules is None else rules.delta,
            "open": facts.runs_open,
            "finished": facts.runs_finished,
            "sources": [_balance(balance) for balance in facts.balances],
        },
        "data": [
            {
                "task": contract.task,
                "checked": None if contract.checked is None else instants.text(contract.checked),
                "codes": list(contract.codes),
            }
            for contract in facts.contracts
        ],
        "model": _model(facts.model),
        "host": {"disk_free": facts.disk_free, "memory_available": facts.memory_available},
        "findings": [health.plain(finding) for finding in found],
    }


def _balance(balance: Balance) -> Mapping[str, Any]:
    return {
        "source": balance.source,
        "unit": balance.unit,
        "epsilon": balance.epsilon,
        "left": balance.left,
        "runs": balance.runs,
    }


def _model(installed: Installed | None) -> Mapping[str, Any] | None:
    if installed is None:
        return None
    manifest = installed.manifest
    return {"version": manifest.version, "task": manifest.task.get("name"), "slot": installed.slot, "verified": True}
