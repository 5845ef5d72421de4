"""SCAFFOLD at a site: what each step is corrected by, and the site's control variate after the round.

A step is w ← w − η (g + c − c_i), where g is clipped and noised before the correction if the run is private: c is the
centre's, c_i follows from earlier updates, and neither reads data. After the K steps of the plan, with the update
δ = w − w_t as it is sent, c_i' = c_i − c − δ / (K η). A step whose batch was empty is not taken, and counts in K: at
the optimum, where c is 0, c_i is the site's gradient however often that happens.

Memory: two float32 numbers a parameter beside the model.

Source: Karimireddy et al., "SCAFFOLD", ICML 2020 (arXiv:1910.06378), algorithm 1, lines 10 and 12 (option II).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fedsite.protocol import weights
from fedsite.protocol.errors import IntegrityError, RefusalCode
from fedsite.protocol.messages import CONTROL, DELTA
from fedsite.protocol.plan import RoundPlan

VARIATE: Final = "variate"  # blob between agent and worker: c_i before the round, and after it

Numbers = Mapping[str, NDArray[np.float32]]
_SLACK: Final = 64 << 10  # bytes of safetensors header


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """Both control variates, by trained parameter, as gradients are."""

    common: Numbers  # c
    own: Numbers  # c_i

    @classmethod
    def read(cls, blobs: Mapping[str, bytes], shapes: Mapping[str, tuple[int, ...]]) -> Control:
        """What came with an instruction, and what this site kept; it begins at 0.

        Args:
            blobs: `control`, and `variate` where one was kept.
            shapes: of the trained parameters.

        Raises:
            IntegrityError: `control` is missing, too large, not of these parameters, or not finite.
        """
        if CONTROL not in blobs:
            raise IntegrityError(
                "train without control", allowed="blob control, as the plan says", refusal=RefusalCode.MALFORMED
            )
        common = _decoded(blobs[CONTROL], shapes)
        zeros = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        return cls(common=common, own=_decoded(blobs[VARIATE], shapes) if VARIATE in blobs else zeros)

    @property
    def correction(self) -> Numbers:
        """c − c_i."""
        return {name: common - self.own[name] for name, common in self.common.items()}

    def after(self, plan: RoundPlan, values: Mapping[str, NDArray[Any]], round_number: int) -> bytes:
        """c_i' encoded, from the update in `values`.

        Under a secure sum the centre sees the update cut to the plan's bound, and so it counts here. A number that
        would not be finite stays what it was.
        """
        bound = plan.protection.bound if plan.protection.mode == "secagg" else np.inf
        pace = np.float32(plan.local.steps * plan.local.rate(round_number))
        found: dict[str, NDArray[np.float32]] = {}
        for name, own in self.own.items():
            with np.errstate(over="ignore", invalid="ignore"):
                delta = np.clip(np.asarray(values[DELTA + name], np.float32), -bound, bound)
                moved = own - self.common[name] - delta / pace
            found[name] = np.where(np.isfinite(moved), moved, own).astype(np.float32)
        return weights.encode(found)


def _decoded(data: bytes, shapes: Mapping[str, tuple[int, ...]]) -> Numbers:
    """Arrays of exactly these names and shapes.

    Raises:
        IntegrityError: others.
    """
    room = sum(4 * int(np.prod(shape)) + 4 * len(name) + 256 for name, shape in shapes.items()) + _SLACK
    arrays = weights.decode(data, limit=room)
    found = {name: (value.shape, value.dtype.name) for name, value in arrays.items()}
    if found != {name: (tuple(shape), "float32") for name, shape in shapes.items()}:
        raise IntegrityError(
            f"control variates of {len(arrays)} arrays",
            allowed=f"float32, named and shaped as the {len(shapes)} trained parameters",
            refusal=RefusalCode.MODEL_INVALID,
        )
    return arrays
