"""What the report's page says about privacy: the claims, what each site spent, and what the server saw."""

from __future__ import annotations

from html import escape

from fedsite.protocol import output
from fedsite.simulations.demo.report import Privacy, Report, SiteClaim

STAGES = {
    "advertise": "each site signs keys for one sum; most ride ahead on other messages",
    "share": "each site splits its secrets among the others, encrypted",
    "mask": "each site reads its data and sends its numbers under masks",
    "confirm": "the sites sign who is in the sum",
    "unmask": "what cancels the masks of the sum, and of nothing else",
}


def claims(privacy: Privacy) -> tuple[str, str]:
    """The headline claim, and what it is about."""
    site = privacy.site
    in_sums = f"per site, in the sums, δ = {site.delta:g}" if site else ""
    if privacy.epsilon_max is not None:
        beside = f"; and ε = {epsilon(site.epsilon)} {in_sums}" if site else ""
        return f"ε = {epsilon(privacy.epsilon_max)}", f"per {privacy.unit}, δ = {privacy.delta:g}{beside}"
    if site is not None:
        return f"ε = {epsilon(site.epsilon)}", in_sums
    return "not private", "privacy=none: no ε is claimed"


def spend(report: Report) -> str:
    """The section on ε."""
    privacy = report.privacy
    if privacy.epsilon_max is None and privacy.site is None:
        return "<section><h2>Privacy</h2><p>This run was <b>not private</b>: what the model learned of a single record is not bounded. Run with <code>privacy=sample privacy.epsilon=8</code> for a claim.</p></section>"
    limits = "".join(f"<li>{escape(limit)}</li>" for limit in privacy.limits)
    parts = [_own_noise(report) if privacy.epsilon_max is not None else "", _noise_in_sums(privacy.site)]
    return f"<section><h2>Privacy spend</h2>{''.join(parts)}{f'<ul>{limits}</ul>' if limits else ''}</section>"


def server_saw(report: Report) -> str:
    """The section on secure sums; empty where the server saw single updates."""
    found = report.secagg
    if found is None:
        return ""
    helpers = f", even with {found.colluding} of the sites on its side" if found.colluding else ""
    failed = f" {found.failed} more failed, and nobody can open them." if found.failed else ""
    cut = f" Each round was cut into {found.groups} groups with a sum of its own." if found.groups > 1 else ""
    rows = "".join(
        f'<tr><td>{escape(stage.name)}</td><td>{STAGES.get(stage.name, "")}</td><td class="num">{stage.seconds:.2f}</td>'
        f'<td class="num">{size(stage.bytes_up)}</td><td class="num">{size(stage.bytes_down)}</td></tr>'
        for stage in found.stages
    )
    head = '<tr><th>stage</th><th>what happens</th><th class="num">seconds</th><th class="num">up</th><th class="num">down</th></tr>'
    return (
        f"<section><h2>What the server saw</h2><p>{found.opened} sums, the smallest over {found.survivors} sites, and no single site’s values{helpers}.{failed}{cut} "
        f"All values that left a site did so under masks; the figures are of all sums together.</p><table>{head}{rows}</table></section>"
    )


def epsilon(value: float | None) -> str:
    """ε for people."""
    return "–" if value is None else output.epsilon(value)


def size(count: int) -> str:
    """Bytes for people."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def _own_noise(report: Report) -> str:
    privacy, rows = report.privacy, []
    for site in report.sites:
        spent = site.epsilon or 0.0
        share = min(100.0, 100.0 * spent / max(privacy.epsilon_max or 0.0, 1e-9))
        rows.append(
            f'<div>{escape(site.name)} · ε = {epsilon(spent)}<div class="meter"><span style="width:{share:.1f}%"></span></div></div>'
        )
    unit = f"one {privacy.unit}" if privacy.unit == "window" else "all records of one entity"
    group = (
        f" A reading lies in up to {privacy.group} windows; for such a group ε = {epsilon(privacy.group_epsilon)}."
        if privacy.group and privacy.group_epsilon is not None
        else ""
    )
    return (
        f"<p>Differential privacy at the site, whoever the server is: {escape(privacy.adjacency)} of {unit}, δ = {privacy.delta:g}; "
        f'training, statistics, evaluation and calibration composed.{escape(group)}</p><div class="columns">{"".join(rows)}</div>'
    )


def _noise_in_sums(site: SiteClaim | None) -> str:
    if site is None:
        return ""
    return (
        f"<p>Noise in the sums: ε = {epsilon(site.epsilon)} for all data of one site ({escape(site.adjacency)}, δ = {site.delta:g}, {escape(site.mechanism)}), "
        f"as long as {site.honest} sites of each sum added their part of it. It is a claim of its own and is not added to any other.</p>"
    )
