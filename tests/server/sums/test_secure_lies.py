"""What a site sends in a stage of a secure sum, late, twice, forged or wrong: that site's outcome alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedsite.protocol.errors import RefusalCode
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.messages import Frame, Header
from tests.secure_play import GRID, NAMES, at, model, played, site, sums
from tests.simulated_fleet import SimulatedFleet
from tests.simulated_site import SimulatedSite


def forged(one: SimulatedSite, header: Header, frame: Frame) -> list[Frame]:
    honest = one.answer(header, frame)
    one_key, one.key = one.key, SigningKey.generate()
    reply = one.reply(header, frame, {}, {}, raw=honest.blobs, site_id=header.site_id)
    one.key = one_key
    return [reply]


def resized(change: int) -> Callable[[SimulatedSite, Header, Frame], list[Frame]]:
    def act(one: SimulatedSite, header: Header, frame: Frame) -> list[Frame]:
        blobs = {
            name: (blob + bytes(4))[: len(blob) + change] for name, blob in one.answer(header, frame).blobs.items()
        }
        return [one.reply(header, frame, {}, {}, raw=blobs)]

    return act


LIES: dict[str, tuple[Callable[[SimulatedSite, Header, Frame], list[Frame]], str, str | None]] = {
    "forged": (forged, "invalid", "signature"),
    "too short": (resized(-1), "invalid", "malformed"),
    "too long": (resized(1), "invalid", "too-large"),
    "missing": (lambda s, h, f: [s.reply(h, f, {}, {})], "invalid", "malformed"),
    "in the clear": (lambda s, h, f: [s.reply(h, f, {"weight": np.ones(1)}, {})], "invalid", "protection"),
    "other bytes beside": (
        lambda s, h, f: [s.reply(h, f, {}, {}, raw={**s.answer(h, f).blobs, "more": b"x"})], "invalid", "protection",
    ),
    "garbage": (lambda s, h, f: [Frame(header=b"{", signature=b"x" * 64, blobs={})], "invalid", "signature"),
    "refused": (lambda s, h, f: [s.reply(h, f, {}, {}, RefusalCode.BUDGET)], "refused", "budget"),
    "wrong attempt": (lambda s, h, f: [s.reply(h, f, {}, {}, attempt=7)], "invalid", "wrong-run"),
}  # fmt: skip


@pytest.mark.parametrize("stage", ["share", pytest.param("mask", marks=pytest.mark.slow)])
@pytest.mark.parametrize("lie", LIES)
def test_a_bad_stage_reply_is_that_sites_outcome(tmp_path: Path, stage: str, lie: str) -> None:
    act, outcome, code = LIES[lie]
    found = played(tmp_path, 5, lambda fleet: at(stage, act)(fleet.all[0]))
    assert model(found) == pytest.approx(3.5, abs=GRID)  # of 2, 3, 4, 5
    bad = site(found, NAMES[0])
    assert (bad["rounds"][0]["outcome"], bad["code"]) == (outcome, code)


def test_a_bad_opening_is_worked_around(tmp_path: Path) -> None:
    def lie(one: SimulatedSite, header: Header, frame: Frame) -> list[Frame]:
        opened = one.answer(header, frame).blobs["opened"]
        wrong = b"".join(opened[at : at + 1] + bytes(32) for at in range(0, len(opened), 33))
        return [one.reply(header, frame, {}, {}, raw={"opened": wrong})]

    found = played(tmp_path, 5, lambda fleet: at("unmask", lie)(fleet.all[0]))
    assert model(found) == pytest.approx(3.0, abs=GRID)


@pytest.mark.parametrize("dropped", [False, True])
def test_a_site_that_makes_bad_shares_ends_one_round_and_is_in_no_other(tmp_path: Path, dropped: bool) -> None:
    """Its b cannot be found while it is in the sum, nor its mask key when it drops out: it is named, nobody else."""

    def deal(one: SimulatedSite, header: Header, frame: Frame) -> list[Frame]:
        shares = one.answer(header, frame).blobs["shares"]
        return [one.reply(header, frame, {}, {}, raw={"shares": os.urandom(len(shares))})]

    def spoil(fleet: SimulatedFleet) -> None:
        at("share", deal)(fleet.all[0])
        if dropped:
            at("mask", lambda one, header, frame: [])(fleet.all[0])

    found = played(tmp_path, 5, spoil, rounds={"count": 2})
    assert [item["outcome"] for item in found.result["rounds"]] == ["abandoned", "completed"]
    assert [item["participants"] for item in found.result["rounds"]] == [0, 4]
    assert model(found) == pytest.approx(3.5, abs=GRID)  # of 2, 3, 4, 5
    assert NAMES[0] in found.result["rounds"][0]["reason"]
    bad, first, second = site(found, NAMES[0]), *sums(found)
    assert ([item["outcome"] for item in bad["rounds"]], bad["code"]) == (["invalid"], "malformed")
    for name in NAMES[1:5]:
        honest = site(found, name)
        assert ([item["outcome"] for item in honest["rounds"]], honest["code"]) == (["unused", "ok"], None)
    assert (first["outcome"], first["at_fault"]) == ("failed", [NAMES[0]])
    assert (second["outcome"], second["at_fault"], sorted(second["u1"])) == ("opened", [], NAMES[1:5])


def test_keys_that_somebody_else_signed_are_asked_for_again(tmp_path: Path) -> None:
    def lie(one: SimulatedSite, header: Header, frame: Frame) -> list[Frame]:
        reply = one.answer(header, frame)
        other = bytes(176)
        return [one.reply(header, frame, {}, {}, raw={**reply.blobs, "advert": other})]

    def spoil(fleet: SimulatedFleet) -> None:
        at("unmask", lie)(fleet.all[0])

    found = played(tmp_path, 5, spoil, rounds={"count": 2})
    assert [item["participants"] for item in found.result["rounds"]] == [5, 5]


def test_a_duplicate_counts_once_and_a_late_answer_not_at_all(tmp_path: Path) -> None:
    def spoil(fleet: SimulatedFleet) -> None:
        at("share", lambda one, header, frame: [one.answer(header, frame)] * 2)(fleet.all[0])
        slow = fleet.all[1]

        def wait(frame: Frame) -> None:
            header = json.loads(frame.header)
            if header["site_id"] == slow.key.public.id:
                slow.delay_s = 10.5 if header["kind"] == "train" else 0.01

        fleet.on_send = wait

    found = played(tmp_path, 5, spoil)
    assert model(found) == pytest.approx(np.mean([1, 3, 4, 5]), abs=GRID)
    assert site(found, NAMES[1])["rounds"][0]["outcome"] == "silent"
