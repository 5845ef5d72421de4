"""Which formats of messages a release writes and reads: the ends of two releases in a row understand each other.

No end asks the other for its version. A new format is read one release before it is written, and read one release
longer than it is written: of a change from 1 to 2, one release reads 1 and 2 and writes 1, the next reads 1 and 2 and
writes 2, the one after knows 2 alone. What is neither is refused as `protocol-version`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fedsite.protocol.errors import DocumentError, RefusalCode


@dataclass(frozen=True, slots=True, kw_only=True)
class Formats:
    """What one release speaks."""

    writes: int
    reads: tuple[int, ...]  # one or two that follow each other


CURRENT: Final = Formats(writes=1, reads=(1,))


def check(value: Mapping[str, Any], schema: str, formats: Formats = CURRENT) -> None:
    """Check the `schema` field of a message's header.

    Args:
        value: the header.
        schema: of the message as this release writes it ("fedsite.reply/1"); its version is not looked at.
        formats: of this release.

    Raises:
        DocumentError: another message, or a version that this release does not read (`protocol-version`).
    """
    name = schema.rpartition("/")[0]
    found = value.get("schema")
    stem, _, text = found.rpartition("/") if isinstance(found, str) else ("", "", "")
    if stem != name or not (text.isascii() and text.isdecimal()) or len(text) > 9 or text.startswith("0"):
        raise DocumentError(f"schema {found!r:.80}", allowed=schema)
    version = int(text)
    if version in formats.reads:
        return
    here = version > max(formats.reads)
    raise DocumentError(
        f"a message of format {version} from a {'newer' if here else 'much older'} fedsite",
        allowed=f"format {' or '.join(map(str, formats.reads))}: releases that follow each other",
        next_step=f"upgrade fedsite {'on this host' if here else 'at the other end'}: pip install --upgrade fedsite",
        refusal=RefusalCode.PROTOCOL_VERSION,
    )
