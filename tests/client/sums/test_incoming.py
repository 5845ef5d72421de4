"""What an instruction brings is read strictly: names, bounds, lengths."""

from __future__ import annotations

from dataclasses import astuple, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsite.client.sums import incoming
from fedsite.client.sums.store import Place
from fedsite.protocol.errors import DocumentError, FedsiteError, IntegrityError, RefusalCode
from fedsite.protocol.messages import Frame, Header
from fedsite.protocol.secagg import wire
from tests.secagg_cohort import RUN, Cohort

HEADER = Header(
    kind="share", purpose="train", federation="0" * 32, site_id="1" * 32, run_id=RUN, round=2, attempt=3,
    plan_hash="2" * 64,
)  # fmt: skip


def frame(**blobs: bytes) -> Frame:
    return Frame(header=b"", signature=b"", blobs=blobs)


def test_a_stage_names_its_purpose_and_work_is_its_own() -> None:
    place = Place(run_id=RUN, round=2, purpose="train", attempt=3)
    assert incoming.place_of(HEADER) == place
    assert incoming.place_of(replace(HEADER, kind="evaluate", purpose="")) == replace(place, purpose="evaluate")
    incoming.check_purpose(HEADER)
    for header in (replace(HEADER, purpose=""), replace(HEADER, kind="train"), replace(HEADER, kind="finish")):
        with pytest.raises(DocumentError):
            incoming.check_purpose(header)


@given(value=st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=3))
def test_what_follows_is_a_round_and_an_attempt(value: Any) -> None:
    good = {"round": 4, "attempt": 5}
    for body in ({}, {"next": value}, {"next": good | {"round": value}}, {"next": good | {"attempt": value}}):
        asked = replace(HEADER, kind="unmask", body=body)
        if type(value) is int and 1 <= value <= 1_000_000 and isinstance(body.get("next"), dict):
            assert value in astuple(incoming.place_of_next(asked, "train"))
        elif type(value) is not int or not 0 <= value <= 1_000_000 or "next" not in body:
            with pytest.raises(DocumentError) as error:
                incoming.place_of_next(asked, "train")
            assert error.value.refusal == RefusalCode.MALFORMED
    place = incoming.place_of_next(replace(HEADER, kind="unmask", body={"next": good}), "evaluate")
    assert place == Place(run_id=RUN, round=4, purpose="evaluate", attempt=5)
    with pytest.raises(DocumentError, match="another sum"):
        incoming.place_of_next(replace(HEADER, kind="advertise", body={"next": good}), "train")


def test_a_manifest_is_the_bytes_that_its_hash_is_of() -> None:
    manifest = Cohort(3).manifest
    assert incoming.manifest_of(frame(next=manifest.encode())) == manifest
    for data in (manifest.encode() + b" ", b"{}", b""):
        with pytest.raises(DocumentError) as error:
            incoming.manifest_of(frame(next=data))
        assert error.value.refusal == RefusalCode.MALFORMED
    with pytest.raises(DocumentError, match="brings no next"):
        incoming.manifest_of(frame())


COHORT = Cohort(4)
COHORT.advertise()
COHORT.share()


@given(noise=st.binary(max_size=200))
def test_sets_and_shares_have_exactly_their_length(noise: bytes) -> None:
    cohort, one = COHORT, COHORT.ids[1]
    state, sealed = cohort.states[one], cohort.sum.shares_for(one)
    good = wire.pack_set(cohort.ids, cohort.ids) + wire.pack_items(sealed)
    assert incoming.shared_of(frame(secagg=good), state) == (tuple(cohort.ids), sealed)
    for data in (good[:-1], good + b"x", noise):
        with pytest.raises(FedsiteError) as error:
            incoming.shared_of(frame(secagg=data), state)
        assert error.value.refusal == RefusalCode.MALFORMED
    packed = wire.pack_set(cohort.ids[:3], cohort.ids)
    assert incoming.survivors_of(frame(secagg=packed), state) == tuple(cohort.ids[:3])
    assert incoming.confirmed_of(frame(secagg=packed), state) == (tuple(cohort.ids[:3]), {})
    with pytest.raises(IntegrityError):
        incoming.confirmed_of(frame(secagg=packed + b"x"), state)


def test_before_a_cohort_there_is_nothing_to_read() -> None:
    cohort = Cohort(3)
    cohort.advertise()
    for read in (incoming.shared_of, incoming.survivors_of, incoming.confirmed_of):
        with pytest.raises(IntegrityError) as error:
            read(frame(secagg=b"\xe0"), cohort.states[cohort.ids[0]])
        assert error.value.refusal in (RefusalCode.REPLAYED, RefusalCode.MALFORMED)
