"""Which attack succeeds against which way of aggregating? And what does a server see of one site's data in an update?

`python tests/benchmarks/attacks.py [--seeds N] [--only NAME …] [--json] [--pictures FILE]`. Twenty sites with the
digits of FEDSITE_DATA dealt by Dirichlet(0.5) (or, without them, twenty seeded pumps), a dense network, thirty rounds
in which all sites take part, attackers drawn by the seed. Figures are means over the seeds.
"""

from __future__ import annotations

import argparse
import json
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

import numpy as np

from fedsite.client.work.judging import scaled
from fedsite.models import catalog
from fedsite.protocol.plan import LocalPlan, ModelPlan, PrivacyPlan, RoundPlan, RoundsPlan
from fedsite.simulations.attacks import leak, pictures
from fedsite.simulations.attacks.leak import Leak, View
from fedsite.simulations.attacks.trial import ATTACKS, Outcome, against, defences
from fedsite.simulations.populations import building
from fedsite.simulations.populations.spec import PartitionSpec
from fedsite.simulations.runs import baselines
from fedsite.telemetry import loading
from fedsite.telemetry.dataset import SiteData
from fedsite.telemetry.errors import TelemetryError
from fedsite.telemetry.location import DataLocation
from fedsite.telemetry.task import Task, load_task

SITES, GROUPS, EXPECTED = 20, 6, 4


def task_and_data() -> tuple[Task, dict[str, SiteData]]:
    """Digits where they are, else pumps."""
    digits = load_task("digits")
    try:
        path = loading.data_root() / str(digits.data.file)
        return digits, _loaded(digits, DataLocation(path=path, site=None, columns={}, seed=0))
    except TelemetryError:
        pump = load_task("pump")
        return pump, _loaded(pump, DataLocation(path=None, site=None, columns={}, seed=0))


def _loaded(task: Task, where: DataLocation) -> dict[str, SiteData]:
    names = loading.site_names(task, where)
    return {name: loading.load_site(task, dataclasses.replace(where, site=name)) for name in names}


def dealt(task: Task, data: Mapping[str, SiteData], seed: int) -> Mapping[str, SiteData]:
    """Twenty sites."""
    return building.build(task, data, partition=PartitionSpec(kind="dirichlet", alpha=0.5), sites=SITES, seed=seed)


def plan(task: Task, seed: int, rounds: int = 30) -> RoundPlan:
    """Without a defence."""
    return RoundPlan(
        federation="00",
        run_id="attacks",
        created="",
        task=task.document,
        model=ModelPlan(name="mlp", options={"hidden": [32]}),
        local=LocalPlan(steps=10, sampling_rate=0.3, learning_rate=0.1),
        rounds=RoundsPlan(count=rounds),
        seed=seed,
    )


def table(seeds: int, only: list[str], executor: str) -> list[Outcome]:
    """Every attack against every defence, for every seed."""
    task, data = task_and_data()
    chosen = {name: spec for name, spec in ATTACKS.items() if not only or name in only}
    found = []
    for seed in range(seeds):
        sites = dealt(task, data, seed)
        for defence in defences(SITES, EXPECTED, GROUPS):
            found += against(plan(task, seed), sites, chosen, defence, executor=executor)
    return found


NOISED = PrivacyPlan(mode="sample", noise_multiplier=1.84, batch=1.0)  # ε 8 of the shipped private plan for digits
VIEWS = (  # what is seen, and windows of each site
    (View(name="one site, plain or sealed"), 1),
    (View(name="one site, plain or sealed"), 8),
    (View(name="sum of 3 sites, secagg", sites=3), 1),
    (View(name="sum of 10 sites, secagg", sites=10), 1),
    (View(name="sum of 10 sites, secagg", sites=10), 8),
    (View(name="one site, DP-SGD", privacy=NOISED), 1),
    (View(name="sum of 3 sites, secagg and DP-SGD", sites=3, privacy=NOISED), 1),
)
MODELS = {"mlp": {"hidden": [64], "activation": "relu"}, "cnn2d": {"channels": [8, 16], "hidden": [32]}}


def leaks(victims: int, iterations: int, file: Path | None) -> list[tuple[str, list[Leak]]]:
    """Gradient inversion of each view, the victim being another site each time; a picture of the first three."""
    task, data = task_and_data()
    pooled = baselines.pool(list(data.values()))
    windows = scaled(pooled.train, task, baselines.own_normalisation(pooled))
    windows = windows.take(np.random.default_rng(0).permutation(len(windows)))
    mean, size = windows.x.mean(0), windows.x.shape[1:]
    found, rows = [], []
    for model, options in MODELS.items() if min(size) > 1 else [("mlp", MODELS["mlp"])]:
        module = catalog.build(model, options, time=size[0], features=size[1], outputs=task.outputs, seed=3)
        for view, each in VIEWS:
            if model != "mlp" and each * view.sites > 10:
                continue  # no formula, and a search over so many windows finds none
            own, row = [], []
            for victim in range(victims):
                first = victim * 100
                sites = [windows.take(np.arange(first + n * each, first + (n + 1) * each)) for n in range(view.sites)]
                gradient = leak.seen(module, sites, task.loss, view, seed=victim)
                if model == "mlp":
                    attack, guess = "formula", leak.by_formula(module, gradient, (size[0], size[1]))
                else:
                    everyone = windows.take(np.arange(first, first + each * view.sites))
                    attack = "search"
                    guess = leak.by_search(module, task.loss, gradient, everyone, iterations=iterations, seed=0)
                one, image, truth = leak.measured(view, attack, sites, guess, mean)
                own.append(one)
                row += [truth, image]
            found.append((model, own))
            rows.append(row[:6])
    if file:
        file.write_bytes(pictures.png(pictures.grid(rows)))
    return found


def show_leaks(found: list[tuple[str, list[Leak]]]) -> None:
    """A Markdown table."""
    print("| what the server sees | windows in it | attack on | error beside guessing the mean | PSNR dB | shown |")
    print("|---|---|---|---|---|---|")
    for model, own in found:
        one, ratio = own[0], fmean(each.error / each.baseline for each in own)
        shown = f"{sum(each.shown for each in own)} of {len(own)}"
        psnr = fmean(each.psnr for each in own)
        print(f"| {one.view} | {one.windows} | {model}, {one.attack} | {ratio:.2g} | {psnr:.0f} | {shown} |")


def _mean(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{fmean(known):.2f}" if known else "–"


def show(found: list[Outcome]) -> None:
    """A Markdown table: metric / success of the attack, or / worst class where nothing is aimed at."""
    columns = list(dict.fromkeys(one.defence for one in found))
    print("| attack (attackers of 20) |", " | ".join(columns), "|")
    print("|---|" + "---|" * len(columns))
    for name in dict.fromkeys(one.attack for one in found):
        cells = []
        for column in columns:
            own = [one for one in found if (one.attack, one.defence) == (name, column)]
            success = _mean([one.measured.success for one in own])
            metric = _mean([one.metric for one in own])
            cells.append(metric + (f" / **{success}**" if success != "–" else ""))
        count = next(one.attackers for one in found if one.attack == name)
        print(f"| {name} ({count}) |", " | ".join(cells), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], choices=list(ATTACKS))
    parser.add_argument("--executor", default="batched")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--victims", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=400, help="of a search for a window")
    parser.add_argument("--pictures", type=Path, help="PNG: each row a view, true windows beside what was made of them")
    asked = parser.parse_args()
    seen = leaks(asked.victims, asked.iterations, asked.pictures)
    show_leaks(seen)
    found = table(asked.seeds, asked.only, asked.executor) if asked.seeds else []
    if found:
        print()
        show(found)
    if asked.json:
        shown = [{"model": model, "leaks": [one.plain for one in own]} for model, own in seen]
        print(json.dumps({"schema": "fedsite.attacks/1", "inversion": shown, "poisoning": [o.plain for o in found]}))


if __name__ == "__main__":
    main()
