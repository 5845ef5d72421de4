"""`fedsite doctor`: measures what a site needs, step by step, each in bounded time, and gathers what is not well.

It needs neither an agent nor a server, nor even that this host has joined: what cannot be measured is said.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fedsite.client import settings
from fedsite.client.health import checks as health_checks
from fedsite.client.health import doctor_host, overview
from fedsite.client.health import facts as health_facts
from fedsite.client.health import findings as health
from fedsite.client.health.doctor_network import Network, Way
from fedsite.client.health.facts import Facts
from fedsite.client.health.findings import Finding
from fedsite.client.identity import pair, site
from fedsite.client.identity.site import Site
from fedsite.client.settings import Settings
from fedsite.client.work import memory
from fedsite.protocol import instants, output
from fedsite.protocol.errors import FedsiteError
from fedsite.protocol.federation import Federation

SCHEMA: Final = "fedsite.doctor/1"


@dataclass(slots=True)
class Doctor:
    """One examination; `say` is told what is under way, for people who wait."""

    directory: Path
    say: Callable[[str], None] = lambda text: None
    way: Callable[[Federation], Way] = Way
    contract: Callable[[str], tuple[str, Finding | None]] = doctor_host.contract
    steps: list[dict[str, Any]] = field(default_factory=list)
    found: list[Finding | None] = field(default_factory=list)
    network: Network | None = None

    def examine(self) -> dict[str, Any]:
        """Everything, as one value (`fedsite.doctor/1`)."""
        chosen = self._settings()
        who = self._identity()
        federation = self._federation(who)
        self._step("disk", lambda: (self._disk(), doctor_host.writable(self.directory)))
        self._step("memory", lambda: (_memory(), None))
        for task in health_facts.named_tasks(chosen) if chosen is not None else ():
            self._step(f"data of {task}", lambda task=task: self.contract(task))  # type: ignore[misc]
        facts = None if who is None else self._facts(who)
        if facts is not None and facts.carried is not None:
            self._step("server", lambda: ("not asked: this site takes part by files (fedsite exchange)", None))
        elif federation is not None:
            self._measure(federation, facts)
        self.found += self._bare(chosen) if facts is None else overview.checks(facts)
        present = health.present(self.found)
        return {
            "schema": SCHEMA,
            "ok": all(finding.severity != "error" for finding in present),
            "exit_code": int(health.exit_code(present)),
            "steps": self.steps,
            "network": None if self.network is None else _plain(self.network),
            "findings": [health.plain(finding) for finding in present],
        }

    def _settings(self) -> Settings | None:
        found: list[Settings] = []

        def read() -> tuple[str, Finding | None]:
            try:
                found.append(settings.load(self.directory))
            except Exception as error:
                if not hasattr(error, "found"):
                    raise
                return "", health.from_error("settings", "site.yaml is broken", error)
            there = (self.directory / settings.FILE).exists()
            return f"{settings.FILE} " + ("is good" if there else "is not there: every setting is as shipped"), None

        self._step("settings", read)
        return found[0] if found else None

    def _identity(self) -> Site | None:
        found: list[Site] = []

        def read() -> tuple[str, Finding | None]:
            try:
                who = site.load(self.directory)
            except FedsiteError as error:
                return "", health.from_error("identity", "this host is no site", error)
            found.append(who)
            return f"{who.name} ({who.id}) of {who.federation.name}", None

        self._step("identity", read)
        return found[0] if found else None

    def _federation(self, who: Site | None) -> Federation | None:
        if who is not None:
            return who.federation
        try:
            return site.load_federation(self.directory)
        except FedsiteError:
            return None  # it never joined, or the identity says so already

    def _facts(self, who: Site) -> Facts:
        found: list[Facts] = []

        def read() -> tuple[str, None]:
            found.append(health_facts.read(who, instants.now()))
            runs = f"{found[0].runs_open} runs open, {found[0].runs_finished} finished"
            left = [item.left for item in found[0].balances if item.left is not None]
            return runs + (f"; at least ε {output.epsilon_left(min(left))} left on each source" if left else ""), None

        self._step("ledger", read)
        return found[0]

    def _measure(self, federation: Federation, facts: Facts | None) -> None:
        """The way to the server, as far as it goes."""
        way = self.way(federation)
        self.network = way.found
        tls = []

        def accepted() -> tuple[str, Finding | None]:
            try:
                tls.append(pair.tls(self.directory, federation))
            except (FedsiteError, OSError) as error:
                return "", health.from_error("certificate", "the certificate cannot be used", error)
            return _then(way.accepted(tls[0]), lambda: f"as this site, {way.found.latency_ms or 0.0:.0f} ms")

        size = doctor_host.payload(self.directory, facts)
        steps: list[tuple[str, Callable[[], tuple[str, Finding | None]]]] = [
            ("name", lambda: _then(way.resolve(), lambda: ", ".join(way.found.addresses[:3]))),
            ("connection", lambda: _then(way.connect(), lambda: f"{way.found.connect_ms:.0f} ms")),
            ("certificate", lambda: _then(way.handshake(), lambda: _secure(way.found))),
            ("admission", accepted),
            ("speed", lambda: _then(way.throughput(tls[0], size), lambda: _speed(way.found))),
        ]
        for name, step in steps:
            if self._step(name, step) == "error":
                break
            if name == "admission" and way.found.latency_ms is None:
                break  # an older server, which knows no measuring

    def _disk(self) -> str:
        free = health_facts.disk_free(self.directory)
        return "" if free is None else f"{health_checks.size(free)} free"

    def _bare(self, chosen: Settings | None) -> list[Finding | None]:
        """What can be said of a host that is no site."""
        free = health_facts.disk_free(self.directory)
        allowed = None if chosen is None else chosen.agent.worker_memory
        return [
            health_checks.disk(free, overview.disk_needed(None), str(self.directory)),
            health_checks.memory(
                health_facts.memory_available(),
                memory.default() if allowed is None else allowed,
                overview.TRAINING_BYTES,
            ),
        ]

    def _step(self, name: str, run: Callable[[], tuple[str, Finding | None]]) -> str:
        """Run one step and note what it found; returns the severity, empty when all is well."""
        self.say(f"{name} …")
        began = time.monotonic()
        text, finding = run()
        severity = "" if finding is None else finding.severity
        self.found.append(finding)
        self.steps.append(
            {
                "name": name,
                "ok": severity != "error",
                "text": text if severity != "error" or finding is None else finding.title,
                "seconds": round(time.monotonic() - began, 3),
            }
        )
        return severity


def _memory() -> str:
    available = health_facts.memory_available()
    needed = f"a round of training takes about {health_checks.size(overview.TRAINING_BYTES)}"
    return needed if available is None else f"{health_checks.size(available)} available; {needed}"


def _then(finding: Finding | None, text: Callable[[], str]) -> tuple[str, Finding | None]:
    """What a step found, in words that hold only where it did not fail."""
    return ("" if finding is not None and finding.severity == "error" else text()), finding


def _secure(found: Network) -> str:
    return f"{found.tls}, of this federation; clock {found.clock_ahead_s or 0.0:+.1f} s"


def _speed(found: Network) -> str:
    if found.upload_bytes_s is None or found.download_bytes_s is None or found.payload_bytes is None:
        return "not measured"
    up, down = (health_checks.size(round(speed)) for speed in (found.upload_bytes_s, found.download_bytes_s))
    return f"up {up} a second, down {down}; an update is {health_checks.size(found.payload_bytes)}"


def _plain(found: Network) -> dict[str, Any]:
    value = dataclasses.asdict(found)
    return {**value, "addresses": list(found.addresses)} | {
        name: round(number, 3) for name, number in value.items() if isinstance(number, float)
    }
