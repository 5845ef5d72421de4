"""Releases that follow each other understand each other both ways; others are refused, and told who is to upgrade."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from fedsite.protocol import messages, signing, versions
from fedsite.protocol.errors import DocumentError, RefusalCode
from fedsite.protocol.messages import Header, ReplyHeader
from fedsite.protocol.versions import Formats

# A change of the format from 1 to 2, release by release, and one to 3 after it.
RELEASES = [
    Formats(writes=1, reads=(1,)),
    Formats(writes=1, reads=(1, 2)),
    Formats(writes=2, reads=(1, 2)),
    Formats(writes=2, reads=(2, 3)),
    Formats(writes=3, reads=(2, 3)),
    Formats(writes=3, reads=(3,)),
]
SCHEMA = messages.REPLY_SCHEMA


def header(version: object) -> dict[str, Any]:
    return {"schema": f"fedsite.reply/{version}"}


@pytest.mark.parametrize("first", range(len(RELEASES)))
def test_two_releases_in_a_row_understand_each_other_both_ways(first: int) -> None:
    for one, other in itertools.permutations(RELEASES[first : first + 2], 2):
        versions.check(header(one.writes), SCHEMA, other)


def test_this_release_reads_what_it_writes() -> None:
    assert versions.CURRENT.writes in versions.CURRENT.reads
    assert versions.CURRENT in RELEASES


@pytest.mark.parametrize("version", [3, 4, 999_999_999])
def test_a_newer_format_says_to_upgrade_here(version: int) -> None:
    with pytest.raises(DocumentError) as error:
        versions.check(header(version), SCHEMA, RELEASES[2])
    assert error.value.refusal is RefusalCode.PROTOCOL_VERSION
    assert error.value.allowed.startswith("format 1 or 2")
    assert "on this host: pip install --upgrade fedsite" in error.value.next_step


def test_a_format_that_is_gone_says_to_upgrade_the_other_end() -> None:
    with pytest.raises(DocumentError) as error:
        versions.check(header(1), SCHEMA, RELEASES[3])
    assert error.value.refusal is RefusalCode.PROTOCOL_VERSION
    assert "at the other end" in error.value.next_step


@pytest.mark.parametrize("version", ["0", "01", "-1", "1.0", "", "x", "٣", "1" * 10, " 1", "1\n"])
def test_what_is_no_version_is_malformed(version: str) -> None:
    with pytest.raises(DocumentError) as error:
        versions.check(header(version), SCHEMA)
    assert error.value.refusal is RefusalCode.MALFORMED


@pytest.mark.parametrize("value", [{}, {"schema": None}, {"schema": 1}, {"schema": "fedsite.instruction/1"}])
def test_another_message_is_malformed(value: dict[str, Any]) -> None:
    with pytest.raises(DocumentError) as error:
        versions.check(value, SCHEMA)
    assert error.value.refusal is RefusalCode.MALFORMED


def test_signed_messages_of_the_next_release_are_read_by_one_that_knows_them_and_refused_by_name_else(
    pumps: Any, site_key: Any, now: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    federation, key, _ = pumps
    site = site_key.public.id
    asked = signing.sign_instruction(_instruction(federation.id, site, "fedsite.instruction/2"), {}, key)
    with pytest.raises(DocumentError) as error:
        signing.open_instruction(asked, federation, site, now)
    assert error.value.refusal is RefusalCode.PROTOCOL_VERSION
    monkeypatch.setattr(versions.check, "__defaults__", (RELEASES[1],))
    opened = signing.open_instruction(asked, federation, site, now)
    assert opened.kind == "finish"
    reply = signing.sign_reply(_reply(opened, signing.instruction_hash(asked)), {}, site_key)
    monkeypatch.setattr(versions.check, "__defaults__", (RELEASES[2],))
    assert signing.open_reply(reply, site_key.public, instruction=asked.header).outcome == "ok"
    monkeypatch.setattr(versions.check, "__defaults__", (RELEASES[3],))
    with pytest.raises(DocumentError) as error:
        signing.open_reply(reply, site_key.public, instruction=asked.header)
    assert error.value.refusal is RefusalCode.PROTOCOL_VERSION


def _instruction(federation: str, site: str, schema: str) -> Header:
    return Header(
        schema=schema, kind="finish", federation=federation, site_id=site,
        run_id="01ARZ3NDEKTSV4RRFFQ69G5FAV", round=0, attempt=1, plan_hash="0" * 64,
    )  # fmt: skip


def _reply(asked: Header, instruction: str) -> ReplyHeader:
    return ReplyHeader(
        kind=asked.kind, federation=asked.federation, site_id=asked.site_id, run_id=asked.run_id, round=asked.round,
        attempt=asked.attempt, instruction=instruction, outcome="ok",
    )  # fmt: skip
