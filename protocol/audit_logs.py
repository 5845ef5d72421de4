"""Several audit logs at once: each is checked alone, then against the heads of it that the others hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedsite.protocol import audit, audit_check, audit_lines, documents, storage
from fedsite.protocol.audit import Head
from fedsite.protocol.audit_check import HeldHead, Problem, Verdict
from fedsite.protocol.errors import DocumentError, FedsiteError, IntegrityError

_MAX_HEADS = 16 << 20  # bytes of a file of heads


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One log and what came of it."""

    signer: str  # id of the key that has to have signed it; a path where nothing names one
    files: Sequence[Path]
    verdict: Verdict


Held = dict[str, list[HeldHead]]  # by signer


def check(paths: Iterable[Path], against: Iterable[Path] = ()) -> list[Checked]:
    """Check every log at `paths`, against each other and against what is `against` them: logs, or files of heads.

    Raises:
        ConfigError, StorageError: a path is not there, or cannot be read.
        DocumentError: what is to be compared with is neither a log nor a file of heads.
        IntegrityError: it is a log, and not whole itself.
    """
    found = {signer: _alone(signer, files) for signer, files in audit_lines.logs(paths).items()}
    held: Held = {}
    for path in against:
        heads = _heads_in(path)
        if heads is None:
            for signer, files in audit_lines.logs([path]).items():
                other = _alone(signer, files)
                if other.verdict.problem is not None:
                    raise damaged(other, other.verdict.problem)
                _collect(held, other)
        else:
            for signer, some in heads.items():
                held.setdefault(signer, []).extend(some)
    for one in found.values():
        _collect(held, one)
    return [
        one if signer not in held or not one.verdict.ok else _alone(signer, one.files, held[signer])
        for signer, one in found.items()
    ]


def conflicts(verdict: Verdict) -> list[tuple[str, int]]:
    """Signers of whose log this one holds two entries of one number: that log was rewritten, or put back."""
    found = []
    for signer, heads in verdict.heads.items():
        known: dict[int, str] = {}
        found += [(signer, head.sequence) for head in heads if known.setdefault(head.sequence, head.hash) != head.hash]
    return found


def damaged(one: Checked, problem: Problem) -> IntegrityError:
    """The error that names the first bad entry."""
    return IntegrityError(
        f"audit log of {one.signer}, {problem.where}: {problem.text} ({problem.fault})",
        allowed="every entry as it was signed, each once and in order",
        next_step="keep the log as it is, and compare it with the other side's copy: fedsite audit verify --against",
    )


def _alone(signer: str, files: Sequence[Path], held: Sequence[HeldHead] = ()) -> Checked:
    expected = "" if signer == str(files[0]) else signer
    verdict = audit_check.verify(audit_lines.lines(files), signer=expected, held=held)
    return Checked(signer=signer, files=files, verdict=verdict)


def _collect(held: Held, one: Checked) -> None:
    by = f"the log of {one.signer}"
    for signer, heads in one.verdict.heads.items():
        held.setdefault(signer, []).extend(HeldHead(head=head, by=by) for head in heads)


def _heads_in(path: Path) -> Held | None:
    """The heads of a file that `fedsite audit head --json` wrote; None for what is something else, or not there."""
    if path.is_dir() or not path.exists():
        return None
    with storage.storage_errors(path):
        if path.stat().st_size > _MAX_HEADS:
            return None  # a log: the server's files are as long
    try:
        value = documents.parse(storage.read(path, limit=_MAX_HEADS))
    except DocumentError:
        return None  # more than one line
    if not isinstance(value, Mapping) or value.get("schema") != audit.HEADS_SCHEMA:
        return None
    found: Held = {}
    for item in value.get("heads") or []:
        try:
            head = Head(sequence=item["sequence"], hash=item["hash"])
            found.setdefault(str(item["signer"]), []).append(HeldHead(head=head, by=str(path)))
        except (KeyError, TypeError, FedsiteError):
            raise DocumentError(f"{path} holds a head that is none", allowed="signer, sequence and hash") from None
    return found
