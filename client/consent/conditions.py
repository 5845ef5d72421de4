"""Whether this site works now: its hours and the state of its host. Facts and rules in, a reason or None out.

Rules:
 1. A condition that does not hold puts work off; it never ends what has begun, and never refuses for good.
 2. A fact that the host does not tell blocks nothing: it is shown as a finding instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from fedsite.client.consent import hours
from fedsite.client.health.findings import Finding
from fedsite.client.settings import PolicySettings, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a host says about itself; None where it does not."""

    local_time: datetime
    on_mains: bool | None = None
    cpu_celsius: float | None = None  # the hottest of the processor's sensors
    metered: bool | None = None  # whether bytes of the way out cost money
    memory_available: int | None = None  # bytes
    load: float | None = None  # processes that want to run, per processor, over the last minute


def reasons(rules: PolicySettings, facts: Facts) -> list[str]:
    """Every reason why this site does not work now, as sentences with the value found and the value allowed."""
    found = []
    opens = hours.opening(rules.hours, facts.local_time)
    if opens != facts.local_time:
        then = "never" if opens is None else f"{hours.DAYS[opens.weekday()]} {opens:%H:%M}"
        found.append(f"{facts.local_time:%H:%M} is outside policy.hours; the next begin {then}")
    if rules.mains_only and facts.on_mains is False:
        found.append("the host runs on its battery (policy.mains_only)")
    if rules.no_metered and facts.metered is True:
        found.append("the way to the server is metered (policy.no_metered)")
    found += _above("the processor is at", "°C", facts.cpu_celsius, rules.max_celsius, "policy.max_celsius")
    found += _above("the load is", " a processor", facts.load, rules.load_max, "policy.load_max")
    least, free = rules.memory_free, facts.memory_available
    if least is not None and free is not None and free < least:
        found.append(f"{free} bytes of memory are free; allowed: at least {least} (policy.memory_free)")
    return found


def unknown(rules: PolicySettings, facts: Facts) -> list[Finding]:
    """One finding for each rule that cannot be kept, because the host does not tell the fact it is about."""
    asked = {
        "mains_only": (rules.mains_only, facts.on_mains, "whether it runs on mains power"),
        "no_metered": (rules.no_metered, facts.metered, "whether its network is metered"),
        "max_celsius": (rules.max_celsius is not None, facts.cpu_celsius, "how hot its processor is"),
        "load_max": (rules.load_max is not None, facts.load, "its load"),
        "memory_free": (rules.memory_free is not None, facts.memory_available, "how much memory is free"),
    }
    return [
        Finding(
            code=f"condition-{name.replace('_', '-')}",
            severity="warning",
            title="A condition of yours is not kept",
            text=f"policy.{name} is set, and this host does not tell {what}: work is not put off for it",
            remedy="agent.metered=yes or no says it"
            if name == "no_metered"
            else f"take policy.{name} out of site.yaml",
        )
        for name, (wanted, fact, what) in asked.items()
        if wanted and fact is None
    ]


def gate(
    settings: Callable[[], Settings], facts: Callable[[Settings], Facts], paused: Callable[[], str | None]
) -> Callable[[], str | None]:
    """What the handler asks before it touches data: why not now, or None.

    Args:
        settings: the operator's, as they are now.
        facts: reads what the host says, as far as these settings ask for it.
        paused: why the operator has paused the agent, or None.
    """

    def not_now() -> str | None:
        pause = paused()
        if pause is not None:
            return pause
        chosen = settings()
        return "; ".join(reasons(chosen.policy, facts(chosen))) or None

    return not_now


def _above(what: str, unit: str, value: float | None, most: float | None, name: str) -> list[str]:
    if value is None or most is None or value <= most:
        return []
    return [f"{what} {value:.3g}{unit}; allowed: at most {most:g} ({name})"]
