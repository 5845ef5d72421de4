"""A task: one YAML document that says what is measured, how it becomes windows and labels, and what is learned from it.

Nothing here touches data or a dataframe library: an agent reads a plan's task with this alone.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from fedsite.telemetry import fields, yaml_text
from fedsite.telemetry.errors import TaskError
from fedsite.telemetry.feature_names import derived_bounds, derived_names
from fedsite.telemetry.schema import Channel, Rate
from fedsite.telemetry.task_document import Context, Data, Events, Feature, Window
from fedsite.telemetry.task_learning import Label, Metric, Model, Release, Split, Training

Loss = Literal["mse", "cross_entropy", "binary_cross_entropy", "reconstruction"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A validated task document; its fields are the document's keys."""

    schema: Literal["fedsite.task/1"] = "fedsite.task/1"
    name: str
    title: str = ""
    description: str = ""
    data: Data
    channels: tuple[Channel, ...]
    rate: Rate = field(default_factory=Rate)
    window: Window = field(default_factory=Window)
    features: tuple[Feature, ...] = ()
    context: tuple[Context, ...] = ()
    events: tuple[Events, ...] = ()
    label: Label
    split: Split
    model: Model
    loss: Loss
    metric: Metric
    release: Release = field(default_factory=Release)
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        if not self.name.replace("_", "").replace("-", "").isalnum():
            raise TaskError(f"name is {self.name!r}", allowed="letters, digits, - and _")
        if not self.channels:
            raise TaskError("channels is empty", allowed="at least one channel")
        names = self.channel_names
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise TaskError(f"channels has {twice[0]} more than once", allowed="each name once")
        self._check_features(set(names))
        self._check_joins(set(names))
        self._check_label()

    @property
    def document(self) -> dict[str, Any]:
        """The whole document as plain JSON values, defaults filled in: `read_task` of it gives an equal task."""
        document: dict[str, Any] = fields.plain(self)
        return document

    @property
    def single_channels(self) -> tuple[Channel, ...]:
        """Every channel on its own, numbered ones spelled out."""
        return tuple(single for channel in self.channels for single in channel.expand())

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of `single_channels`."""
        return tuple(channel.name for channel in self.single_channels)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names along the last axis of a model's input."""
        if self.features:
            return derived_names(self.features, self.channel_names)
        if self.window.fold is not None:
            return tuple(f"column{index}" for index in range(len(self.channel_names) // self.window.fold))
        return self.channel_names

    @property
    def feature_bounds(self) -> tuple[tuple[float, float], ...]:
        """Public lower and upper bound of each feature, from the channels' ranges alone."""
        channels = self.single_channels
        bounds = tuple((channel.minimum, channel.maximum) for channel in channels)
        if self.features:
            return derived_bounds(self.features, self.channel_names, bounds, self.window.length)
        if self.window.fold is not None:
            width = len(bounds) // self.window.fold
            return tuple(
                (min(b[0] for b in bounds[i::width]), max(b[1] for b in bounds[i::width])) for i in range(width)
            )
        return bounds

    @property
    def input_shape(self) -> tuple[int, int]:
        """(time steps, features) of one window as a model takes it."""
        if self.features:
            return 1, len(self.feature_names)
        return self.window.fold or self.window.length, len(self.feature_names)

    @property
    def outputs(self) -> int:
        """Numbers a model gives: one per class, 1 for a value or yes-no, features per step for a reconstruction."""
        if self.loss == "reconstruction":
            return self.input_shape[1]
        return len(self.label.classes) if self.loss == "cross_entropy" else 1

    @property
    def overlap(self) -> int:
        """Most windows that one reading can be part of, label included (docs/privacy.md)."""
        window = self.window
        span = window.length
        if window.gap.policy != "drop":
            span += 2 * (window.gap.longest - 1) if window.gap.policy == "interpolate" else window.gap.longest - 1
        policies = {channel.missing or window.missing.policy for channel in self.channels}
        if policies & {"hold", "interpolate"}:
            span += window.missing.longest * (2 if "interpolate" in policies else 1)
        windows = -(-span // window.stride)
        if self.label.kind == "horizon":
            windows += 1 if self.label.reduce == "at" else -(-self.label.ahead // window.stride)
        return windows

    def _check_features(self, names: set[str]) -> None:
        if self.features and self.window.fold is not None:
            raise TaskError("window.fold is given with features", allowed="one of them")
        if self.window.fold is not None and len(names) % self.window.fold:
            raise TaskError(f"window.fold is {self.window.fold} for {len(names)} channels", allowed="a divisor of it")
        for index, feature in enumerate(self.features):
            for name in feature.channels:
                if name not in names:
                    raise TaskError(
                        f"features[{index}].channels has {name!r}", allowed=fields.nearest(name, sorted(names))
                    )
            if feature.kind in ("slope", "rate", "band") and self.window.length < 2:
                raise TaskError(f"features[{index}].kind is {feature.kind}", allowed="window.length of 2 or more")
            if feature.kind == "lag" and not all(0 <= step < self.window.length for step in feature.steps):
                raise TaskError(
                    f"features[{index}].steps is {list(feature.steps)}", allowed=f"0 to {self.window.length - 1}"
                )
            if feature.kind == "band":
                self._check_bands(index, feature)

    def _check_bands(self, index: int, feature: Feature) -> None:
        if self.rate.seconds is None:
            raise TaskError(f"features[{index}].kind is band", allowed="with rate.seconds, as bands are in Hz")
        highest = 0.5 / self.rate.seconds
        for _, high in feature.bands:
            if high > highest * 1.000001 + 1.0 / (self.rate.seconds * self.window.length):
                raise TaskError(
                    f"features[{index}].bands reaches {high} Hz", allowed=f"up to {highest:g} Hz at this rate"
                )

    def _check_joins(self, names: set[str]) -> None:
        for index, context in enumerate(self.context):
            for column in context.columns:
                if column not in names:
                    raise TaskError(
                        f"context[{index}].columns has {column!r}",
                        allowed=f"a channel of the task: {fields.nearest(column, sorted(names))}",
                    )
        for index, events in enumerate(self.events):
            if events.since is not None and events.since not in names:
                raise TaskError(
                    f"events[{index}].since is {events.since!r}",
                    allowed=f"a channel of the task: {fields.nearest(events.since, sorted(names))}",
                )

    def _check_label(self) -> None:
        if self.loss == "cross_entropy" and not self.label.classes:
            raise TaskError("label.classes is empty", allowed="the classes, as loss is cross_entropy")
        if (self.loss == "reconstruction") != (self.label.kind == "self"):
            raise TaskError(
                f"loss is {self.loss} with label.kind {self.label.kind}",
                allowed="reconstruction with self, and only so",
            )


def read_task(document: Any) -> Task:
    """Validate a task document (plain values, as YAML or JSON give them).

    Raises:
        TaskError: unknown key (the nearest is named), wrong value, or sections that do not fit together.
    """
    return fields.read(Task, document)


def shipped_names() -> list[str]:
    """Names of the tasks that come with the product."""
    folder = resources.files("fedsite.conf").joinpath("task")
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_task(path_or_name: str | os.PathLike[str]) -> Task:
    """Read a shipped task by name, or a task of the user's own by path (`my_task.yaml`).

    Raises:
        TaskError: no such task or file, malformed YAML (file and line), or a value that is not allowed (its key).
    """
    text = os.fspath(path_or_name)
    if text.endswith((".yaml", ".yml")) or os.sep in text:
        path = Path(text).expanduser()
        return _named(path, yaml_text.read_file(path))
    if text not in shipped_names():
        raise TaskError(
            f"task {text!r} is unknown",
            allowed=fields.nearest(text, shipped_names()),
            next_step="choose one of them, or give a file of your own: task_file=FILE.yaml",
        )
    resource = resources.files("fedsite.conf").joinpath("task", f"{text}.yaml")
    return _named(Path(f"{text}.yaml"), yaml_text.parse(resource.read_text(encoding="utf-8"), f"{text}.yaml"))


def _named(path: Path, document: Any) -> Task:
    try:
        return read_task(document)
    except TaskError as error:
        next_step = error.next_step or f"edit {path}"
        raise TaskError(f"file {path}: {error.found}", allowed=error.allowed, next_step=next_step) from None
