"""Whether a site's labels can teach and judge a model: classes that are missing, rare, or all that is held out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedsite.telemetry import findings
from fedsite.telemetry.dataset import SiteData, Windows
from fedsite.telemetry.errors import Code
from fedsite.telemetry.findings import Finding
from fedsite.telemetry.task import Task

RARE = 0.01  # share of the training windows below which a class is hardly learned


def balance(task: Task, data: SiteData) -> list[Finding]:
    """Warnings about the labels of a site's windows; none for a reconstruction, which has no labels to learn."""
    column = task.label.column or ""
    if task.loss == "mse":
        return _constant(data, column)
    known = classes_of(task)
    if not known or not len(data.train):
        return []
    found: list[Finding] = []
    counts = label_counts(task, data.train)
    absent = [str(known[index]) for index in np.flatnonzero(counts == 0)]
    if absent:
        text = f"no training window is labelled {', '.join(absent)} (of {len(data.train)} windows)"
        remedy = "other sites may know them; alone, this site cannot learn them"
        found.append(_warning(text, "windows of each class", remedy, column, len(absent)))
    for index in np.flatnonzero((counts > 0) & (counts < RARE * len(data.train))).tolist():
        text = f"{counts[index]} of {len(data.train)} training windows are labelled {known[index]}"
        remedy = "is it as rare as that? more data, or a longer record, would teach it"
        found.append(_warning(text, f"at least {RARE:.0%}", remedy, column, int(counts[index])))
    held = np.flatnonzero(label_counts(task, data.holdout))
    if len(held) == 1:
        text = f"all {len(data.holdout)} windows held out are labelled {known[held[0]]}"
        remedy = "the model is hardly judged at this site: hold out more data"
        found.append(_warning(text, "at least two classes", remedy, column, len(data.holdout)))
    return found


def classes_of(task: Task) -> tuple[str | int, ...]:
    """What a window can be labelled with; empty where labels are numbers or nobody's."""
    if task.loss == "reconstruction":
        return ()
    return (0, 1) if task.loss == "binary_cross_entropy" else task.label.classes


def label_counts(task: Task, windows: Windows) -> NDArray[np.int64]:
    """Windows of each class: [classes]."""
    known = len(classes_of(task))
    return np.bincount(windows.y.astype(np.int64).ravel(), minlength=known) if known else np.zeros(0, np.int64)


def _constant(data: SiteData, column: str) -> list[Finding]:
    y = data.train.y
    if len(y) < 2 or np.ptp(y) > 0:
        return []
    text = f"all {len(y)} training windows are labelled {float(y.ravel()[0]):g}"
    return [_warning(text, "labels that differ", "is the label written at all?", column, len(y))]


def _warning(text: str, allowed: str, remedy: str, column: str, count: int) -> Finding:
    return findings.warning(Code.BALANCE, text, allowed, remedy, channel=column, count=count)
