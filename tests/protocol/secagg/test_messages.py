"""Messages of any stage that are altered, cut, replayed or out of order: refused with a code, and nothing has changed.

What no check can see (bytes inside somebody else's ciphertext) has no effect but on its own share: the sum stays exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsite.protocol.errors import FedsiteError, IntegrityError, PolicyError, RefusalCode
from fedsite.protocol.secagg import fixedpoint, site, wire
from fedsite.protocol.secagg.advert import Roster
from fedsite.protocol.secagg.server import Sum
from fedsite.protocol.secagg.site import SHARE_BYTES, SiteState
from tests.secagg_cohort import NO_MODEL, Cohort, refused

STAGES = ("share", "mask", "unmask")
BEFORE = {"share": "advertised", "mask": "shared", "unmask": "masked", "": "ended"}


class Played:
    """A sum of four sites that went well: every state of its first site, and every message both ways, as bytes."""

    def __init__(self, attempt: int = 1) -> None:
        cohort = self.cohort = Cohort(4, attempt_number=attempt)
        one = self.one = cohort.ids[0]
        self.states: dict[str, SiteState] = {}
        self.sent: dict[str, dict[bytes, bytes]] = {stage: {} for stage in ("advert", "shares", "masked", "opened")}
        cohort.advertise()
        self.states["share"] = cohort.states[one]
        self.sent["advert"] = {advert.site: advert.raw for advert in cohort.sum.roster.adverts}
        whole = cohort.ids
        cohort.share()
        self.states["mask"] = cohort.states[one]
        for source in whole:
            to = {holder: cohort.sum.shares_for(holder)[source] for holder in whole if holder != source}
            self.sent["shares"][source] = wire.pack_items(to)
        sealed = wire.pack_items(cohort.sum.shares_for(one))
        for other in whole:
            self.sent["masked"][other] = cohort.masked(other).tobytes()
            cohort.sum.add_vector(other, np.frombuffer(self.sent["masked"][other], np.uint32))
        self.states["unmask"] = cohort.states[one]
        cohort.sum.close_vectors()
        for other in whole:
            self.sent["opened"][other] = wire.pack_opened(cohort.opened(other), whole)
        self.states[""] = cohort.states[one]
        everybody = wire.pack_set(whole, whole)
        self.received = {"share": cohort.sum.roster.raw, "mask": everybody + sealed, "unmask": everybody}

    def deliver(self, state: SiteState, stage: str, data: bytes) -> tuple[SiteState, Any]:
        """A stage's message to the first site, parsed as the shell around the machine does."""
        identities, whole = self.cohort.identities, self.cohort.ids
        if stage == "share":
            return site.share(state, Roster.parse(data, most=4), identities, NO_MODEL)
        first, rest = wire.split(data, 1, "a set")
        chosen = wire.unpack_set(first, whole)
        if stage == "mask":
            sources = [other for other in chosen if other != self.one]
            sealed = wire.unpack_items(rest, sources, SHARE_BYTES, "shares")
            return site.mask(state, chosen, sealed, fixedpoint.to_ring(self.cohort.vectors[self.one]))
        if rest:
            raise IntegrityError("more than a set", refusal=RefusalCode.MALFORMED)
        return site.unmask(state, chosen, identities, {})

    def fresh(self) -> Sum:
        """The server's machine before anything came."""
        return Sum(manifest=self.cohort.manifest, attempt=self.cohort.attempt, model_hash=NO_MODEL)

    def take(self, sum_: Sum, kind: str, source: bytes, data: bytes) -> None:
        """A site's message to the server's machine; `close` ends the stage that it is in."""
        if kind == "close":
            {"advertise": sum_.close_adverts, "share": sum_.close_shares, "mask": sum_.close_vectors}[sum_.stage]()
        elif kind == "advert":
            sum_.add_advert(source, data, self.cohort.identities)
        elif kind == "shares":
            _take_shares(sum_, source, data)
        elif kind == "masked":
            _take_vector(sum_, source, data)
        else:
            sum_.add_opened(source, wire.unpack_opened(data, self.cohort.ids))

    def script(self) -> list[tuple[str, bytes, bytes]]:
        """All messages to the server in order."""
        found = []
        for kind, sent in self.sent.items():
            found += [(kind, source, data) for source, data in sent.items()]
            if kind != "opened":
                found.append(("close", b"", b""))
        return found


def _take_shares(sum_: Sum, source: bytes, data: bytes) -> None:
    sum_.add_shares(source, wire.unpack_items(data, sum_.neighbours_of(source), SHARE_BYTES, "shares"))


def _take_vector(sum_: Sum, source: bytes, data: bytes) -> None:
    if len(data) % 4:
        raise IntegrityError("part of a word", refusal=RefusalCode.MALFORMED)
    sum_.add_vector(source, np.frombuffer(data, np.uint32))


PLAYED, EARLIER = Played(), Played(attempt=2)
EXPECTED = PLAYED.cohort.expected()


def snapshot(sum_: Sum) -> tuple[Any, ...]:
    """Everything that a message could have changed."""
    parts = (sum_._adverts, sum_._keys, sum_._sealed, sum_._summed, sum_._opened, sum_._answered)
    return (sum_.stage, sum_.session, sum_.u2, sum_.u3, sum_.total.tobytes(), *(repr(part) for part in parts))


def was_refused(action: Callable[..., object], *arguments: object) -> bool:
    """Whether an action was refused, which it may only be by an error of ours with a code."""
    try:
        action(*arguments)
    except FedsiteError as error:
        assert isinstance(error.refusal, RefusalCode)  # noqa: PT017
        return True
    return False


@st.composite
def mutations(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Cut, lengthened, one byte altered, two parts swapped."""
    kind = draw(st.sampled_from(["cut", "more", "flip", "swap"]))
    place, value = draw(st.integers(0, 2000)), draw(st.integers(1, 255))

    def change(data: bytes) -> bytes:
        at = place % max(1, len(data))
        if kind == "cut":
            return data[:at]
        if kind == "more":
            return data[:at] + bytes([value]) + data[at:]
        if kind == "flip":
            return data[:at] + bytes([data[at] ^ value]) + data[at + 1 :]
        return data[at:] + data[:at]

    return change


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(STAGES), mutations())
def test_an_altered_message_to_a_site(stage: str, change: Callable[[bytes], bytes]) -> None:
    """It is refused; or it was another set of sites that it might as well have been, or spoilt ciphertext."""
    state, good = PLAYED.states[stage], PLAYED.received[stage]
    data = change(good)
    before = repr(state), state.stage, state.secret, state.mask_private
    found: list[tuple[SiteState, Any]] = []
    no = was_refused(lambda: found.append(PLAYED.deliver(state, stage, data)))
    assert (repr(state), state.stage, state.secret, state.mask_private) == before
    if no or data == good:
        return
    assert stage != "share"
    after, answer = found[0]
    if stage == "mask":
        assert len(data) == len(good) or data[0] != good[0]
        unmasked, answer = site.unmask(after, after.u2, {}, {})
        spoilt = {source for source, item in after.sealed.items() if item != PLAYED.states["unmask"].sealed[source]}
        assert set(answer) == set(after.u2) - spoilt
        assert unmasked.stage == "ended"
    else:
        assert len(data) == 1  # another U3: one share for each source all the same
        assert set(answer) == {PLAYED.one, *PLAYED.states["unmask"].sealed}
        assert all(len(item) == wire.OPENED_BYTES for item in answer.values())


@given(st.lists(st.sampled_from([*STAGES, "confirm"]), max_size=6))
def test_stages_in_any_order_at_a_site(order: list[str]) -> None:
    """Only the next stage is answered; everything else is `replayed`, in a complete graph also a confirmation."""
    state, following = PLAYED.states["share"], list(STAGES)
    for stage in order:
        if stage == "confirm":
            code = refused(IntegrityError, site.confirm, state, PLAYED.cohort.ids, PLAYED.cohort.keys[PLAYED.one])
            assert code == (RefusalCode.MALFORMED if state.stage == "masked" else RefusalCode.REPLAYED)
        elif following and stage == following[0]:
            state, _ = PLAYED.deliver(state, stage, PLAYED.received[stage])
            following.pop(0)
            assert state.stage == BEFORE[following[0] if following else ""]
        else:
            code = refused(IntegrityError, PLAYED.deliver, state, stage, PLAYED.received[stage])
            assert code == RefusalCode.REPLAYED


@given(st.sampled_from(STAGES))
def test_messages_of_another_attempt_to_a_site(stage: str) -> None:
    """Another attempt's roster is no roster, and its shares open nothing here."""
    state = PLAYED.states[stage]
    if stage == "share":
        refused(IntegrityError, PLAYED.deliver, state, stage, EARLIER.received[stage])
    elif stage == "mask":
        after, _ = PLAYED.deliver(state, stage, EARLIER.received[stage])
        _, answer = site.unmask(after, after.u2, {}, {})
        assert set(answer) == {PLAYED.one}


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(["advert", "shares", "masked", "opened"]), st.integers(0, 3), mutations())
def test_an_altered_message_to_the_server(kind: str, number: int, change: Callable[[bytes], bytes]) -> None:
    """Refused without a trace, and its site is left out; or taken, and the sum is exact all the same, or given up."""
    cohort = Cohort(4)
    sum_, target, lost = cohort.sum, cohort.ids[number], set()

    def send(this: str, one: bytes, data: bytes, take: Callable[[bytes, bytes], None]) -> None:
        before, altered = snapshot(sum_), change(data)
        if this == "masked" and len(altered) == len(data):
            altered = altered[1:]  # a vector of the right length is a vector: privacy is promised, not integrity
        if (this, one) != (kind, target):
            take(one, data)
        elif was_refused(take, one, altered):
            assert snapshot(sum_) == before
            lost.add(one)

    for one in cohort.ids:
        cohort.states[one], advert = site.advertise(cohort.manifest, cohort.attempt, cohort.keys[one])
        send("advert", one, advert.raw, lambda one, data: sum_.add_advert(one, data, cohort.identities))
    for one in sum_.close_adverts().sites:
        cohort.states[one], sealed = site.share(cohort.states[one], sum_.roster, cohort.identities, NO_MODEL)
        send("shares", one, wire.pack_items(sealed), lambda one, data: _take_shares(sum_, one, data))
    for one in sum_.close_shares():
        send("masked", one, cohort.masked(one).tobytes(), lambda one, data: _take_vector(sum_, one, data))
    for one in sum_.close_vectors():
        held = {one, *cohort.states[one].sealed}
        data = wire.pack_opened(cohort.opened(one), held)
        send("opened", one, data, lambda one, data, held=held: sum_.add_opened(one, wire.unpack_opened(data, held)))
    if not sum_.can_open:  # too many shares were spoilt: given up, by name
        assert refused(PolicyError, sum_.open) is RefusalCode.COHORT
        return
    assert np.array_equal(fixedpoint.from_ring(sum_.open()), cohort.expected())
    assert set(sum_.u3) == set(cohort.ids) - (lost if kind != "opened" else set())


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_messages_out_of_order_to_the_server(data: st.DataObject) -> None:
    """One message repeated, or moved: what comes out of turn is refused without a trace, and the sum stays exact."""
    script = PLAYED.script()
    moved = script[data.draw(st.integers(0, len(script) - 1))]
    if moved[0] == "close":
        moved = script[0]
    place = data.draw(st.integers(0, len(script)))
    sum_, taken = PLAYED.fresh(), set()
    for item in [*script[:place], moved, *script[place:]]:
        before = snapshot(sum_)
        if was_refused(PLAYED.take, sum_, *item):
            assert snapshot(sum_) == before
            assert item[:2] == moved[:2]
        else:
            assert item[0] == "close" or item[:2] not in taken
            taken.add(item[:2])
    assert np.array_equal(fixedpoint.from_ring(sum_.open()), EXPECTED)
    refused(IntegrityError, sum_.open)


@given(st.sampled_from(["advert", "shares", "opened"]))
def test_messages_of_another_attempt_to_the_server(kind: str) -> None:
    """Old keys are refused; old shares are ciphertexts that nobody can open, old opened shares give no secret."""
    sum_ = PLAYED.fresh()
    one = PLAYED.one
    for item in PLAYED.script():
        if item[:2] == (kind, one):
            stale = EARLIER.sent[kind][one]
            if kind == "advert":
                before = snapshot(sum_)
                refused(FedsiteError, PLAYED.take, sum_, kind, one, stale)
                assert snapshot(sum_) == before
                return
            PLAYED.take(sum_, kind, one, stale)
        else:
            PLAYED.take(sum_, *item)
    assert np.array_equal(fixedpoint.from_ring(sum_.open()), EXPECTED)  # t of the others' shares are good


def test_nothing_of_a_late_site_is_opened_twice() -> None:
    """A vector that arrives after U3 was closed is not taken, and its b is never asked for."""
    cohort = Cohort(5)
    cohort.advertise()
    cohort.share()
    late = cohort.ids[4]
    vector = cohort.masked(late)
    cohort.mask([one for one in cohort.ids if one != late])
    refused(IntegrityError, lambda: cohort.sum.add_vector(late, vector))
    assert np.array_equal(cohort.unmask(), cohort.expected())
    refused(IntegrityError, lambda: cohort.sum.add_opened(late, {}))
