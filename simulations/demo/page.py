"""The report as one self-contained HTML page: no script, no request to anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from fedsite.protocol.storage import write_atomic
from fedsite.simulations.demo import figures
from fedsite.simulations.demo.figures import Bar, Level, Line, number
from fedsite.simulations.demo.page_privacy import claims, server_saw, size, spend
from fedsite.simulations.demo.report import Report, encode

NAMES = {"global": "federated", "central": "central", "local": "local only", "int8": "int8 on the device"}


def render(report: Report) -> str:
    """The whole page as text."""
    style = files("fedsite.simulations.demo").joinpath("report.css").read_text(encoding="utf-8")
    body = "".join(
        [
            _head(report),
            _cards(report),
            _learning(report),
            _sites(report),
            _release(report),
            spend(report),
            server_saw(report),
            _cost(report),
            _rounds(report),
            _foot(report),
        ]
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>fedsite · {escape(report.title)}</title><style>{style}</style></head><body><main>{body}</main></body></html>\n"
    )


def save(report: Report, folder: Path) -> Path:
    """Write report.json and report.html into `folder`; returns the page's path."""
    write_atomic(folder / "report.json", encode(report) + b"\n", mode=0o644)
    page = folder / "report.html"
    write_atomic(page, render(report).encode(), mode=0o644)
    return page


def verdict(report: Report) -> str:
    """The result in two sentences a person can repeat."""
    metric = report.metric
    if metric.global_ is None:
        return f"The run ended as “{report.outcome}” without a model to measure."
    text = "" if report.outcome == "completed" else f"The run ended early: {report.outcome}. "
    text += f"{len(report.sites)} sites trained one model together and no raw reading left any of them: {_metric(report)} {number(metric.global_)}{_unit(report)}."
    if metric.local_only is not None:
        gap = metric.local_only - metric.global_ if metric.better == "lower" else metric.global_ - metric.local_only
        word = "better than" if gap > 0 else "behind"
        text += f" That is {number(abs(gap))} {word} a model a site trains alone ({number(metric.local_only)})"
        text += (
            f", and pooling all data in one place would give {number(metric.central)}."
            if metric.central is not None
            else "."
        )
    return text


def _head(report: Report) -> str:
    return (
        f"<header><h1>{escape(report.title)}</h1>"
        f"<p>task <code>{escape(report.task)}</code> · run <code>{escape(report.run_id)}</code> · {escape(report.created)}</p></header>"
        f'<p class="verdict">{escape(verdict(report))}</p>'
    )


def _cards(report: Report) -> str:
    metric, privacy, release = report.metric, report.privacy, report.release
    figure, note = claims(privacy)
    cards = [
        (_metric(report) + ", federated", _value(metric.global_), f"{metric.better} is better"),
        ("privacy spent", figure, note),
        (
            "model on the device",
            size(release.bytes) if release else "none",
            f"int8, signed, {release.verified_sites} of {len(report.sites)} sites verified it"
            if release
            else "no release was made",
        ),
        ("time", _seconds(report.seconds), f"{len(report.rounds)} rounds, {report.parameters:,} parameters"),
        (
            "updates",
            escape(report.protection),
            {
                "secagg": "the server learned sums over the sites, never one site’s values",
                "sealed": "encrypted for this run only; the server read single updates",
            }.get(report.protection, "updates were readable by the server"),
        ),
    ]
    return (
        '<div class="cards">'
        + "".join(
            f'<div class="card"><div class="name">{escape(name)}</div><div class="figure">{escape(figure)}</div><div class="note">{escape(note)}</div></div>'
            for name, figure, note in cards
        )
        + "</div>"
    )


def _learning(report: Report) -> str:
    curve_points = [(float(item.number), item.metric) for item in report.rounds if item.metric is not None]
    if report.metric.initial is not None:
        curve_points.insert(0, (0.0, report.metric.initial))
    levels = [
        Level(label=label, style=style, value=value)
        for label, style, value in (
            ("central", "central", report.metric.central),
            ("local only", "local", report.metric.local_only),
        )
        if value is not None
    ]
    if not curve_points:
        return "<section><h2>Learning curve</h2><p>No round made a model.</p></section>"
    chart = figures.curve(
        [Line(label="federated", style="global", points=curve_points)], levels, x_label="round", y_label=_metric(report)
    )
    return f"<section><h2>Learning curve</h2><p>The global model after each round, on all holdouts, beside what pooling all data or staying alone would give. A real centre sees only what federated evaluation shows.</p>{chart}</section>"


def _sites(report: Report) -> str:
    groups = []
    for site in report.sites:
        row = [
            Bar(label=NAMES["global"], style="global", value=site.metric),
            Bar(label=NAMES["local"], style="local", value=site.local_only),
            Bar(label=NAMES["central"], style="central", value=site.central),
        ]
        groups.append((site.name, row))
    key = _key(["global", "local", "central"])
    return (
        f"<section><h2>Every site’s own holdout</h2><p>{escape(_metric(report))} on each site’s holdout ({report.metric.better} is better): the federated model, "
        f"the site’s own model, and the central one.</p>{key}{figures.bars(groups, y_label=_metric(report))}</section>"
    )


def _release(report: Report) -> str:
    release = report.release
    if release is None:
        why = f" The gate refused it: {report.release_refused}." if report.release_refused else ""
        return f"<section><h2>On the device</h2><p>This run made no release.{escape(why)}</p></section>"
    latencies = sorted(site.latency_ms for site in report.sites if site.latency_ms is not None)
    rows = [
        ("version", f"<code>{escape(release.version)}</code>"),
        (
            "size",
            f"{size(release.bytes)} int8, {size(release.fp32_bytes)} fp32 ({_ratio(release.fp32_bytes, release.bytes)})",
        ),
        (escape(_metric(report)), f"{_value(report.metric.int8)} int8, {_value(report.metric.global_)} fp32"),
        ("verified at", f"{release.verified_sites} of {len(report.sites)} sites: signature, hash and golden self-test"),
        (
            "latency",
            f"{number(latencies[len(latencies) // 2])} ms a window, median of the sites’ medians, no torch in the process"
            if latencies
            else "not measured",
        ),
        ("sha-256", f"<code>{escape(release.sha256)}</code>"),
    ]
    table = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows)
    return f"<section><h2>On the device</h2><p>The int8 model that every site downloaded, verified and installed.</p><table>{table}</table></section>"


def _cost(report: Report) -> str:
    time = figures.proportions([(phase.name, phase.seconds, _seconds(phase.seconds)) for phase in report.phases])
    traffic = figures.proportions([(phase.name, float(phase.bytes), size(phase.bytes)) for phase in report.phases])
    return f'<section><h2>Time and bytes</h2><div class="columns"><div><p>seconds per phase</p>{time}</div><div><p>bytes per phase, all sites</p>{traffic}</div></div></section>'


def _rounds(report: Report) -> str:
    rows = "".join(
        f'<tr><td>{item.number}</td><td><span class="outcome {escape(item.outcome)}">{escape(item.outcome)}</span> {escape(item.reason)}</td>'
        f'<td class="num">{item.participants}</td><td class="num">{item.seconds:.2f}</td><td class="num">{size(item.bytes_up)}</td>'
        f'<td class="num">{size(item.bytes_down)}</td><td class="num">{_value(item.metric)}</td><td class="num">{_value(item.federated)}</td></tr>'
        for item in report.rounds
    )
    head = f'<tr><th>round</th><th>outcome</th><th class="num">sites</th><th class="num">seconds</th><th class="num">up</th><th class="num">down</th><th class="num">{escape(_metric(report))}</th><th class="num">as the centre saw it</th></tr>'
    return f"<section><h2>Rounds</h2><details{'' if len(report.rounds) > 12 else ' open'}><summary>{len(report.rounds)} rounds</summary><table>{head}{rows}</table></details></section>"


def _foot(report: Report) -> str:
    versions = " · ".join(f"{escape(name)} {escape(version)}" for name, version in sorted(report.versions.items()))
    return f"<footer>Reproduce: <code>{escape(report.command)}</code><br>{versions}<br>The same figures as data: report.json ({escape(report.schema)}).</footer>"


def _key(styles: Sequence[str]) -> str:
    return (
        '<ul class="key">'
        + "".join(f'<li><span class="swatch {style}"></span>{NAMES[style]}</li>' for style in styles)
        + "</ul>"
    )


def _metric(report: Report) -> str:
    return (
        report.metric.name.replace("_", " ").upper()
        if len(report.metric.name) <= 5
        else report.metric.name.replace("_", " ")
    )


def _unit(report: Report) -> str:
    return f" {report.metric.unit}" if report.metric.unit not in ("", "1") else ""


def _value(value: float | None) -> str:
    return "–" if value is None else number(value)


def _ratio(fp32: int, int8: int) -> str:
    if fp32 <= int8:
        return "so few weights that the graph’s own description outweighs them"
    return f"{fp32 / max(1, int8):.1f}× smaller"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"
