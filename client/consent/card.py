"""The round card: what a person has to know of a run before they agree to it, made of its plan. No I/O.

What is new comes first: who has approved something like it before reads that part alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fedsite.client.ledger.quote import Quote
from fedsite.models import spends
from fedsite.protocol import output, shape
from fedsite.protocol.plan import RoundPlan

SCHEMA: Final = "fedsite.card/1"
# What every run has of its own, and what follows from the rest.
_OWN: Final = ("schema", "run_id", "created", "seed", "model.init_hash", "cost.")
# How a person would say it; anything else is told by its name in the plan.
_WORDS: Final = {
    "rounds.count": "rounds",
    "rounds.deadline_s": "seconds that a round may take",
    "local.steps": "training steps in a round",
    "local.sampling_rate": "share of the data in one step",
    "local.learning_rate": "learning rate",
    "model.name": "architecture of the model",
    "model.trainable": "part of the model that is trained",
    "privacy.mode": "privacy",
    "privacy.epsilon": "ε that the run claims",
    "privacy.unit": "what one privacy unit is",
    "privacy.noise_multiplier": "noise in training, over the clipping norm",
    "privacy.statistics_noise": "noise in the statistics (0: they are not asked)",
    "privacy.evaluation_noise": "noise in evaluations (0: none on private data)",
    "privacy.calibration_noise": "noise in the int8 histograms (0: none are asked)",
    "protection.mode": "protection of updates on their way",
    "protection.terms.min_survivors": "fewest sites in a sum",
    "protection.terms.min_cohort": "fewest sites that begin a sum",
    "protection.terms.colluding": "sites that may side with the server",
    "strategy.name": "how updates are put together",
    "release.enabled": "a release is made",
}
_SHOWN: Final = 60  # characters of a value


def make(
    plan: RoundPlan, *, previous: RoundPlan | None, source: str, known: Mapping[str, Any], quotes: Sequence[Quote]
) -> dict[str, Any]:
    """The card as JSON.

    Args:
        plan: of the run.
        previous: the last plan of this task that was agreed to; None where this is the first.
        source: the data it would read; empty where none is set.
        known: what is known of that data without reading it: `readings`, and when they were `checked`.
        quotes: what it costs each privacy unit.
    """
    terms, secagg = plan.protection.terms, plan.protection.mode == "secagg"
    return {
        "schema": SCHEMA,
        "run_id": plan.run_id,
        "plan_hash": plan.hash,
        "recipe": plan.recipe,
        "task": plan.task_name,
        "task_hash": plan.task_hash,
        "title": str(plan.task.get("title", "")),
        "new": changes(previous, plan),
        "data": {
            "source": source,
            "channels": [str(channel.get("name")) for channel in plan.task.get("channels", [])],
            "window": shape.plain(plan.task.get("window", {})),
            "entity": (plan.task.get("data") or {}).get("entity"),
            **known,
        },
        "leaves": leaves(plan),
        "rounds": plan.rounds.count,
        "bytes_down": plan.cost.bytes_down * plan.rounds.count,
        "bytes_up": plan.cost.bytes_up * plan.rounds.count,
        "minutes_at_most": round(plan.rounds.count * plan.rounds.deadline_s / 60, 1),
        "privacy": plan.privacy.mode,
        "price": [quote.plain() for quote in quotes],
        "protection": plan.protection.mode,
        "cohort": {
            "minimum": plan.rounds.minimum,
            "goal": plan.rounds.goal,
            "sum_over_at_least": terms.min_survivors if secagg else 1,
            "colluding": terms.colluding if secagg else 0,
        },
        "model": {
            "name": plan.model.name,
            "parameters": plan.model.parameters,
            "trainable": plan.model.trainable,
            "start": plan.model.init_hash,
        },
        "strategy": plan.strategy.name,
    }


def changes(previous: RoundPlan | None, plan: RoundPlan) -> list[str]:
    """What is new in a plan, in words; empty where a run is launched again as it was."""
    if previous is None:
        return [f"nothing like it was agreed to here before: the first run of {plan.task_name}"]
    before, now = _flat(shape.plain(previous)), _flat(shape.plain(plan))
    found = []
    for name in sorted(before.keys() | now.keys()):
        # Compared as it is written: a hash tells 1 from true, and null from nothing.
        if repr(before.get(name, ...)) != repr(now.get(name, ...)) and not name.startswith(_OWN):
            words = _WORDS.get(name, name)
            found.append(f"{words}: {_shown(before.get(name))} before, {_shown(now.get(name))} now")
    if not found and previous.recipe != plan.recipe:
        found.append("how its options are nested, and nothing that these words can tell: compare the two plans")
    return found


def leaves(plan: RoundPlan) -> list[str]:
    """What would leave this site, in words, without anything that the plan leaves out."""
    private, count = plan.privacy.mode != "none", plan.rounds.count
    asked = spends.whole(plan)
    found = [f"{count} updates of the model, one a round, each of {plan.local.steps} training steps"]
    noisy = {name: getattr(plan.privacy, f"{name}_noise") > 0 for name in ("statistics", "evaluation", "calibration")}
    if not private or noisy["statistics"]:
        found.append("sums of the channels, once, for a common scale")
    if not private or noisy["evaluation"]:
        found.append(f"how good the model is on data held out, {asked.evaluated} times")
    if asked.calibrated and (not private or noisy["calibration"]):
        found.append("histograms of the model's activations, once, for the int8 release")
    return found


def text(card: Mapping[str, Any]) -> list[str]:
    """The card for people."""
    data, price = card["data"], card["price"]
    window = data["window"]
    lines = [f"{card['task']}: {card['title']}", f"run {card['run_id']}, {card['state']}"]
    lines += [f"task document sha256:{card['task_hash']}", "", "new since the last one"]
    lines += [part for line in card["new"] for part in output.fold(line, first="  ", then="    ")] or [
        "  nothing but its own weights to start from"
    ]
    lines += ["", "data", f"  source    {data['source'] or 'none is set: data.path in site.yaml'}"]
    lines += output.fold(", ".join(data["channels"]), first="  channels  ", then=" " * 12)
    lines += [f"  windows   of {window.get('length')} readings, one entity is a {data['entity'] or 'site'}"]
    if data["checked"]:
        lines += [f"  checked   {data['checked']}: {data['readings']} readings"]
    lines += ["", "leaves this site", *(f"  {line}" for line in card["leaves"])]
    lines += ["", "costs"]
    megabytes = (card["bytes_down"] + card["bytes_up"]) / 1e6
    lines += [f"  {card['rounds']} rounds, {megabytes:.3g} MB, at most {card['minutes_at_most']:g} minutes"]
    if not price:
        lines += ["  no ε: the run is not private"]
    for one in price:
        lines += [
            f"  ε {_up(one['epsilon'])} per {one['unit']} at δ {one['delta']:g}; {_up(one['epsilon_after'])} of "
            f"{one['epsilon_max']:g} spent after it, {output.epsilon_left(one['epsilon_left'])} left"
        ]
    cohort = card["cohort"]
    seen = "by itself"
    if card["protection"] == "secagg":
        seen = f"only in sums over at least {cohort['sum_over_at_least']} sites"
    lines += ["", "protection", f"  {card['protection']}: the server sees this site's update {seen}"]
    if cohort["colluding"]:
        lines += [f"  it holds against {cohort['colluding']} sites that side with the server"]
    if card["refused"]:
        lines += ["", "your rules say no"]
        told = [f"{reason['code']}: {reason['found']}; allowed: {reason['allowed']}" for reason in card["refused"]]
        lines += [part for line in told for part in output.fold(line, first="  ", then="    ")]
    if card["state"] == "waiting":
        lines += ["", f"next: fedsite rounds approve {card['run_id']}", f"or:   fedsite rounds reject {card['run_id']}"]
    return lines


def _up(value: float) -> str:
    return output.epsilon(value)


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Every value of a document by its path."""
    if isinstance(value, Mapping) and value:
        found: dict[str, Any] = {}
        for name, item in value.items():
            found |= _flat(item, f"{path}.{name}" if path else str(name))
        return found
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        # Each entry by itself: shown as a whole, what is new in it would be cut off.
        return _flat({f"{number}": item for number, item in enumerate(value, 1)}, path)
    return {path: value}


def _shown(value: Any) -> str:
    shown = "none" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"
