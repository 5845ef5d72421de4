"""A site's control variate of a run (SCAFFOLD), kept from round to round beside what else is kept of the run.

One file for each round that moved it. Every instruction to train says the last round whose update of this site counted:
the variate of that round is what the site goes on from, and the others are dropped. So at most two files are there, the
same round computed again moves nothing twice, and an update that was never sent, or never counted, has moved nothing.
Where the file is gone or damaged the site goes on from 0: the model is trained as before, but c, which holds what was
lost, is off by that over the number of sites, for the rest of the run.

What is kept follows from updates as they were released: in a private run it is post-processing of them. So it is of use
only once its update is paid for: until then it is pending under the hash of that very update, and nothing goes on from
it. It goes when the run ends, or with the federation.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from fedsite.protocol.errors import DocumentError, FedsiteError
from fedsite.protocol.kept import checked, keep
from fedsite.protocol.messages import CONTROL, Header
from fedsite.protocol.storage import private_directory, storage_errors, sync_directory

_KEPT, _PENDING = ".variate", ".pending"

_log = logging.getLogger(__name__)


def counted(header: Header) -> int:
    """The round that an instruction to train names; 0: none yet.

    Raises:
        DocumentError: not one before the instruction's own.
    """
    found = header.body.get(CONTROL)
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < header.round:
        raise DocumentError(f"control of round {found!r:.40}", allowed=f"a round from 0 to {header.round - 1}")
    return found


def before(folder: Path, number: int) -> bytes | None:
    """The variate after round `number`, encoded; None where there is none. Those of all other rounds are dropped."""
    path = _path(folder, number)
    for other in (*folder.glob(f"*{_KEPT}"), *folder.glob(f"*{_PENDING}")):
        if other != path:
            other.unlink(missing_ok=True)
    if number == 0:
        return None
    try:
        return checked(path)
    except (FedsiteError, OSError) as error:
        _log.warning("the control variate of round %s is lost (%s): this site goes on from 0", number, error)
        return None


def pending(folder: Path, number: int, data: bytes, update: bytes) -> None:
    """Keep the variate that round `number` leads to, before its update is kept.

    Args:
        folder: of the run.
        number: of the round.
        data: the variate, encoded.
        update: the values that it follows from, as they are released.

    Raises:
        StorageError: the disk is full or read-only.
    """
    private_directory(folder)
    keep(_waiting(folder, number, update), data)


def paid(folder: Path, number: int, update: bytes) -> None:
    """The update of round `number` is kept and paid for, and may leave: later rounds may go on from its variate.

    A variate of another update stays pending: a site that died before it kept one still holds, and pays for, the last.

    Raises:
        StorageError: the directory cannot be written.
    """
    waiting = _waiting(folder, number, update)
    if waiting.exists():
        with storage_errors(waiting):
            waiting.replace(_path(folder, number))
            sync_directory(folder)


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}{_KEPT}"


def _waiting(folder: Path, number: int, update: bytes) -> Path:
    return folder / f"{number:06d}-{hashlib.sha256(update).hexdigest()}{_PENDING}"
