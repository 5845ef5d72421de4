"""From layers to a program: each kind of layer says where its numbers lie, parameters by the model's names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np

from fedsite.simulations.vectorised.images import Image, Slide
from fedsite.simulations.vectorised.program import (
    ADD,
    CONVOLUTION,
    DENSE,
    LANES,
    LAYER_COLUMNS,
    MAX_POOL,
    MEAN,
    STRETCH,
    VALUE_COLUMNS,
    Ints,
    Program,
    padded,
)  # fmt: skip

SINGLE = (CONVOLUTION, MAX_POOL, MEAN, STRETCH, ADD)  # kinds that take one window after the other


@dataclass(slots=True)
class Laid:
    """What layers have been given: parameters by the model's names, numbers of `tables`, turned weights."""

    weights: dict[str, Ints] = field(default_factory=dict)
    size: int = 0
    tables: list[Ints] = field(default_factory=list)
    turned: int = 0

    def table(self, places: Ints) -> int:
        """Where in `tables` these are."""
        at = sum(map(len, self.tables))
        self.tables.append(places.reshape(-1))
        return at


class Layer(Protocol):
    """One layer; `images` are known by number."""

    @property
    def kind(self) -> int:
        """A number of program.py."""
        ...

    @property
    def source(self) -> int:
        """The value that it reads."""
        ...

    @property
    def target(self) -> int:
        """The value that it writes."""
        ...

    def lay(self, images: Sequence[Image], laid: Laid) -> tuple[int, int, int, list[int]]:
        """OTHER, READ, WRITE and the kind's own columns."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """A linear layer over some numbers of a value, named in the order of its weights."""

    kind: ClassVar[int] = DENSE
    name: str
    source: int
    target: int
    inputs: Ints

    def lay(self, images: Sequence[Image], laid: Laid) -> tuple[int, int, int, list[int]]:
        """OTHER, READ, WRITE and the kind's own columns."""
        at, outputs = images[self.source].numbers()[self.inputs], images[self.target].channels
        offset = int(at.min()) // LANES * LANES
        wide, high = padded(int(at.max()) + 1 - offset), padded(outputs)
        rows = np.arange(outputs)[:, None] * wide + (at - offset)
        laid.weights |= {
            f"{self.name}.weight": laid.size + rows,
            f"{self.name}.bias": laid.size + high * wide + np.arange(outputs),
        }
        laid.size += high * (wide + 1)
        return -1, 0, 0, [offset, wide, outputs]


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """Over an image; weights [output, input, rows, columns] in the model."""

    kind: ClassVar[int] = CONVOLUTION
    name: str
    source: int
    target: int
    slide: Slide

    def lay(self, images: Sequence[Image], laid: Laid) -> tuple[int, int, int, list[int]]:
        """OTHER, READ, WRITE and the kind's own columns."""
        source, target, slide = images[self.source], images[self.target], self.slide
        rows, columns = slide.kernel
        if slide.dilation[1] == 1:
            segments, jump, depth = rows, slide.dilation[0] * source.pitch, columns * source.stride
        else:  # of one row
            segments, jump, depth = columns, slide.dilation[1] * source.stride, source.stride
        line, size = target.stride, segments * depth
        outputs, inputs, down, right = np.ix_(*map(np.arange, (target.channels, source.channels, rows, columns)))
        weights = ((down * columns + right) * source.stride + inputs) * line + outputs
        laid.weights |= {
            f"{self.name}.weight": laid.size + weights,
            f"{self.name}.bias": laid.size + size * line + np.arange(target.channels),
        }
        laid.size += (size + 1) * line
        read = laid.table(slide.corners(source, (target.height, target.width)))
        write = laid.table(target.columns())
        lie = laid.table(np.arange(segments)[:, None] * jump + np.arange(depth))
        turned, laid.turned = laid.turned, laid.turned + size * line
        steps = [slide.stride[0] * source.pitch, slide.stride[1] * source.stride]
        return -1, read, write, [segments, jump, depth, lie, *steps, turned]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxPool:
    """The largest number of each square."""

    kind: ClassVar[int] = MAX_POOL
    source: int
    target: int
    slide: Slide

    def lay(self, images: Sequence[Image], laid: Laid) -> tuple[int, int, int, list[int]]:
        """OTHER, READ, WRITE and the kind's own columns."""
        source, target = images[self.source], images[self.target]
        rows, columns = np.ix_(*map(np.arange, self.slide.kernel))
        taps = rows * source.pitch + columns * source.stride
        read = laid.table(self.slide.corners(source, (target.height, target.width)))
        return -1, read, laid.table(target.columns()), [laid.table(taps), taps.size]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """Of all columns."""

    kind: ClassVar[int] = MEAN
    source: int
    target: int

    def lay(self, images: Sequence[Image], laid: Laid) -> tuple[int, int, int, list[int]]:
        """OTHER, READ, WRITE and the kind's own columns."""
        columns = images[self.source].columns()
        return -1, laid.table(columns), laid.table(images[self.target].columns()), [0, columns.size]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Each column of the target is one of the source."""

    kind: ClassVar[int] = STRETCH
    source: int
    target: int
    chosen: Ints  # [target's columns]

    def lay(self, images: Sequence[Image], laid: Laid) -> tuple[int, int, int, list[int]]:
        """OTHER, READ, WRITE and the kind's own columns."""
        read = laid.table(images[self.source].columns().reshape(-1)[self.chosen])
        return -1, read, laid.table(images[self.target].columns()), [0, len(self.chosen)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """The sum of two values."""

    kind: ClassVar[int] = ADD
    source: int
    other: int
    target: int

    def lay(self, images: Sequence[Image], laid: Laid) -> tuple[int, int, int, list[int]]:
        """OTHER, READ, WRITE and the kind's own columns."""
        read, other, write = (laid.table(images[value].columns()) for value in (self.source, self.other, self.target))
        return self.other, read, write, [other]


def program(images: Sequence[Image], layers: Sequence[tuple[Layer, int]], order: Sequence[str]) -> Program:
    """The tables of a model.

    Args:
        images: the values.
        layers: each with the activation after it, or −1.
        order: the names of parameters as the model has them.
    """
    longest = max(image.size for image in images)
    laid, rows, later = Laid(tables=[np.arange(longest)]), [], set()
    for layer, activation in layers:
        place = laid.size
        other, read, write, own = layer.lay(images, laid)
        row = [layer.kind, layer.source, layer.target, other, place, activation, 0, 0, 0, read, write, *own]
        rows.append([*row, *[0] * (LAYER_COLUMNS - len(row))])
    for row in rows[::-1]:  # as derivatives are computed: who comes first sets, the others add
        row[6], row[7], row[8] = int(row[1] in later), int(row[3] in later), int(row[1] > 0)
        later |= {row[1], row[3]}
    kinds = [layer.kind in SINGLE for layer, _ in layers]
    tables = np.concatenate(laid.tables)
    tables.flags.writeable = False
    return Program(
        table=np.array(rows, np.int64),
        values=np.array([_row(image) for image in images], np.int64),
        tables=tables,
        runs=_runs([laid.weights[name].reshape(-1) for name in order]),
        size=laid.size,
        turned=laid.turned,
        prefix=kinds.index(False) if False in kinds else len(kinds),
    )


def _row(image: Image) -> list[int]:
    found = [image.size, image.first, image.pitch, image.stride, image.height, image.width, image.channels]
    return [*found, *[0] * (VALUE_COLUMNS - len(found))]


def _runs(places: Sequence[Ints]) -> Ints:
    """Places as few runs of equal distance."""
    found, start = [], 0
    for part in places:
        gaps, at = np.diff(part), 0
        for end in [*(np.flatnonzero(np.diff(gaps)) + 1).tolist(), len(gaps)]:
            if end >= at:
                found.append((start + at, int(part[at]), end - at + 1, int(gaps[at]) if end > at else 1))
                at = end + 1
        if at < len(part):
            found.append((start + at, int(part[at]), 1, 1))
        start += len(part)
    return np.array(found, np.int64).reshape(-1, 4)
