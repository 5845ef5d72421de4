"""A simulation or a sweep as one self-contained HTML page: no script, no request to anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from fedsite.models import metrics
from fedsite.protocol import output
from fedsite.protocol.errors import ConfigError
from fedsite.protocol.storage import write_atomic
from fedsite.simulations.demo import figures
from fedsite.simulations.demo.figures import Level
from fedsite.simulations.pages import charts, sections
from fedsite.simulations.pages.charts import Point, Series
from fedsite.simulations.runs import words
from fedsite.simulations.runs.results import Simulation
from fedsite.simulations.sweeps import campaign, manifest, seeds, tables
from fedsite.simulations.sweeps.manifest import Cell, Manifest
from fedsite.simulations.sweeps.seeds import Estimate, Group

SITES = 30  # shown one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the page is made of."""

    manifest: Manifest
    runs: tuple[tuple[Cell, Simulation], ...]
    groups: tuple[Group, ...]
    sites: Mapping[str, list[Any]]  # columns of the only run's table; empty for a sweep

    @property
    def first(self) -> Simulation:
        """Stands for what all runs have in common."""
        return self.runs[0][1]

    @property
    def metric(self) -> str:
        """Its name, for people."""
        return label(self.first.metric.name)


def read(folder: Path) -> Shown:
    """The finished runs of a folder.

    Raises:
        ConfigError: there are none.
    """
    known = manifest.read(folder)
    runs = tuple(campaign.found(folder, known)) if known else ()
    if known is None or not runs:
        raise ConfigError(
            f"{folder} holds no finished simulation",
            allowed="a folder that fedsite simulate wrote, or a report.json of fedsite demo",
            next_step="fedsite simulate --out FOLDER",
        )
    path = folder / runs[0][0].folder / "sites.parquet"
    return Shown(
        manifest=known,
        runs=runs,
        groups=tuple(seeds.groups(runs, known.swept)),
        sites=tables.read(path) if len(runs) == 1 and path.exists() else {},
    )


def save(folder: Path) -> Path:
    """Write report.html into a simulation's folder; returns its path.

    Raises:
        ConfigError: the folder holds no finished run.
    """
    page = folder / "report.html"
    write_atomic(page, render(read(folder)).encode(), mode=0o644)
    return page


def render(shown: Shown) -> str:
    """The whole page as text."""
    package = files("fedsite.simulations")
    sheets = ("demo/report.css", "pages/simulation.css")
    style = "".join(package.joinpath(name).read_text(encoding="utf-8") for name in sheets)
    body = "".join(
        [
            _head(shown),
            _cards(shown),
            _learning(shown),
            _privacy(shown),
            _fairness(shown),
            sections.cost(shown.groups),
            sections.attacks(shown.runs, shown.manifest),
            sections.audits(shown.runs, shown.manifest),
            sections.cells(shown.manifest, shown.runs),
            sections.foot(shown.manifest, shown.first),
        ]
    )
    title = escape(f"fedsite · {shown.first.title}")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{style}</style></head><body><main>{body}</main></body></html>\n"
    )


def label(name: str) -> str:
    """A metric's name, for people."""
    return name.replace("_", " ").upper() if len(name) <= 5 else name.replace("_", " ")


def _head(shown: Shown) -> str:
    first, count = shown.first, len(shown.manifest.cells)
    what = "simulation" if count == 1 else f"sweep of {count} simulations"
    tasks = sorted({run.task for _, run in shown.runs})
    return (
        f"<header><h1>{escape(first.title)}</h1><p>{what} · task <code>{escape(', '.join(tasks))}</code> · "
        f"{escape(shown.manifest.created)}</p></header>"
        f'<p class="verdict">{escape(verdict(shown))}</p>'
    )


def verdict(shown: Shown) -> str:
    """The result in a sentence or two."""
    first, name = shown.first, shown.metric
    if len(shown.groups) == 1:
        found = shown.groups[0].metric()
        if found is None:
            return f"{first.rounds} rounds over {first.sites:,} sites, and no holdout to judge the model on."
        over = f", the mean of {found.seeds} seeds" if found.seeds > 1 else ""
        who = f"{first.cohort:,} of {first.sites:,}" if first.cohort < first.sites else f"{first.sites:,}"
        text = f"{first.rounds} rounds of {who} sites give {name} {words.interval(found)}{over}."
        central = seeds.estimate(run.metric.central for run in shown.groups[0].runs)
        if central is not None:
            text += f" Pooling all data in one place would give {words.interval(central)}."
        return text
    known = [(group, found) for group in shown.groups if (found := group.metric())]
    if not known:
        return "No holdout to judge the models on."
    sign = 1 if first.metric.better == "higher" else -1
    best, found = max(known, key=lambda pair: sign * pair[1].mean)
    last, other = min(known, key=lambda pair: sign * pair[1].mean)
    return (
        f"Best of {len(known)} settings: {best.label}, with {name} {words.interval(found)}; last is {last.label} with "
        f"{words.interval(other)}. {first.metric.better.capitalize()} is better."
    )


def _cards(shown: Shown) -> str:
    first = shown.first
    best = words.interval(shown.groups[0].metric()) if len(shown.groups) == 1 else str(len(shown.groups))
    spent = {run.epsilon_max for _, run in shown.runs}
    claim = "not private" if spent == {None} else ", ".join(sorted(_epsilon(value) for value in spent))
    minutes = [run.predicted_minutes for _, run in shown.runs if run.predicted_minutes is not None]
    cards = [
        (shown.metric if len(shown.groups) == 1 else "settings", best, f"{first.metric.better} is better"),
        (
            "ε",
            claim if len(claim) < 16 else f"{len(spent)} values",
            words.claims(first) if len(spent) == 1 else "by run",
        ),
        ("sites", f"{first.sites:,}", f"{first.cohort:,} in a round, {first.windows:,} windows"),
        ("each site sends", words.size(first.bytes_up_per_site_round), "in a round, with what its protection adds"),
        (
            "would take",
            f"{max(minutes):.2g} min" if minutes else "–",
            _prediction(first),
        ),
        ("computed in", f"{first.seconds_per_round:.2g} s", f"a round, {first.engine}, executor {first.executor}"),
    ]
    cells = "".join(
        f'<div class="card"><div class="name">{escape(name)}</div><div class="figure">{escape(figure)}</div>'
        f'<div class="note">{escape(note)}</div></div>'
        for name, figure, note in cards
    )
    return f'<div class="cards">{cells}</div>'


def _learning(shown: Shown) -> str:
    lines = [
        Series(
            label=group.label,
            points=[_point(at, found, shown.first.metric.name) for at, found in group.curve()],
        )
        for group in shown.groups
    ]
    if not any(line.points for line in lines):
        return "<section><h2>Learning curves</h2><p>No model was judged.</p></section>"
    levels = []
    for name, style, value in (
        ("central", "central", seeds.estimate(run.metric.central for _, run in shown.runs)),
        ("a site alone", "local", seeds.estimate(run.metric.local_only for _, run in shown.runs)),
    ):
        if value is not None:
            levels.append(Level(label=name, style=style, value=value.mean))
    several = max(len(group.runs) for group in shown.groups) > 1
    band = (
        " Bands are 95 % confidence intervals of the mean over seeds (Student’s t)." if several
        else " One seed: what another one would give is not shown."
    )  # fmt: skip
    beside = " Dashed: the baselines’ mean over all runs." if levels else ""
    chart = charts.bands(lines, levels, x_label="round", y_label=shown.metric)
    return (
        f"<section><h2>Learning curves</h2><p>The global model on all holdouts together, exact.{band}{beside}</p>"
        f"{sections.legend([group.label for group in shown.groups])}{chart}</section>"
    )


def _privacy(shown: Shown) -> str:
    """Utility against ε, where there is more than one."""
    values = {run.epsilon_max if run.epsilon_max is not None else run.site_epsilon for _, run in shown.runs}
    known = sorted(value for value in values if value is not None)
    if len(values) < 2 or not known:
        return ""
    nowhere = known[-1] * 3  # where runs without noise are drawn
    lines: dict[str, list[Point]] = {}
    for group in shown.groups:
        run, found = group.runs[0], group.metric()
        if found is None:
            continue
        spent = run.epsilon_max if run.epsilon_max is not None else run.site_epsilon
        rest = [item for item in group.overrides if not item.startswith("privacy")]
        name = " ".join(item.partition("=")[2] for item in rest if item.partition("=")[0] in shown.manifest.swept)
        x = nowhere if spent is None else spent
        lines.setdefault(name, []).append(_point(x, found, run.metric.name))
    series = [Series(label=name, points=sorted(found, key=lambda point: point.x)) for name, found in lines.items()]
    marks = [*((value, output.epsilon(value)) for value in known), (nowhere, "no noise")]
    chart = charts.points(series, x_label="ε, of the claim that the run makes", y_label=shown.metric, words=marks)
    return (
        "<section><h2>Utility against ε</h2><p>Smaller ε is more privacy. Whiskers are 95 % confidence intervals over "
        f"seeds.</p>{sections.legend(list(lines))}{chart}</section>"
    )


def _fairness(shown: Shown) -> str:
    found = [row for group in shown.groups if (row := sections.box(group))]
    if not found or all(group.runs[0].metric.sites.sites < 2 for group in shown.groups if group.runs[0].metric.sites):
        return ""
    text = (
        f"<section><h2>Fairness across sites</h2><p>The final model on each site’s own holdout: box from quartile to "
        f"quartile, line at the median, dot at the worst site, short mark at the tenth percentile from the worst"
        f"{', each the mean over seeds' if max(len(group.runs) for group in shown.groups) > 1 else ''}.</p>"
        f"{charts.boxes(found, x_label=shown.metric)}{sections.spreads(shown.groups)}"
    )
    names = shown.sites.get("site", [])
    if 1 < len(names) <= SITES:
        columns = zip(names, shown.sites["metric"], shown.sites["local_only"], strict=True)
        rows = [
            (
                str(name),
                [
                    figures.Bar(label="federated", style="global", value=value),
                    figures.Bar(label="alone", style="local", value=alone),
                ],
            )
            for name, value, alone in columns
        ]
        text += (
            '<ul class="key"><li><span class="swatch global"></span>federated</li><li><span class="swatch local"></span>'
            f"its own model</li></ul>{figures.bars(rows, y_label=shown.metric)}"
        )
    return text + "</section>"


def _point(x: float, found: Estimate, metric: str) -> Point:
    """No interval is drawn past values that the metric can have."""
    top = None if metric in metrics.REGRESSION else 1.0
    high = found.high if top is None else max(found.mean, min(found.high, top))
    return Point(x=x, mean=found.mean, low=min(found.mean, max(found.low, 0.0)), high=high)


def _prediction(run: Simulation) -> str:
    return f"foreseen, from {run.fleet.calibration}" if run.fleet else "no fleet was modelled"


def _epsilon(value: float | None) -> str:
    return "none" if value is None else output.epsilon(value)


__all__: Sequence[str] = ("Shown", "read", "render", "save", "verdict")
