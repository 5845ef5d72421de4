"""Files to and from the server at a site without a network: the same handler answers, and nothing else does.

A file is checked as a whole before any of it is used. What was answered is not done again, so importing a file twice
changes nothing; what has to wait for a person or another hour is kept out of the answers, and done by a later import.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from fedsite.client.carried.answers import Answered, CarriedAnswers
from fedsite.client.identity.site import Site
from fedsite.client.store import Outbox
from fedsite.protocol import instants, messages, signing
from fedsite.protocol.errors import ASK_LATER, RefusalCode, TrustError, UnreachableError
from fedsite.protocol.exchange_file import Address, Parcel, open_parcel, pack
from fedsite.protocol.keys import VerifyKey
from fedsite.protocol.messages import Frame, Header

_ORDER: Final = ("prepare", "statistics", "train", "evaluate", "calibrate", "install", "finish")  # of one run
_UNPREPARED: Final = ("prepare", "install", "finish")  # kinds that need no accepted plan

State = Literal["answered", "before", "later", "expired"]


class Answers(Protocol):
    """Whoever answers instructions (handler.Handler)."""

    def handle(self, frame: Frame) -> Frame:
        """The reply; never raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What became of one instruction."""

    header: Header
    state: State  # answered; answered by an earlier import; not now, by `code`; its time is over
    outcome: str = ""
    code: RefusalCode | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A file for the server, or that there is nothing to carry."""

    data: bytes | None
    sequence: int | None
    answers: Sequence[Answered]


def check(data: bytes, site: Site, now: datetime) -> Parcel:
    """A file of instructions for this site, checked as a whole.

    Raises:
        DocumentError, IntegrityError, TrustError: damaged, expired, or another's.
    """

    def key_of(site_id: str) -> VerifyKey:
        if site_id != site.id:
            raise TrustError(
                f"this file is for site {site_id[:8]}",
                allowed=f"site {site.id[:8]} ({site.name})",
                next_step="take it to the host that it is for",
                refusal=RefusalCode.WRONG_SITE,
            )
        return site.federation.verify_key

    return open_parcel(data, "instructions", site.federation, key_of, now)


def fetcher(parcel: Parcel) -> Callable[[str, int], bytes]:
    """Releases come with the file that asks for them, in place of a download."""

    def fetch(path: str, limit: int) -> bytes:
        data = parcel.files.get(path)
        if data is None or len(data) > limit:
            raise UnreachableError(f"this file does not bring {path}", next_step="ask the central team for a new file")
        return data

    return fetch


def take_in(
    parcel: Parcel,
    site: Site,
    handler: Answers,
    outbox: Outbox,
    answers: CarriedAnswers,
    *,
    clock: Callable[[], datetime] = instants.now,
    progress: Callable[[int, int, Header], None] = lambda number, count, header: None,
) -> list[Done]:
    """Have every instruction of a checked file answered.

    Args:
        parcel: of `check`.
        site: who we are.
        handler: answers, and spends.
        outbox: the accepted plans.
        answers: where the answers wait.
        clock: UTC.
        progress: told before each instruction: its number, how many there are, and what it is.

    Raises:
        TrustError: an earlier file is missing, or this one was closed: nothing was taken in.
    """
    answers.counts.known(parcel)
    asked = _ordered(parcel, site, clock())
    _check_order([header for _, header in asked], outbox)
    done = []
    for number, (frame, header) in enumerate(asked, start=1):
        progress(number, len(asked), header)
        done.append(_one(frame, header, handler, answers, clock()))
    answers.counts.note(parcel)
    return done


def export(site: Site, answers: CarriedAnswers, now: datetime) -> Exported:
    """Pack every answer that still counts.

    Raises:
        StorageError: the disk.
    """
    found = answers.all(now)
    if not found:
        return Exported(data=None, sequence=None, answers=())
    address = Address(
        direction="replies",
        federation=site.federation.id,
        site_id=site.id,
        sequence=answers.counts.next(now),
        created=now,
        expires=max(item.expires for item in found),
    )
    data = pack(address, [item.reply for item in found], {}, site.key)
    return Exported(data=data, sequence=address.sequence, answers=found)


def _ordered(parcel: Parcel, site: Site, now: datetime) -> list[tuple[Frame, Header]]:
    """The instructions with their headers, in the order of their runs; each is checked, but for its time."""
    found = []
    for frame in parcel.frames:
        header = messages.read_header(frame.header)
        late = bool(header.expires) and now >= instants.read(header.expires)
        signing.open_instruction(frame, site.federation, site.id, instants.read(parcel.head.created) if late else now)
        found.append((frame, header))
    return sorted(found, key=lambda item: (item[1].run_id, item[1].attempt, _place(item[1]), item[1].round))


def _place(header: Header) -> int:
    return _ORDER.index(header.kind) if header.kind in _ORDER else 0


def _check_order(headers: Sequence[Header], outbox: Outbox) -> None:
    """Refuse a file that comes before the one with its run's plan.

    Raises:
        TrustError: it does (`plan-unknown`).
    """
    brought = {header.run_id for header in headers if header.kind == "prepare"}
    for header in headers:
        if header.kind in _UNPREPARED or header.run_id in brought or outbox.folder(header.run_id).exists():
            continue
        raise TrustError(
            f"{header.kind} of run {header.run_id} comes before the file with its plan",
            allowed="the files of a run in their order",
            next_step="import the earlier file first, then this one again",
            refusal=RefusalCode.PLAN_UNKNOWN,
        )


def _one(frame: Frame, header: Header, handler: Answers, answers: CarriedAnswers, now: datetime) -> Done:
    name = signing.instruction_hash(frame)
    known = answers.find(name)
    if known is not None:
        return Done(header=header, state="before", outcome=known.outcome, code=known.code)
    if header.expires and now >= instants.read(header.expires):
        return Done(header=header, state="expired")
    reply = handler.handle(frame)
    told = messages.read_reply(reply.header)
    if told.code in ASK_LATER:
        return Done(header=header, state="later", outcome=told.outcome, code=told.code)
    if told.code is RefusalCode.REPLAYED and answers.over(header.run_id):
        # Its answer was here, and went with the run: a file of before the end has nothing to carry back.
        return Done(header=header, state="before", outcome=told.outcome, code=told.code)
    if header.kind == "finish":
        answers.ended(header.run_id)
    answers.keep(name, header, reply)
    return Done(header=header, state="answered", outcome=told.outcome, code=told.code)


def run(directory: Path, data: bytes, progress: Callable[[int, int, Header], None]) -> tuple[Parcel, list[Done]]:
    """`take_in` at the site of a state directory, in the agent's place.

    Raises:
        ConfigError: not joined, wrong settings, or an agent runs. Others of the tree: as `check` and `take_in`.
    """
    from fedsite.client import assembly, settings, state_directory
    from fedsite.client.audit import log as audit_log
    from fedsite.client.carried import standing
    from fedsite.client.identity import site as identity

    site = identity.load(directory)
    parcel = check(data, site, instants.now())
    with state_directory.only_one(directory):
        standing.mark(directory)
        parts = assembly.assemble(directory, settings.SettingsFile(directory), fetcher(parcel))
        try:
            done = take_in(parcel, site, parts.handler, parts.outbox, CarriedAnswers(directory), progress=progress)
        finally:
            parts.worker.close()
        if any(item.state == "answered" for item in done):
            audit_log.record(directory, "carried-in", {"sequence": parcel.head.sequence, "file": parcel.digest})
    return parcel, done


def pack_answers(directory: Path, write: Callable[[bytes], None]) -> Exported:
    """`export` at the site of a state directory; `write` puts the file, where there is one, on what is carried.

    Raises:
        ConfigError: not joined, or an agent runs. StorageError: the disk, or the medium.
    """
    from fedsite.client import state_directory
    from fedsite.client.audit import log as audit_log
    from fedsite.client.carried import standing
    from fedsite.client.identity import site as identity

    site, now = identity.load(directory), instants.now()
    with state_directory.only_one(directory):
        found = export(site, CarriedAnswers(directory), now)
        if found.data is not None:
            facts: dict[str, Any] = {"sequence": found.sequence, "answers": len(found.answers)}
            audit_log.record(directory, "carried-out", facts)
            write(found.data)
            standing.note_exported(directory, (item.instruction for item in found.answers), now)
    return found
