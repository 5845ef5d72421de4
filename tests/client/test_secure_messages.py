"""Messages of a secure sum that are cut, altered, replayed or out of order: a code, and nothing kept changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedsite.protocol.errors import RefusalCode
from fedsite.protocol.messages import Frame, read_header, read_reply
from tests.secure_sites import STAGES, files

KINDS: dict[str, Callable[[Any, Any], Frame]] = {
    "advertise": lambda party, kit: party.advertise_frame(kit),
    "share": lambda party, kit: party.share_frame(kit),
    "mask": lambda party, kit: party.mask_frame(kit),
    "confirm": lambda party, kit: party.confirm_frame(kit),
    "unmask": lambda party, kit: party.unmask_frame(kit),
}
RIGID = ("roster", "identities")  # blobs of which no byte may change
WRONG: dict[str, Any] = {
    "round": [0, 2, 3, 4],
    "attempt": [2, 1001],
    "purpose": ["", "statistics", "evaluate", "calibrate"],
    "plan_hash": ["0" * 64],
    "run_id": ["01BX5ZZKBKACTAV9WEVGEMMVRZ"],
    "site_id": ["0" * 32],
    "expires": ["2026-03-01T11:59:59Z"],
}

Change = Callable[[Any, Any, str], Frame]


def signed(party: Any, frame: Frame, blobs: Any = None, **changes: Any) -> Frame:
    """The same instruction but for these things, signed by the centre as if it were good."""
    header = replace(read_header(frame.header), **changes)
    return party.centre.sign(header, frame.blobs if blobs is None else blobs)


def cut(draw: Any) -> Change:
    share = draw(st.floats(0, 1, exclude_max=True))

    def change(party: Any, kit: Any, stage: str) -> Frame:
        frame = KINDS[stage](party, kit)
        return signed(party, frame, {name: blob[: int(share * len(blob))] for name, blob in frame.blobs.items()})

    return change


def longer(draw: Any) -> Change:
    more = draw(st.binary(min_size=1, max_size=200))

    def change(party: Any, kit: Any, stage: str) -> Frame:
        frame = KINDS[stage](party, kit)
        return signed(party, frame, {name: blob + more for name, blob in frame.blobs.items()})

    return change


def missing(draw: Any) -> Change:
    return lambda party, kit, stage: signed(party, KINDS[stage](party, kit), {})


def altered(draw: Any) -> Change:
    place, bit = draw(st.floats(0, 1, exclude_max=True)), 1 << draw(st.integers(0, 7))

    def change(party: Any, kit: Any, stage: str) -> Frame:
        frame = KINDS[stage](party, kit)
        blobs = dict(frame.blobs)
        for name, blob in frame.blobs.items():
            # Of a share that a neighbour encrypted not even its holder can tell; of the set before it, it can.
            at = int(place * len(blob)) if name in RIGID else 0
            blobs[name] = blob[:at] + bytes([blob[at] ^ bit]) + blob[at + 1 :]
        return signed(party, frame, blobs)

    return change


def reordered(draw: Any) -> Change:
    other = draw(st.sampled_from(list(KINDS)))
    return lambda party, kit, stage: signed(
        party, KINDS[other if other != stage else "confirm"](party, kit), run_key=""
    )


def misdirected(draw: Any) -> Change:
    name = draw(st.sampled_from(list(WRONG)))
    value = draw(st.sampled_from(WRONG[name]))

    def change(party: Any, kit: Any, stage: str) -> Frame:
        frame = KINDS[stage](party, kit)
        # The mask stage has its purpose in its kind: one beside it is wrong.
        return signed(party, frame, **{name: "train" if (name, stage) == ("purpose", "mask") else value})

    return change


def forged(draw: Any) -> Change:
    signature = draw(st.binary(min_size=64, max_size=64))
    return lambda party, kit, stage: replace(KINDS[stage](party, kit), signature=signature)


@st.composite
def changes(draw: Any) -> Change:
    kinds = [cut, longer, missing, altered, reordered, misdirected, forged]
    return draw(st.sampled_from(kinds))(draw)


@pytest.mark.parametrize("stage", STAGES)
@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_what_is_not_the_next_message_is_refused_and_changes_nothing(party: Any, stage: str, data: Any) -> None:
    if not party.kits[0].worker.calls:
        party.reach(stage)
    kit = party.kits[0]
    asked = data.draw(changes())(party, kit, stage)
    before = files(kit), len(kit.worker.calls)
    header = read_reply(kit.handler().handle(asked).header)
    assert (header.outcome, header.blobs, header.body) == ("refused", {}, {})
    assert header.code not in (None, RefusalCode.INTERNAL, RefusalCode.STORAGE)
    assert (files(kit), len(kit.worker.calls)) == before


@pytest.mark.parametrize("stage", STAGES)
def test_what_was_answered_gets_the_same_bytes_and_its_twin_a_code(party: Any, stage: str) -> None:
    party.reach(stage)
    kit = party.kits[0]
    asked = KINDS[stage](party, kit)
    first = kit.handler().handle(asked)
    before = files(kit)
    assert kit.handler().handle(asked) == first
    twin = signed(party, asked, run_key="")
    assert kit.answer(twin).code == RefusalCode.REPLAYED
    assert files(kit) == before
