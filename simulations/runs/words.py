"""A simulation in words and in a table, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from fedsite.protocol import output, shape
from fedsite.simulations.audits.audit import Audited
from fedsite.simulations.demo.figures import number
from fedsite.simulations.runs.results import Simulation
from fedsite.simulations.sweeps import seeds
from fedsite.simulations.sweeps.manifest import Cell, Manifest
from fedsite.simulations.sweeps.seeds import Estimate


def verdict(found: Simulation) -> list[str]:
    """What a person wants to know of one run."""
    metric = found.metric
    unit = f" {metric.unit}" if metric.unit not in ("", "1") else ""
    who = f"{found.cohort} of {found.sites} sites" if found.cohort < found.sites else f"{found.sites} sites"
    lines = [f"{metric.name} {_text(metric.global_)}{unit} after {found.rounds} rounds of {who}"]
    beside = [
        f"{label} {_text(value)}"
        for label, value in (
            ("central", metric.central),
            ("a site alone", metric.local_only),
            ("at the start", metric.initial),
        )
        if value is not None
    ]
    if beside:
        lines.append(f"beside it: {', '.join(beside)} ({metric.better} is better)")
    if metric.sites is not None and metric.sites.sites > 1:
        spread = metric.sites
        lines.append(
            f"at single sites: worst {number(spread.worst)}, 10th percentile {number(spread.p10)}, "
            f"median {number(spread.median)}, best {number(spread.best)}"
        )
    lines.append(f"privacy: {claims(found)}")
    if found.audit is not None:
        lines.append(f"audit: {shape.read(Audited, found.audit)}")
    if found.attack is not None:
        lines.append(attack(found.attack, found.sites))
    lines.append(
        f"each site and round: {size(found.bytes_up_per_site_round)} up, {size(found.bytes_down_per_site_round)} down"
        + (f"; about {found.predicted_minutes:.2g} minutes in all" if found.predicted_minutes is not None else "")
    )
    lines.append(f"engine {found.engine}, executor {found.executor}: {number(found.seconds_per_round)} s a round")
    lines += [f"  not {name}: {reason}" for name, reason in found.passed_over.items()]
    return lines


def attack(done: Mapping[str, Any], sites: int) -> str:
    """Who attacked, and what came of it."""
    text = f"attack: {done['kind']} by {done['attackers']} of {sites} sites"
    if done.get("success") is None:
        return text
    return f"{text}, success {number(done['success'])} (before round 1: {_text(done['success_at_start'])})"


def claims(found: Simulation) -> str:
    """The ε of a run; two claims are two."""
    parts = []
    if found.epsilon_max is not None:
        parts.append(f"ε = {output.epsilon(found.epsilon_max)} per {found.privacy.unit}, δ = {found.privacy.delta:g}")
    if found.site_epsilon is not None:
        parts.append(f"ε = {output.epsilon(found.site_epsilon)} per site in the sums, δ = {found.privacy.site_delta:g}")
    return "; and apart from it ".join(parts) or "none, no claim"


def table(known: Manifest, done: Sequence[tuple[Cell, Simulation]]) -> Table:
    """One row for all seeds of a setting."""
    head = ("run", "seeds", done[0][1].metric.name, "worst site", "central", "ε", "minutes", "s a round")
    rows = []
    for group in seeds.groups(done, known.swept):
        first = group.runs[0]
        rows.append(
            (
                group.label or first.task,
                str(len(group.runs)),
                interval(group.metric()),
                interval(seeds.estimate(run.metric.sites.worst if run.metric.sites else None for run in group.runs)),
                interval(seeds.estimate(run.metric.central for run in group.runs)),
                "–" if first.epsilon_max is None else output.epsilon(first.epsilon_max),
                "–" if first.predicted_minutes is None else f"{first.predicted_minutes:.2g}",
                f"{sum(run.seconds_per_round for run in group.runs) / len(group.runs):.2g}",
            )
        )
    kept = [place for place in range(len(head)) if any(row[place] != "–" for row in rows)]
    found = Table(box=None, padding=(0, 1), header_style="dim")
    for place in kept:
        found.add_column(head[place], justify="right" if place else "left", no_wrap=bool(place))
    for row in rows:
        found.add_row(*(row[place] for place in kept))
    return found


def interval(found: Estimate | None) -> str:
    """A mean with half the width of its interval."""
    if found is None:
        return "–"
    return number(found.mean) if found.half is None else f"{number(found.mean)} ± {found.half:.2g}"


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def _text(value: float | None) -> str:
    return "–" if value is None else number(value)
