"""From what the demo played to the report: baselines, exact figures on every holdout, and the device's own."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedsite.models import metrics, spends
from fedsite.privacy.accounting import group_epsilon
from fedsite.protocol import documents, shape, weights
from fedsite.protocol.plan import LocalPlan, RoundPlan
from fedsite.simulations.demo import story as demo
from fedsite.simulations.demo.report import (
    Metric,
    Phase,
    Privacy,
    Release,
    Report,
    Round,
    Secagg,
    Site,
    SiteClaim,
    Stage,
)
from fedsite.simulations.runs import baselines
from fedsite.telemetry import loading
from fedsite.telemetry.dataset import SiteData
from fedsite.telemetry.statistics import Normalisation
from fedsite.telemetry.task import Task, read_task

MAX_MODEL = 4 << 30  # bytes
# The run's phases as a reader thinks of them; what is not named belongs to making the release.
PHASES = {
    "prepare": "asking the sites",
    "statistics": "asking the sites",
    "train": "rounds",
    "evaluate": "rounds",
    "checkpoint": "rounds",
    "install": "delivery",
    "finish": "delivery",
}
LIMITS = (
    "DP noise is drawn in floating point from the system's generator and snapped to a grid; "
    "the exactness of a discrete sampler is not claimed.",  # of a site's own noise; that of sums is exact
    "Timing, message sizes and whether a site took part are not covered.",
)


def report(
    options: demo.Options,
    played: demo.Played,
    command: str,
    tell: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Report:
    """Measure and put together; trains the baselines, so it takes about as long as the run."""
    run, result = played.run, played.run["result"]
    files = run["files"]
    plan = RoundPlan.parse(Path(files["plan"]).read_bytes())
    task = read_task(plan.task)
    names = sorted(site["name"] for site in result["sites"])
    places = demo.locations(options, names)
    sites = {name: loading.load_site(task, places[name]) for name in names}
    initial = weights.decode(Path(files["initial"]).read_bytes(), limit=MAX_MODEL)
    found = _figures(plan, task, files, sites, initial, tell)
    return Report(
        task=task.name,
        title=task.title or task.name,
        run_id=plan.run_id,
        created=demo.created(),
        seconds=round(played.seconds, 2),
        protection=plan.protection.mode,
        outcome=result["outcome"] + (f": {result['reason']}" if result["outcome"] != "completed" else ""),
        parameters=plan.model.parameters,
        metric=_metric(task, found, played),
        privacy=_privacy(plan, result, sites),
        sites=_sites(result, found, played, sites),
        rounds=_rounds(result, _curve(plan, files, sites)),
        phases=_phases(result, played),
        secagg=_secagg(result),
        release=_release(result, played),
        release_refused=result["release_refusal"] or "",
        command=command,
        versions=demo.versions(),
        cores=os.cpu_count() or 0,
        plan=shape.plain(plan),
    )


def plain_local(plan: RoundPlan, task: Task) -> LocalPlan:
    """Local training as the task recommends it without privacy."""
    return dataclasses.replace(
        LocalPlan(steps=plan.local.steps, sampling_rate=plan.local.sampling_rate), **task.training.local
    )


def _figures(
    plan: RoundPlan,
    task: Task,
    files: Mapping[str, Any],
    sites: Mapping[str, SiteData],
    initial: weights.Arrays,
    tell: Callable[[str, int, int], None],
) -> baselines.Figures | None:
    if not files["checkpoints"]:
        return None
    number, federated, normalisation = _checkpoint(files["checkpoints"][-1])
    if number == 0:
        return None
    # What suits a noised step does not suit a plain one; noise in a sum leaves a site's steps plain.
    local = plain_local(plan, task) if plan.privacy.sample_level else plan.local
    return baselines.measure(plan, local, sites, initial, federated, normalisation, tell=tell)


def _checkpoint(path: str) -> tuple[int, weights.Arrays, Normalisation]:
    """Round, weights and normalisation of one checkpoint."""
    facts = documents.parse(Path(path).with_suffix(".json").read_bytes())
    found = facts["normalisation"]
    normalisation = Normalisation(mean=np.array(found["mean"], np.float32), scale=np.array(found["scale"], np.float32))
    return int(facts["round"]), weights.decode(Path(path).read_bytes(), limit=MAX_MODEL), normalisation


def _curve(plan: RoundPlan, files: Mapping[str, Any], sites: Mapping[str, SiteData]) -> dict[int, float | None]:
    """The exact metric of each round's model."""
    found = {}
    for path in files["checkpoints"]:
        number, arrays, normalisation = _checkpoint(path)
        found[number] = baselines.judge(plan, sites, arrays, normalisation)
    return found


def _rounds(result: Mapping[str, Any], curve: Mapping[int, float | None]) -> tuple[Round, ...]:
    return tuple(
        Round(
            number=item["number"],
            outcome=item["outcome"],
            reason=item["reason"],
            participants=item["participants"],
            seconds=item["seconds"],
            bytes_up=item["bytes_up"],
            bytes_down=item["bytes_down"],
            metric=curve.get(item["number"]),
            federated=item["metric"],
        )
        for item in result["rounds"]
    )


def _metric(task: Task, found: baselines.Figures | None, played: demo.Played) -> Metric:
    sums = [score["sums"] for score in played.scores.values() if score.get("sums")]
    int8 = None
    if sums:
        total = {name: np.sum([np.asarray(part[name], np.float64) for part in sums], axis=0) for name in sums[0]}
        int8 = metrics.value(task.metric, total)
    return Metric(
        name=task.metric.name,
        better=task.metric.better,
        unit=task.metric.unit,
        global_=found.federated if found else None,
        central=found.central if found else None,
        local_only=found.local_only if found else None,
        int8=int8,
        initial=found.initial if found else None,
        local_only_own=found.local_only_own if found else None,
        local_only_best=found.local_only_best if found else None,
    )


def _privacy(plan: RoundPlan, result: Mapping[str, Any], sites: Mapping[str, SiteData]) -> Privacy:
    privacy = plan.privacy
    own = privacy.sample_level
    group = max(data.overlap for data in sites.values()) if own and privacy.unit == "window" else None
    return Privacy(
        mode=privacy.mode,
        unit=privacy.unit,
        adjacency=privacy.adjacency,
        delta=privacy.delta,
        epsilon_max=result["privacy"]["epsilon_max"] if own else None,
        group=group,
        group_epsilon=None
        if group is None
        else group_epsilon(spends.own(plan, spends.whole(plan)), privacy.delta, group),
        site=_site_claim(plan, result),
        limits=(LIMITS if own else LIMITS[1:]) if privacy.mode != "none" else (),
    )


def _site_claim(plan: RoundPlan, result: Mapping[str, Any]) -> SiteClaim | None:
    found = result["privacy"]["site"]
    if found is None or found["epsilon_max"] is None:
        return None
    return SiteClaim(
        adjacency=found["adjacency"],
        delta=found["delta"],
        epsilon=found["epsilon_max"],
        mechanism=found["mechanism"],
        honest=plan.protection.terms.honest,
    )


def _sites(
    result: Mapping[str, Any], found: baselines.Figures | None, played: demo.Played, sites: Mapping[str, SiteData]
) -> tuple[Site, ...]:
    figures = {item.name: item for item in found.sites} if found else {}
    rows = []
    for site in result["sites"]:
        name = site["name"]
        own, score = figures.get(name), played.scores.get(name, {})
        latency = score.get("latency_ms") or {}
        rows.append(
            Site(
                name=name,
                windows=len(sites[name].train),
                outcome="ok" if site["code"] is None else str(site["code"]),
                epsilon=site["epsilon"],
                metric=own.federated if own else None,
                local_only=own.local_only if own else None,
                central=own.central if own else None,
                int8=(score.get("metric") or {}).get("value"),
                verified=site["installed"] == "ok",
                latency_ms=latency.get("p50"),
            )
        )
    return tuple(rows)


def _phases(result: Mapping[str, Any], played: demo.Played) -> tuple[Phase, ...]:
    """The run's own phases, the set-up before it, and what the clock of the run leaves unexplained as start-up."""
    around = dict(played.phases)
    inside: dict[str, Phase] = {}
    for item in result["phases"]:
        name = PHASES.get(item["name"], "release")
        before = inside.get(name, Phase(name=name, seconds=0.0))
        inside[name] = Phase(
            name=name,
            seconds=round(before.seconds + item["seconds"], 2),
            bytes=before.bytes + item["bytes_up"] + item["bytes_down"],
        )
    known = sum(phase.seconds for phase in inside.values())
    rest = Phase(name="starting and waiting", seconds=round(max(0.0, around.get("run", 0.0) - known), 2))
    first = Phase(name="set-up and enrolment", seconds=round(around.get("set-up", 0.0), 2))
    after = Phase(name="scoring on the device", seconds=round(around.get("scoring", 0.0), 2))
    return (first, rest, *inside.values(), after)


def _secagg(result: Mapping[str, Any]) -> Secagg | None:
    found = result["secagg"]
    if found is None:
        return None
    opened = [item for item in found["sums"] if item["outcome"] == "opened"]
    return Secagg(
        opened=len(opened),
        failed=len(found["sums"]) - len(opened),
        survivors=min((item["survivors"] for item in opened), default=0),
        colluding=found["colluding"],
        groups=found["groups"],
        stages=tuple(
            Stage(
                name=stage["name"],
                seconds=round(stage["seconds"], 3),
                bytes_up=stage["bytes_up"],
                bytes_down=stage["bytes_down"],
            )
            for stage in found["stages"]
        ),
    )


def _release(result: Mapping[str, Any], played: demo.Played) -> Release | None:
    release = result["release"]
    if release is None:
        return None
    return Release(
        version=str(release["version"]),
        bytes=int(release["bytes"]),
        fp32_bytes=int(release["fp32_bytes"]),
        verified_sites=sum(site["installed"] == "ok" for site in result["sites"]),
        sha256=str(release.get("sha256", "")),
    )
