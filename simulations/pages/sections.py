"""Sections of a simulation's page that are tables: cost, attacks, audits, all runs, how to run them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from fedsite.protocol import output
from fedsite.simulations.demo import figures
from fedsite.simulations.demo.figures import Bar, number
from fedsite.simulations.pages import charts
from fedsite.simulations.pages.charts import Box
from fedsite.simulations.runs import words
from fedsite.simulations.runs.results import Simulation
from fedsite.simulations.sweeps import campaign, seeds
from fedsite.simulations.sweeps.manifest import Cell, Manifest
from fedsite.simulations.sweeps.seeds import Group


def legend(labels: Sequence[str]) -> str:
    """Colours of the groups; nothing where there is one without a name."""
    if labels in ([""], []):
        return ""
    items = "".join(
        f'<li><span class="swatch {charts.style(place)}"></span>{escape(label)}</li>'
        for place, label in enumerate(labels)
    )
    return f'<ul class="key">{items}</ul>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, text: int = 1) -> str:
    """A table of cells that are markup already; all but the first `text` columns are figures."""

    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}>{cell}</{tag}>" if place < text else f'<{tag} class="num">{cell}</{tag}>'
            for place, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{cells(head, "th")}</tr>{body}</table></div>'


def box(group: Group) -> Box | None:
    """The sites' marks, each the mean over seeds."""
    found = [run.metric.sites for run in group.runs if run.metric.sites is not None]
    if not found:
        return None

    def mean(name: str) -> float:
        return sum(getattr(spread, name) for spread in found) / len(found)

    marks = ("worst", "p10", "lower", "median", "upper", "best")
    return Box(label=group.label or "all sites", **{name: mean(name) for name in marks})


def spreads(groups: Sequence[Group]) -> str:
    """The same as figures, with intervals over seeds."""
    rows = []
    for group in groups:
        found = [run.metric.sites for run in group.runs]
        row = [
            words.interval(seeds.estimate(getattr(spread, name) if spread else None for spread in found))
            for name in ("worst", "p10", "median", "best", "deviation")
        ]
        rows.append([escape(group.label or "all sites"), *row])
    return table(["", "worst site", "10th percentile", "median", "best", "deviation"], rows)


def cost(groups: Sequence[Group]) -> str:
    """Bytes, minutes and seconds of every setting."""
    rows = []
    for group in groups:
        run = group.runs[0]
        up = sum(done.bytes_up or 0 for done in run.curve)
        down = sum(done.bytes_down or 0 for done in run.curve)
        minutes = seeds.estimate(each.predicted_minutes for each in group.runs)
        rows.append(
            [
                escape(group.label or run.task),
                words.size(run.bytes_up_per_site_round),
                words.size(run.bytes_down_per_site_round),
                words.size(up),
                words.size(down),
                words.interval(minutes),
                f"{sum(each.seconds_per_round for each in group.runs) / len(group.runs):.2g}",
                escape(run.executor),
            ]
        )
    head = [
        "",
        "up, site and round",
        "down",
        "up, all",
        "down, all",
        "minutes it would take",
        "s a round, here",
        "executor",
    ]
    passed = {name: reason for group in groups for name, reason in group.runs[0].passed_over.items()}
    slower = "".join(f"<li>not {escape(name)}: {escape(reason)}</li>" for name, reason in passed.items())
    by = groups[0].runs[0].fleet
    text = f" Minutes are predicted by {escape(by.calibration)}." if by else ""
    return (
        f"<section><h2>Cost</h2><p>Bytes are those of the real messages, with what secure aggregation adds.{text}</p>"
        f"{table(head, rows)}{f'<ul>{slower}</ul>' if slower else ''}</section>"
    )


def attacks(runs: Sequence[tuple[Cell, Simulation]], known: Manifest) -> str:
    """What attackers reached, where there were any."""
    rows = [
        (
            campaign.name(known, cell) or str(run.attack["kind"]),
            [
                Bar(label="success", style="local", value=run.attack.get("success")),
                Bar(label="at the start", style="central", value=run.attack.get("success_at_start")),
            ],
        )
        for cell, run in runs
        if run.attack
    ]
    chart = (
        figures.bars(rows, y_label="success") if any(bar.value is not None for _, row in rows for bar in row) else ""
    )
    key = _key((("local", "attack’s success"), ("central", "the same before round 1"))) if chart else ""
    text = "Sites that attacked, and how often the final model does what they want."
    return _facts("Attack", text, [(cell, run.attack) for cell, run in runs], key + chart)


def audits(runs: Sequence[tuple[Cell, Simulation]], known: Manifest) -> str:
    """What an attacker could show against the claim, where one tried."""
    rows = [
        (
            campaign.name(known, cell) or "ε",
            [
                Bar(label="claimed", style="global", value=run.audit.get("epsilon_claimed")),
                Bar(label="shown", style="local", value=run.audit.get("epsilon_lower")),
            ],
        )
        for cell, run in runs
        if run.audit
    ]
    key = _key((("global", "ε claimed"), ("local", "ε shown at least")))
    chart = key + figures.bars(rows, y_label="ε") if rows else ""
    text = "A lower bound on ε that guessing canaries gives, beside what the training claims: above the claim it is broken."
    return _facts("Audit of the claim", text, [(cell, run.audit) for cell, run in runs], chart)


def _key(entries: Sequence[tuple[str, str]]) -> str:
    items = "".join(f'<li><span class="swatch {style}"></span>{escape(text)}</li>' for style, text in entries)
    return f'<ul class="key">{items}</ul>'


def _facts(title: str, text: str, found: Sequence[tuple[Cell, Mapping[str, Any] | None]], chart: str) -> str:
    rows = [(cell, flat(value)) for cell, value in found if value]
    if not rows:
        return ""
    names = list(dict.fromkeys(name for _, value in rows for name in value))
    lines = [
        [escape(" ".join(cell.overrides)), *(escape(shown(value.get(name))) for name in names)] for cell, value in rows
    ]
    head = ["run", *(escape(name.replace("_", " ")) for name in names)]
    return f"<section><h2>{title}</h2><p>{text}</p>{chart}{table(head, lines)}</section>"


def flat(value: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested facts as one level; what is long is left to the document."""
    found: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            found |= flat(item, f"{before}{key} ")
        elif not isinstance(item, list | tuple):
            found[before + key] = item
    return found


def shown(value: Any) -> str:
    """One fact, for people."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(float(value)) if isinstance(value, int | float) else str(value)


def cells(known: Manifest, runs: Sequence[tuple[Cell, Simulation]]) -> str:
    """Every run, and those that failed."""
    results = {cell.key: run for cell, run in runs}
    rows = []
    for cell in known.cells:
        run, name = results.get(cell.key), campaign.name(known, cell) or " ".join(cell.overrides)
        if run is None:
            why = f" {cell.failure.found}" if cell.failure else ""
            rows.append(
                [escape(name), f'<span class="outcome {escape(cell.state)}">{escape(cell.state)}</span>{escape(why)}']
            )
            rows[-1] += ["–"] * 5
            continue
        spread = run.metric.sites
        rows.append(
            [
                escape(name),
                f'<span class="outcome completed">{escape(run.outcome)}</span>',
                shown(run.metric.global_),
                shown(spread.worst if spread else None),
                shown(run.metric.central),
                "–" if run.epsilon_max is None else output.epsilon(run.epsilon_max),
                f"<code>{run.digest[:12]}</code>",
            ]
        )
    head = ["run", "outcome", escape(runs[0][1].metric.name), "worst site", "central", "ε", "weights"]
    open_ = "" if len(rows) > 12 else " open"
    return (
        f"<section><h2>All runs</h2><details{open_}><summary>{len(rows)}</summary>{table(head, rows, text=2)}</details>"
        "<p>The same as data: runs.csv, rounds.csv, and sites.csv of each run, also as Parquet.</p></section>"
    )


def foot(known: Manifest, first: Simulation) -> str:
    """How to run it again, and with what it was run."""
    versions = " · ".join(f"{escape(name)} {escape(version)}" for name, version in sorted(known.versions.items()))
    return (
        f"<footer>Reproduce: <code>{escape(known.command)}</code><br>plan <code>{first.plan_hash[:16]}</code> · "
        f"data <code>{first.data_hash[:16]}</code> · seeds and settings fix every bit of the weights<br>{versions}<br>"
        f"manifest.json ({escape(known.schema)}), result.json ({escape(first.schema)})</footer>"
    )
