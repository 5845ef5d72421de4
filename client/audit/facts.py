"""What the audit log is told of an instruction: hashes, prices, bytes and seconds; never keys, shares or values."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from fedsite.client.consent import policy
from fedsite.client.ledger.budget_entries import as_values
from fedsite.protocol.messages import Header
from fedsite.protocol.plan import RoundPlan

Audit = Callable[[str, Mapping[str, Any]], None]

# What an answer is in the log, by kind of instruction; work is `masked` where it goes into a sum.
_KINDS = {"statistics": "released", "train": "released", "evaluate": "released", "calibrate": "released",
          "unmask": "opened", "install": "installed", "finish": "ended"}  # fmt: skip
_VALUES = ("sealed", "values", "masked")  # the blob that holds what was released


class Heads(Protocol):
    """The heads of both sides' logs (audit_log.SiteAudit)."""

    def received(self, header: Header) -> None:
        """Take the centre's from a checked instruction."""

    def head(self) -> Mapping[str, Any]:
        """This site's, for the body of a reply."""


class NoHeads:
    """Where there is no log."""

    def received(self, header: Header) -> None:
        """Nobody keeps it."""

    def head(self) -> Mapping[str, Any]:
        """None."""
        return {}


class Meter:
    """Bytes and seconds of a run since the log was last told: its entries add up to the whole."""

    def __init__(self) -> None:
        self._runs: dict[str, list[float]] = {}

    def add(self, run_id: str, down: int, up: int, seconds: float) -> None:
        """Count one instruction and its answer."""
        before = self._runs.setdefault(run_id, [0, 0, 0.0])
        self._runs[run_id] = [before[0] + down, before[1] + up, before[2] + seconds]

    def take(self, run_id: str) -> dict[str, Any]:
        """The sums so far, which begin anew."""
        down, up, seconds = self._runs.pop(run_id, [0, 0, 0.0])
        return {"bytes_down": int(down), "bytes_up": int(up), "seconds": round(seconds, 3)}


def entry(
    header: Header, plan: RoundPlan | None, blobs: Mapping[str, bytes], sum_facts: Mapping[str, Any]
) -> tuple[str, dict[str, Any]] | None:
    """Kind and facts of what an instruction made of this site's data or model; None where it made nothing of them.

    Args:
        header: of the instruction.
        plan: the accepted one; None where the run is over.
        blobs: of the reply.
        sum_facts: of the secure sum that the instruction is a stage of (secure.Sums.told).
    """
    kind = _KINDS.get(header.kind)
    if kind is None:
        return None
    facts: dict[str, Any] = {"run_id": header.run_id, "round": header.round, "attempt": header.attempt}
    if kind == "installed":
        return kind, {**facts, **{name: str(header.body.get(name, "")) for name in ("version", "manifest_hash")}}
    if kind == "ended":
        return kind, {"run_id": header.run_id, "outcome": str(header.body.get("outcome", ""))[:80]}
    facts |= {"work": header.purpose or header.kind, "plan": header.plan_hash, "model": header.model_hash}
    if plan is not None and kind == "released":
        facts["spends"] = {unit: as_values(spends) for unit, spends in policy.price(plan, header).items()}
        kind = "masked" if plan.protection.mode == "secagg" else kind
    found = [blobs[name] for name in _VALUES if name in blobs]
    return kind, {**facts, **sum_facts, "sha256": hashlib.sha256(found[0]).hexdigest() if found else ""}
