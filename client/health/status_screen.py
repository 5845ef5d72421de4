"""`fedsite.status/2` for people: one screen, never wider than a terminal of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from fedsite.client.health import checks as health_checks
from fedsite.protocol import instants, output

WIDTH: Final = 80
_NAME: Final = 13  # columns of a row's name
_ROWS: Final = 4  # of one kind that are shown; --json has them all
_STATES: Final = {"clock": "not connected: the clock is wrong"}


def lines(value: Mapping[str, Any], now: datetime, height: int | None = None) -> list[str]:
    """The screen: who, what is, and below it what is not well and what to do about it.

    Args:
        value: a `fedsite.status/2`.
        now: UTC.
        height: lines that there is room for; None: as many as it takes.
    """
    rows = [*_rows(value, now)]
    head = [
        _cut(f"{value['site']['name']} ({value['site']['id']})"),
        _cut(f"in {value['federation']['name']} ({value['federation']['id']}) at {value['federation']['address']}"),
        "",
    ]
    shown = [*head, *(row(name, text) for name, text in rows), ""]
    return shown + findings(value["findings"], None if height is None else height - len(shown))


def row(name: str, text: str) -> str:
    """A name and what is to be said of it, on one line."""
    return _cut(f"{name:<{_NAME}}{text}" if len(name) < _NAME else f"{name} {text}")


def findings(found: Sequence[Mapping[str, Any]], room: int | None = None) -> list[str]:
    """What is not well: severity, title, text and remedy of each, wrapped.

    Where `room` lines do not hold all, one of each code is shown as far as there is room, and the rest is counted.
    """
    if not found:
        return ["all is well"]
    blocks = [_finding(finding) for finding in found]
    if room is None or sum(map(len, blocks)) <= room:
        return [line for block in blocks for line in block]
    shown: list[str] = []
    codes: list[str] = []
    for finding, block in zip(found, blocks, strict=True):
        if finding["code"] not in codes and (not shown or len(shown) + len(block) < room):
            codes.append(finding["code"])
            shown += block
    rest = len(found) - len(codes)
    return [*shown, f"and {rest} more: fedsite status | less"] if rest else shown


def _finding(finding: Mapping[str, Any]) -> list[str]:
    shown = _wrapped(f"{finding['severity']:<{_NAME}}", f"{finding['title']}: {finding['text']}")
    return shown + (_wrapped(f"{'':<{_NAME}}", f"next: {finding['remedy']}") if finding["remedy"] else [])


def _rows(value: Mapping[str, Any], now: datetime) -> Iterator[tuple[str, str]]:
    carried = value.get("carried")
    if carried is not None:
        yield "carried", _carried(carried, now)
    else:
        yield "agent", _agent(value["agent"], now, paused=value["pause"] is not None)
    certificate = value["certificate"]
    if carried is None and certificate["expires"] is not None:
        day, gone = certificate["expires"][:10], instants.read(certificate["expires"]) <= now
        yield "certificate", f"expired on {day}" if gone else f"{certificate['days']:.1f} days left (until {day})"
    budget = value["budget"]
    yield from _several(
        "privacy", [_balance(item, budget["epsilon_max"]) for item in budget["sources"]] or [_cap(budget)]
    )
    waiting = len(value["approvals"]["waiting"])
    counts = f"{budget['open']} open, {budget['finished']} finished"
    yield "runs", counts + (f", {waiting} waiting for you" if waiting else "")
    yield from _several("data", [_contract(item, now) for item in value["data"]])
    model = value["model"]
    yield "model", "none yet" if model is None else f"{model['version']} (task {model['task']}), verified"
    yield "host", _host(value["host"])


def _agent(agent: Mapping[str, Any], now: datetime, *, paused: bool) -> str:
    text = _STATES.get(agent["state"], str(agent["state"]))
    if paused and text in ("idle", "connecting"):
        text = "paused"
    if agent["state"] == "working" and "kind" in agent:
        text += f": {agent['kind']} of round {agent.get('round')}, run {agent.get('run_id')}"
    elif "since" in agent:
        text += f", started {health_checks.ago(instants.read(agent['since']), now)}"
    return text


def _carried(carried: Mapping[str, Any], now: datetime) -> str:
    """A site that takes part by files needs neither agent nor certificate."""
    waiting, at = carried["waiting"], carried["exported_at"]
    text = f"by files; {waiting or 'nothing'} to export"
    return text + (f", last export {health_checks.ago(instants.read(at), now)}" if at else "")


def _cap(budget: Mapping[str, Any]) -> str:
    cap = budget["epsilon_max"]
    return "not known" if cap is None else f"nothing spent; ε at most {output.epsilon(cap)} on the same data"


def _balance(item: Mapping[str, Any], cap: float) -> str:
    spent = "not counted" if item["epsilon"] is None else f"{output.epsilon(item['epsilon'])} of {output.epsilon(cap)}"
    return f"ε {spent} per {item['unit']}, {_tail(item['source'], 40)}"


def _contract(item: Mapping[str, Any], now: datetime) -> str:
    if item["checked"] is None:
        return f"{item['task']}: never checked"
    when = health_checks.ago(instants.read(item["checked"]), now)
    return f"{item['task']}: {', '.join(item['codes']) or 'ok'}, checked {when}"


def _host(host: Mapping[str, Any]) -> str:
    names = (("disk_free", "disk"), ("memory_available", "memory"))
    known = [f"{health_checks.size(host[key])} of {name} free" for key, name in names if host[key] is not None]
    return ", ".join(known) or "not known"


def _several(name: str, texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Rows of one kind, the name before the first."""
    shown = list(texts[:_ROWS])
    if len(texts) > _ROWS:
        shown[-1] = f"and {len(texts) - _ROWS + 1} more"
    for index, text in enumerate(shown):
        yield "" if index else name, text


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=head, subsequent_indent=" " * _NAME, break_on_hyphens=False)


def _tail(text: str, width: int) -> str:
    return text if len(text) <= width else "…" + text[1 - width :]


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"
