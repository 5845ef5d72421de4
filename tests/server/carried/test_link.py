"""The link over files, beside one over a network; and files of replies, which count once or are refused whole."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
from collections.abc import Collection, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from fedsite.protocol import documents, instants, signing
from fedsite.protocol.errors import ConfigError, FedsiteError, IntegrityError, RefusalCode, StorageError, TrustError
from fedsite.protocol.exchange_file import Address, Parcel, open_parcel, pack
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.messages import Frame, Header, ReplyHeader
from fedsite.server import home as homes
from fedsite.server.audit_log import nowhere
from fedsite.server.carried import parcels, spool
from fedsite.server.carried.link import BothLinks, CarriedLink
from fedsite.server.link.transport import Failure, SiteLink
from fedsite.server.plans import feasible
from fedsite.server.sites.fleet_file import read_sites
from fedsite.server.sites.view import site_view
from tests.centre import START, Centre, EnrollingSite
from tests.site_place import killed

RUNS = ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5FAW")


class Post:
    """A centre with one carried site, island, and what that answers."""

    def __init__(self, folder: Path) -> None:
        self.centre = Centre(homes.ServerHome(folder / "server"))
        self.home = self.centre.home
        self.island = self.enrol("island")
        self.now = START

    def enrol(self, name: str, *, carried: bool = True) -> EnrollingSite:
        site = EnrollingSite()
        self.centre.service.enrol(site.ask(self.centre.token(), name), carried=carried)
        return site

    def link(self, run_id: str = RUNS[0]) -> CarriedLink:
        return CarriedLink(self.home.exchange, self.home.database, run_id, now=lambda: self.now, wait=lambda _s: None)

    def ask(self, kind: str = "train", run_id: str = RUNS[0], number: int = 1, **more: Any) -> Frame:
        header = Header(
            kind=kind, federation=self.centre.federation.id, site_id=self.island.identity.public.id, run_id=run_id,
            round=number, attempt=1, plan_hash="0" * 64, expires=instants.text(self.now + timedelta(hours=1)), **more,
        )  # fmt: skip
        return signing.sign_instruction(header, {"model": b"weights"}, self.home.signing_key())

    def send(self, link: CarriedLink | BothLinks, *frames: Frame) -> list[str | None]:
        (site,) = [site for site in link.sites() if site.name == "island"]
        return link.send([(site, frame) for frame in frames], 60.0)

    def exported(self, now: Any = None) -> Parcel:
        data = parcels.export(self.home, "island", now or self.now).data
        assert data is not None
        key = self.home.signing_key().public
        return open_parcel(data, "instructions", self.centre.federation, lambda _site: key, self.now)

    def reply(self, asked: Frame, *, key: SigningKey | None = None, **changes: Any) -> Frame:
        header = documents.parse(asked.header)
        values = {name: header[name] for name in ("kind", "federation", "site_id", "run_id", "round", "attempt")}
        told = ReplyHeader(**{**values, "instruction": signing.instruction_hash(asked), "outcome": "ok", **changes})
        return signing.sign_reply(told, {"values": b"v" * 10}, key or self.island.identity)

    def file(self, *replies: Frame, sequence: int = 1, key: SigningKey | None = None, site_id: str = "") -> bytes:
        address = Address(
            direction="replies",
            federation=self.centre.federation.id,
            site_id=site_id or self.island.identity.public.id,
            sequence=sequence,
            created=self.now,
            expires=self.now + timedelta(hours=1),
        )
        return pack(address, replies, {}, key or self.island.identity)

    def take_in(self, data: bytes) -> tuple[int, int]:
        found = parcels.take_in(self.home, data, self.now, nowhere)
        return found.taken, found.closed


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    made = Post(tmp_path)
    yield made
    made.centre.fleet.close()


def test_an_instruction_goes_out_and_its_reply_comes_back_once(post: Post) -> None:
    link, asked = post.link(), post.ask()
    (message,) = post.send(link, asked)
    assert message is not None
    assert list(link.poll([message], 0.0)) == []
    assert post.exported().frames == (asked,)
    reply = post.reply(asked)
    assert post.take_in(post.file(reply)) == (1, 0)
    assert list(link.poll([message], 0.0)) == [(message, reply)]
    assert list(link.poll([message], 0.0)) == []
    assert parcels.export(post.home, "island", post.now).data is None
    assert post.take_in(post.file(reply, sequence=2)) == (0, 1)


def test_everything_open_is_in_each_file_and_a_run_asks_one_thing_at_a_time(post: Post) -> None:
    link = post.link()
    first, second, other = post.ask(), post.ask(number=2), post.ask(run_id=RUNS[1])
    messages = post.send(link, first, second, other)
    assert all(messages)
    assert post.exported().frames == post.exported().frames == (second, other)
    assert post.exported().head.sequence < post.exported().head.sequence
    assert post.take_in(post.file(post.reply(first), post.reply(other))) == (1, 1)
    assert link.late([str(message) for message in messages]) == {messages[0]: False, messages[2]: True}


def test_what_expired_is_neither_exported_nor_taken_in(post: Post) -> None:
    asked = post.ask()
    post.send(post.link(), asked)
    late = post.now + timedelta(hours=1)
    assert parcels.export(post.home, "island", late).data is None
    assert post.take_in(post.file(post.reply(asked))) == (0, 1)


def test_another_driver_of_the_run_withdraws_what_was_open(post: Post) -> None:
    post.send(post.link(), post.ask())
    post.send(post.link(RUNS[1]), post.ask(run_id=RUNS[1]))
    assert len(post.exported().frames) == 2
    post.link()
    assert len(post.exported().frames) == 1


def test_wrong_files_are_refused_by_code_and_nothing_of_them_is_taken_in(post: Post, tmp_path: Path) -> None:
    link, asked = post.link(), post.ask()
    (message,) = post.send(link, asked)
    good, other = post.reply(asked), post.enrol("rock")
    theirs = other.identity.public.id
    cases: list[tuple[bytes, RefusalCode]] = [
        (post.file(good, key=other.identity), RefusalCode.SIGNATURE),
        (post.file(good, key=other.identity, site_id=theirs), RefusalCode.SIGNATURE),
        (post.file(good, site_id="0" * 32), RefusalCode.WRONG_SITE),
        (post.file(good, post.reply(asked, key=other.identity)), RefusalCode.SIGNATURE),
        (post.file(post.reply(asked, round=2)), RefusalCode.WRONG_RUN),
        (post.file(post.reply(asked, site_id=theirs)), RefusalCode.WRONG_SITE),
        (post.file(dataclasses.replace(good, blobs={"values": b"other"})), RefusalCode.MALFORMED),
        (post.file(good)[:-1], RefusalCode.MALFORMED),
        (post.file(good) + b"x", RefusalCode.MALFORMED),
    ]
    cases.pop(1)  # a file of rock's own, about island's instruction: nothing of it is open for rock
    assert post.take_in(post.file(good, key=other.identity, site_id=theirs)) == (0, 1)
    for data, code in cases:
        with pytest.raises(FedsiteError) as refused:
            post.take_in(data)
        assert refused.value.refusal is code
        assert list(link.poll([str(message)], 0.0)) == []
    elsewhere = Post(tmp_path / "elsewhere")
    with pytest.raises(FedsiteError, match="of federation"):
        elsewhere.take_in(post.file(good))
    elsewhere.centre.fleet.close()
    assert post.take_in(post.file(good)) == (1, 0)
    for data in (post.file(good), post.file(post.reply(asked, outcome="refused", code=RefusalCode.POLICY))):
        with pytest.raises(FedsiteError) as refused:
            post.take_in(data)
        assert refused.value.refusal is RefusalCode.REPLAYED
    post.centre.fleet.revoke(post.island.identity.public.id, instants.text(START))
    with pytest.raises(FedsiteError, match="revoked"):
        post.take_in(post.file(good, sequence=9))


def test_an_import_that_was_cut_off_is_repeated(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    link, frames = post.link(), (post.ask(), post.ask(run_id=RUNS[1]))
    messages = post.send(link, *frames)
    data = post.file(*(post.reply(frame) for frame in frames))
    answer, calls = spool.Spool.answer, []

    def killed(self: spool.Spool, name: str, reply: Frame) -> None:
        if calls:
            raise KeyboardInterrupt
        calls.append(name)
        answer(self, name, reply)

    with monkeypatch.context() as patch:
        patch.setattr(spool.Spool, "answer", killed)
        with pytest.raises(KeyboardInterrupt):
            post.take_in(data)
    assert post.take_in(data) == (1, 1)
    assert len(list(link.poll([str(message) for message in messages], 0.0))) == 2


def test_an_import_killed_at_any_write_is_repeated_and_counts_once(post: Post, tmp_path: Path) -> None:
    frames = (post.ask(), post.ask(run_id=RUNS[1]))
    link = post.link()
    messages = [str(message) for message in post.send(link, *frames)]
    data = post.file(*(post.reply(frame) for frame in frames))
    shutil.copytree(post.home.path, tmp_path / "before")
    for die_at in range(1, 50):
        shutil.rmtree(post.home.exchange)
        shutil.copytree(tmp_path / "before" / post.home.exchange.name, post.home.exchange)
        if not killed(lambda: post.take_in(data), die_at):
            break
        with contextlib.suppress(TrustError):  # it was killed after the last write: taken in before
            post.take_in(data)
        read = list(link.poll(messages, 0.0))
        assert len(read) == 2, f"killed at step {die_at}"
        assert post.take_in(post.file(*(post.reply(frame) for frame in frames), sequence=2)) == (0, 2)
    assert die_at == 7  # two replies and the number of the file, before and after each, and once to the end


def test_an_older_file_after_a_newer_one_brings_only_what_is_still_open(post: Post) -> None:
    frames = (post.ask(), post.ask(run_id=RUNS[1]))
    post.send(post.link(), *frames)
    replies = [post.reply(frame) for frame in frames]
    assert post.take_in(post.file(replies[0], sequence=9)) == (1, 0)
    assert post.take_in(post.file(*replies, sequence=4)) == (1, 1)
    with pytest.raises(FedsiteError) as refused:
        post.take_in(post.file(*replies, sequence=4))
    assert refused.value.refusal is RefusalCode.REPLAYED


def test_a_release_travels_with_the_instruction_to_install_it(post: Post) -> None:
    body = {"version": "1", "manifest_hash": "0" * 64}
    post.send(post.link(), post.ask("install", body=body))
    with pytest.raises(IntegrityError, match="no manifest"):
        parcels.export(post.home, "island", post.now)
    folder = post.home.releases / "1"
    folder.mkdir(parents=True)
    for name in ("manifest.json", "model.onnx"):
        (folder / name).write_bytes(name.encode())
    assert post.exported().files == {
        "/releases/1/manifest.json": b"manifest.json",
        "/releases/1/model.onnx": b"model.onnx",
    }


def test_who_is_not_carried_has_no_files(post: Post) -> None:
    post.enrol("north", carried=False)
    for name, found in (("north", "is connected"), ("nobody", "no site nobody")):
        with pytest.raises(ConfigError, match=found):
            parcels.export(post.home, name, post.now)
    states = {site.name: site_view(site, frozenset())["state"] for site in read_sites(post.home.database)}
    assert states == {"island": "carried", "north": "offline"}
    assert [site.name for site in post.link().sites()] == ["island"]
    # Files are signed by the site's identity: that its TLS certificate has ended changes nothing.
    post.now = START + timedelta(days=4000)
    assert [site.name for site in post.link().sites()] == ["island"]
    post.centre.fleet.revoke(post.island.identity.public.id, instants.text(START))
    assert post.link().sites() == []


def test_the_spool_is_bounded_and_private(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MAX_BYTES", 10)
    assert post.send(post.link(), post.ask()) == [None]
    with pytest.raises(StorageError, match="wait for site"):
        spool.Spool(post.home.exchange, post.island.identity.public.id).put(post.ask())
    assert [path.stat().st_mode & 0o077 for path in post.home.exchange.rglob("*")] == [0] * 3


class Wire:
    """A link over a network that answers at once."""

    ended = False

    def __init__(self, *sites: SiteLink) -> None:
        self._sites = list(sites)
        self.sent: list[str] = []

    def sites(self) -> list[SiteLink]:
        return self._sites

    def send(self, messages: Sequence[tuple[SiteLink, Frame]], expires_s: float) -> list[str | None]:
        self.sent += [site.name for site, _ in messages]
        return [f"wire-{site.name}" for site, _ in messages]

    def poll(self, message_ids: Collection[str], wait_s: float) -> Iterator[tuple[str, Frame | Failure]]:
        for message in message_ids:
            yield message, Failure(reason=f"after {wait_s}")

    def late(self, message_ids: Collection[str]) -> dict[str, bool]:
        return dict.fromkeys(message_ids, True)


def test_connected_and_carried_sites_are_one_link(post: Post) -> None:
    key = SigningKey.generate().public
    north = SiteLink(site_id=key.id, name="north", node_id="7", public_key=key)
    wire = Wire(north)
    both = BothLinks(wire, post.link())
    assert [(site.name, site.carried) for site in both.sites()] == [("island", True), ("north", False)]
    island, asked = both.sites()[0], post.ask()
    messages = both.send([(north, asked), (island, asked), (north, asked)], 60.0)
    assert (messages[0], messages[2], wire.sent) == ("wire-north", "wire-north", ["north", "north"])
    assert post.exported().frames == (asked,)
    assert [found for _, found in both.poll(["wire-north", str(messages[1])], 3.0)] == [Failure(reason="after 3.0")]
    reply = post.reply(asked)
    post.take_in(post.file(reply))
    found = list(both.poll(["wire-north", str(messages[1])], 3.0))
    assert found == [(messages[1], reply), ("wire-north", Failure(reason="after 0.0"))]
    assert both.late(["wire-north", str(messages[1])]) == {"wire-north": True, messages[1]: False}
    assert not both.ended


def test_secure_sums_leave_carried_sites_out_or_are_refused(post: Post) -> None:
    from types import SimpleNamespace

    def plan(mode: str) -> Any:
        return SimpleNamespace(protection=SimpleNamespace(mode=mode, terms=SimpleNamespace(min_cohort=3), groups=1))

    assert feasible.check_carried(plan("sealed"), 0, ["island"]) == ()
    assert feasible.check_carried(plan("secagg"), 3, ["island"]) == ["island"]
    assert list(feasible.check_carried(plan("secagg"), 2, [])) == []
    with pytest.raises(ConfigError, match="island take part by files") as refused:
        feasible.check_carried(plan("secagg"), 2, ["island"])
    assert "protection=sealed" in refused.value.next_step
