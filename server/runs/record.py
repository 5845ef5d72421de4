"""What a run amounts to, gathered while it runs: per round, per site, per phase; written as `fedsite.result/1`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedsite.models.spends import Asked
from fedsite.protocol.plan import SITE, RoundPlan
from fedsite.server.link.transport import SiteLink
from fedsite.server.rounds import spent
from fedsite.server.rounds.machine import Ignored
from fedsite.server.rounds.question import Result
from fedsite.server.runs.folder import RESULT_SCHEMA


@dataclass(slots=True, kw_only=True)
class SiteRecord:
    """One site's part in the run; nothing of it comes from its data."""

    site_id: str
    name: str
    prepared: str = ""  # status of its answer to the plan
    code: str | None = None  # last refusal or failure code
    rounds: dict[int, str] = field(default_factory=dict)  # round -> status
    trained: int = 0  # train instructions sent to it: what it was charged for at most
    counted: int = 0  # last round whose model its update is in; kept only of runs with control variates
    evaluated: int = 0
    statistics: bool = False
    calibrated: bool = False
    installed: str = ""  # "ok", or why it did not install the release
    epsilon: float | None = None  # per window or entity
    site_epsilon: float | None = None  # per site, in the sums
    bytes_up: int = 0
    bytes_down: int = 0
    seconds: float = 0.0

    def plain(self) -> dict[str, Any]:
        """As it stands in the result."""
        return {
            "site_id": self.site_id,
            "name": self.name,
            "prepared": self.prepared,
            "code": self.code,
            "rounds": [{"number": number, "outcome": found} for number, found in sorted(self.rounds.items())],
            "trained": self.trained,
            "installed": self.installed or None,
            "epsilon": self.epsilon,
            "site_epsilon": self.site_epsilon,
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
            "seconds": round(self.seconds, 3),
        }


@dataclass(slots=True, kw_only=True)
class RoundRecord:
    """One round as it ended."""

    number: int
    outcome: str
    reason: str
    participants: int
    asked: int
    seconds: float
    bytes_up: int
    bytes_down: int
    ignored: dict[str, int]
    loss: float | None = None  # mean of the sites' training losses, only without privacy
    metric: float | None = None  # federated evaluation of the model this round produced

    def late(self, count: int) -> None:
        """Add late replies, which also come when the round is long over."""
        if count:
            self.ignored[str(Ignored.LATE)] = self.ignored.get(str(Ignored.LATE), 0) + count

    def plain(self) -> dict[str, Any]:
        """As it stands in the result and in the event `round_finished`."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**found, "seconds": round(self.seconds, 4)}


class Record:
    """Gathers."""

    def __init__(self, plan: RoundPlan, *, epoch: int = 1) -> None:
        """`epoch`: which of the run's drivers this one is, from 1."""
        self._plan = plan
        # With noise of the sum's, each driver that died may have had a round of its own paid for.
        self._lost = epoch - 1 if plan.privacy.site_level else 0
        self.sites: dict[str, SiteRecord] = {}
        self.rounds: list[RoundRecord] = []
        self.release_refusal: str | None = None  # why the int8 model was not released
        self._phases: dict[str, dict[str, Any]] = {}
        self._late: Counter[int] = Counter()  # of training rounds
        self._sums: list[dict[str, Any]] = []

    def site(self, link: SiteLink) -> SiteRecord:
        """The record of a site, new if it was not known."""
        found = self.sites.setdefault(link.site_id, SiteRecord(site_id=link.site_id, name=link.name))
        found.name = link.name
        return found

    def phase(self, name: str, seconds: float, bytes_up: int = 0, bytes_down: int = 0) -> None:
        """Add to a phase."""
        entry = self._phases.setdefault(name, {"name": name, "seconds": 0.0, "bytes_up": 0, "bytes_down": 0})
        entry["seconds"] = round(entry["seconds"] + seconds, 4)
        entry["bytes_up"] += bytes_up
        entry["bytes_down"] += bytes_down

    def exchange(self, phase: str, result: Result) -> None:
        """Add an exchange to its phase and to the sites that were asked."""
        self.phase(phase, result.seconds, result.bytes_up, result.bytes_down)
        for site_id, answer in result.answers.items():
            record = self.sites[site_id]
            record.bytes_up += answer.bytes_up
            record.bytes_down += answer.bytes_down
            record.seconds += answer.seconds
            if answer.code is not None:
                record.code = str(answer.code)
        self._late.update(late.round for late in result.late if late.phase == "train")
        for found in self.rounds:
            found.late(self._late.pop(found.number, 0))

    def secure_sum(self, facts: Mapping[str, Any]) -> None:
        """Add what the journal says of a secure sum, without its hashes."""
        told = ("round", "purpose", "attempt", "group", "outcome", "reason", "words", "stages")
        sizes = {"cohort": len(facts["u1"]), "shared": len(facts["u2"]), "survivors": len(facts["u3"])}
        self._sums.append({name: facts[name] for name in told} | sizes)

    def trained(self, number: int, result: Result, *, evaluated: bool, loss: float | None) -> RoundRecord:
        """Add a round of training."""
        for site_id, answer in result.answers.items():
            record = self.sites[site_id]
            record.rounds[number] = str(answer.status)
            if answer.charged:
                # A silent, late or lost site may have trained: it is charged here as it is at home.
                record.trained += 1
                record.evaluated += evaluated
        found = RoundRecord(
            number=number,
            outcome=str(result.state.outcome),
            reason=result.state.reason,
            participants=len(result.participants),
            asked=len(result.answers),
            seconds=result.seconds,
            bytes_up=result.bytes_up,
            bytes_down=result.bytes_down,
            ignored={str(why): count for why, count in result.state.ignored.items() if why is not Ignored.LATE},
            loss=loss,
        )
        found.late(self._late.pop(number, 0))
        self.rounds.append(found)
        return found

    def evaluation(self, number: int, metric: float | None) -> None:
        """Add the federated evaluation of the model that round `number` produced."""
        for found in self.rounds:
            if found.number == number:
                found.metric = metric

    def restore(self, trained: Mapping[str, int], counted: Mapping[str, int]) -> None:
        """Take over what an earlier attempt asked, rounded up: it may have died in the middle of a round.

        Args:
            trained: train instructions sent, by site id.
            counted: the last round that a site's update is in, by site id.
        """
        for site_id, count in trained.items():
            self.sites[site_id] = SiteRecord(
                site_id=site_id,
                name=site_id[:8],
                trained=count + 1,
                counted=counted.get(site_id, 0),
                evaluated=count + 1,
                statistics=True,
            )

    def charge(self) -> dict[str, float]:
        """Set each site's ε from what it was asked for; the largest by privacy unit, empty where nothing is private."""
        known: dict[Asked, dict[str, float]] = {}
        largest: dict[str, float] = dict.fromkeys(self._plan.privacy.units, 0.0)
        for record in self.sites.values():
            asked = Asked(
                trained=min(record.trained + self._lost, max(record.trained, self._plan.rounds.count)),
                evaluated=record.evaluated,
                statistics=record.statistics,
                calibrated=record.calibrated,
            )
            if asked not in known:
                known[asked] = spent.epsilons(self._plan, asked)
            for unit, epsilon in known[asked].items():
                largest[unit] = max(largest[unit], epsilon)
                if unit == SITE:
                    record.site_epsilon = epsilon
                else:
                    record.epsilon = epsilon
        return largest

    def result(
        self, *, outcome: str, reason: str, seconds: float, metric: float | None, release: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """The whole document."""
        plan, task_metric = self._plan, self._plan.task.get("metric", {})
        private, sums = plan.privacy.sample_level, plan.privacy.site_level
        paid = [record.epsilon for record in self.sites.values() if record.epsilon is not None]
        paid_in_sums = [record.site_epsilon for record in self.sites.values() if record.site_epsilon is not None]
        return {
            "schema": RESULT_SCHEMA,
            "run_id": plan.run_id,
            "task": plan.task_name,
            "plan_hash": plan.hash,
            "outcome": outcome,
            "reason": reason,
            "seconds": round(seconds, 3),
            "protection": plan.protection.mode,
            "strategy": plan.strategy.name,
            "parameters": plan.model.parameters,
            "metric": {
                "name": task_metric.get("name", ""),
                "better": task_metric.get("better", ""),
                "unit": task_metric.get("unit", ""),
                "global": metric,
                "noised": plan.privacy.mode != "none" and plan.privacy.evaluation_noise > 0,
            },
            "privacy": {
                "mode": plan.privacy.mode,
                "unit": plan.privacy.unit if private else None,
                "adjacency": plan.privacy.adjacency if private else None,
                "delta": plan.privacy.delta if private else None,
                "epsilon_target": plan.privacy.epsilon if private else None,
                "epsilon_max": max(paid) if paid else None,
                "noise_multiplier": plan.privacy.noise_multiplier if private else None,
                "accountant": plan.privacy.accountant if private else None,
                "site": {
                    "adjacency": plan.privacy.site.adjacency,
                    "delta": plan.privacy.site.delta,
                    "epsilon_target": plan.privacy.site.epsilon,
                    "epsilon_max": max(paid_in_sums) if paid_in_sums else None,
                    "noise_multiplier": plan.privacy.site.noise_multiplier,
                    "mechanism": plan.privacy.site.mechanism,
                    "colluding": plan.protection.terms.colluding,
                }
                if sums
                else None,
            },
            "secagg": self._secagg(),
            "rounds": [found.plain() for found in self.rounds],
            "sites": [record.plain() for record in sorted(self.sites.values(), key=lambda item: item.name)],
            "phases": list(self._phases.values()),
            "release": None if release is None else dict(release),
            "release_refusal": self.release_refusal,
        }

    def _secagg(self) -> dict[str, Any] | None:
        """Cohorts and costs of the secure sums; None where there were none."""
        if self._plan.protection.mode != "secagg":
            return None
        stages: dict[str, dict[str, Any]] = {}
        for facts in self._sums:
            for stage in facts["stages"]:
                entry = stages.setdefault(stage["name"], {**stage, "seconds": 0.0, "bytes_up": 0, "bytes_down": 0})
                for name in ("seconds", "bytes_up", "bytes_down"):
                    entry[name] = round(entry[name] + stage[name], 4)
        terms = self._plan.protection.terms
        return {
            "min_cohort": terms.min_cohort,
            "min_survivors": terms.min_survivors,
            "colluding": terms.colluding,
            "groups": self._plan.protection.groups,
            "stages": list(stages.values()),
            "sums": self._sums,
        }
