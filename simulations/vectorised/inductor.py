"""Traced gradients compiled by `torch.compile`: for long runs, because compiling takes from seconds to minutes.

One shape is compiled, whatever batches come: a step's windows are taken in blocks of one width, filled up with windows
of weight 0, for as many sites as a chunk has. Needs a C++ compiler on the CPU and Triton on a GPU; what is compiled is
kept in the user's cache.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import torch
from torch import Tensor

from fedsite.simulations.vectorised import schedule
from fedsite.simulations.vectorised.functional import NUMBERS, Functional, TracedGradients
from fedsite.simulations.vectorised.job import Job, Layout
from fedsite.simulations.vectorised.lockstep import Batch
from fedsite.simulations.vectorised.population import Population

logger = logging.getLogger(__name__)

# Local steps of sites in a run from which on compiling pays: it takes 10 to 100 s and saves 0.05 to 0.5 ms of each.
PAYS_FROM: Final = 250_000


def obstacle(job: Job, population: Population, device: str, trainings: int | None) -> str | None:
    """Why a traced model is not compiled, or None.

    Args:
        job: what sites do.
        population: whose data it is.
        device: cpu or cuda.
        trainings: of sites in the whole run, or None where somebody asked for compiled gradients by name.
    """
    if job.private and job.privacy.unit == "entity":
        return "privacy.unit entity has batches of many shapes"
    if trainings is not None:
        steps = trainings * schedule.local_steps(job, population)
        if steps < PAYS_FROM:
            return f"compiling pays from {PAYS_FROM:,} local steps of sites in a run; this one has {steps:,}"
    if device == "cuda":
        return None if importlib.util.find_spec("triton") else "triton is not installed"
    wanted = os.environ.get("CXX", "g++")
    return None if shutil.which(wanted) else f"there is no C++ compiler here ({wanted})"


class Inductor(Functional):
    """`vmap` of the gradient over sites, compiled."""

    name: ClassVar[str] = "vmap_compiled"

    def __init__(self, job: Job, population: Population, device: str = "cpu") -> None:
        self._sites = min(len(population), schedule.chunk_sites(device, Layout.of(job.module()).size))
        self._width = _width(job, population)
        super().__init__(job, population, device, CompiledGradients(job, device, self._sites, self._width))

    def probe(self) -> None:
        """Compile.

        Raises:
            Exception: whatever the compiler has to say.
        """
        logger.info("compiling gradients of model %s, kept in %s", self._job.model.name, _folder())
        started = time.perf_counter()
        self.attempt(self._sites, self._width)
        logger.info("compiled in %.0f s", time.perf_counter() - started)


class CompiledGradients(TracedGradients):
    """Gradients of so many sites and windows at once, as one compiled function that also updates what they go into."""

    def __init__(self, job: Job, device: str, sites: int, width: int) -> None:
        super().__init__(job, device)
        self._sites = sites
        held = NUMBERS[device] // (self._layout.size * sites)
        self._block = max(1, min(width, held)) if job.private else width
        self._whole = job.epochs is not None  # a batch is one block
        # One thread: several workers share the machine, and bits must not depend on how many.
        options: dict[str, Any] = {"cpp.threads": 1} if device == "cpu" else {}
        self._step = torch.compile(self._pushed, fullgraph=True, dynamic=False, options=options)

    def _pushed(
        self,
        params: list[Tensor],
        into: list[Tensor],
        windows: tuple[Tensor, Tensor, Tensor],
        beta: Tensor,
        alpha: Tensor,
    ) -> None:
        for target, gradient in zip(into, self.sums(params, *windows), strict=True):
            target.mul_(beta).add_(gradient * alpha)

    def push(self, params: list[Tensor], batch: Batch, into: list[Tensor], beta: float, alpha: float) -> None:
        """into ← beta · into + alpha · gradient, where `into` may be `params`."""
        full = [self._filled(param, self._sites) for param in params]
        if into is not params:
            target = [self._filled(tensor, self._sites) for tensor in into]
        else:  # a second block would want the weights of before the first
            target = full if self._whole else [tensor.clone() for tensor in full]
        device = params[0].device
        for start in range(0, batch.x.shape[1], self._block):
            part = slice(start, start + self._block)
            x, y, share = (self._windows(tensor[:, part]) for tensor in (batch.x, batch.y, batch.share))
            keep = torch.tensor(1.0 if start else beta, device=device)
            self._step(full, target, (x, y, share), keep, torch.tensor(alpha, device=device))
        for old, new in zip(into, target, strict=True):
            if old is not new:
                old.copy_(new[: len(old)])

    def _windows(self, part: Tensor) -> Tensor:
        """[C, B, ...] as [sites, block, ...], or [sites, block, 1, ...] where every window has its own gradient."""
        found = part.new_zeros((self._sites, self._block, *part.shape[2:]))
        found[: len(part), : part.shape[1]] = part
        return found[:, :, None] if self._private else found

    @staticmethod
    def _filled(tensor: Tensor, sites: int) -> Tensor:
        """The same [C, ...] with zeros up to as many sites."""
        if len(tensor) == sites:
            return tensor
        found = tensor.new_zeros((sites, *tensor.shape[1:]))
        found[: len(tensor)] = tensor
        return found


def _folder() -> str:
    """Where torch keeps what it compiled, from now on: its default does not outlive the machine's next start."""
    chosen = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    if chosen is None or Path(chosen).parent == Path(tempfile.gettempdir()):
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedsite" / "inductor"
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    return os.environ["TORCHINDUCTOR_CACHE_DIR"]


def _width(job: Job, population: Population) -> int:
    """Windows of a block: few steps have more than one."""
    if job.epochs:
        return job.epochs.batch
    expected = job.local.sampling_rate * float(np.median(population.counts))
    return max(1, math.ceil(min(expected + 2.0 * math.sqrt(expected), float(population.counts.max()))))
