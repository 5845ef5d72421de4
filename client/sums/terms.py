"""Whether the manifest of a secure sum is one of the plan this site accepted: what is not so is refused unread.

The plan settles protection, privacy and weights; a manifest may only say which values of the plan's are summed. Nothing
in here reads data or keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedsite.models import sum_noise
from fedsite.protocol.errors import DocumentError, IntegrityError, PolicyError, RefusalCode
from fedsite.protocol.messages import DELTA, LOSS, WEIGHT, Header, Purpose
from fedsite.protocol.plan import RoundPlan
from fedsite.protocol.secagg.manifest import Manifest

ZERO = ("evaluation/", "parity/")  # counts as zeros where a site has none

# Names, or beginnings of names, of what a purpose sums; the second only without privacy.
_VALUES: Mapping[Purpose, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "statistics": (("statistics/",), ()),
    "train": ((DELTA, "evaluation/"), (WEIGHT, LOSS)),
    "evaluate": (("evaluation/",), ("parity/",)),
    "calibrate": (("calibration/",), ()),
}


def check_mode(plan: RoundPlan) -> None:
    """Refuse stages of a secure sum in a run without one.

    Raises:
        PolicyError: the plan has another protection.
    """
    if plan.protection.mode != "secagg":
        raise PolicyError(
            f"a stage of a secure sum in a run with protection {plan.protection.mode}",
            allowed=plan.protection.mode,
            refusal=RefusalCode.PROTECTION,
        )


def check_round(plan: RoundPlan, purpose: str, number: int) -> None:
    """Refuse a round that the plan does not have.

    Raises:
        DocumentError: training outside the plan's rounds, or statistics outside round 0 (`wrong-run`).
    """
    first, last = {"train": (1, plan.rounds.count), "statistics": (0, 0)}.get(purpose, (0, plan.rounds.count))
    if not first <= number <= last:
        raise DocumentError(f"{purpose} of round {number}", allowed=f"{first} to {last}", refusal=RefusalCode.WRONG_RUN)


def check_start(plan: RoundPlan, header: Header) -> None:
    """Refuse to begin training from other weights than the plan names: who agreed to a run agreed to these.

    Raises:
        IntegrityError: the first round has another model (`model-invalid`).
    """
    first = header.kind == "train" and header.round == 1
    if first and plan.model.init_hash and header.model_hash != plan.model.init_hash:
        raise IntegrityError(f"a run that starts from weights {header.model_hash}", allowed=plan.model.init_hash)


def check(manifest: Manifest, plan: RoundPlan, *, limit: int) -> None:
    """Refuse a manifest that the plan did not announce.

    Args:
        manifest: as it came.
        plan: the one that was accepted.
        limit: the largest vector in bytes.

    Raises:
        PolicyError: the plan has another protection.
        DocumentError: another plan's, or other terms, values, weights, bounds or noise (`plan-invalid`).
        IntegrityError: the vector is larger than `limit`.
    """
    check_mode(plan)
    protection = plan.protection
    _same("plan", manifest.plan_hash, plan.hash)
    _same("terms", manifest.terms, protection.terms)
    _same("sites", manifest.sites, protection.sites)
    if manifest.examples_max:
        _same("examples_max", manifest.examples_max, protection.examples_max)
    _check_fields(manifest, plan)
    _check_noise(manifest, plan)
    if 4 * manifest.words > limit:
        raise IntegrityError(
            f"a vector of {4 * manifest.words} bytes",
            allowed=f"at most {limit} (policy.bytes_max)",
            refusal=RefusalCode.TOO_LARGE,
        )


def check_deltas(manifest: Manifest, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse to train for a sum of other updates than the model's.

    Args:
        manifest: checked by `check`.
        shapes: of the trained parameters, by field name.

    Raises:
        DocumentError: a parameter too many, missing, or of another shape (`plan-invalid`).
    """
    found = {item.name: item.shape for item in manifest.fields if item.name.startswith(DELTA)}
    if manifest.purpose == "train" and found != dict(shapes):
        other = sorted(set(found.items()) ^ set(shapes.items()))
        raise _wrong(f"field {other[0][0]:.80}", f"the {len(shapes)} parameters that the plan trains")


def _check_fields(manifest: Manifest, plan: RoundPlan) -> None:
    weighted = plan.weighted and manifest.purpose == "train"
    always, without_privacy = _VALUES[manifest.purpose]
    allowed = always + (without_privacy if plan.privacy.mode == "none" else ())
    for item in manifest.fields:
        if not item.name.startswith(tuple(name for name in allowed if name.endswith("/"))) and item.name not in allowed:
            raise _wrong(f"value {item.name:.80}", ", ".join(allowed))
        by_windows = weighted and (item.name.startswith(DELTA) or item.name in (WEIGHT, LOSS))
        _same(f"weight of {item.name:.80}", item.weighted, by_windows)
        if item.name.startswith(DELTA) and not manifest.noise:
            _same(f"bound of {item.name:.80}", item.bound, plan.protection.bound)
        if item.name == WEIGHT:
            _same("bound of weight", item.bound, 1.0)


def _check_noise(manifest: Manifest, plan: RoundPlan) -> None:
    """Noise in the sum is what the plan says, and over no more values than the site charges for."""
    _same("noise", manifest.noise, sum_noise.noised(plan, manifest.fields)[1])
    for part in manifest.noise:
        words = sum(field.size for field in manifest.fields if field.name.startswith(part.prefix))
        if words > sum_noise.dimensions(plan, part.prefix):
            raise _wrong(
                f"{words} values under {part.prefix}", f"at most {sum_noise.dimensions(plan, part.prefix)}, as charged"
            )


def _same(what: str, found: Any, allowed: Any) -> None:
    if found != allowed:
        raise _wrong(f"{what} is {found!s:.200}", f"{allowed!s:.200}, as the plan says")


def _wrong(found: str, allowed: str) -> DocumentError:
    return DocumentError(f"manifest: {found}", allowed=allowed, refusal=RefusalCode.PLAN_INVALID)
