"""`fedsite bugreport`: what helps to find a defect, and nothing that a site would not show to a stranger.

Made of an allow-list. In: versions, settings without names, findings by code, counts, sizes, logs scrubbed to this
program's own words. Out: data, keys, tokens, certificates, names of people, sites, tasks of one's own and entities.
"""

from __future__ import annotations

import dataclasses
import io
import json
import platform
import re
import stat
import sys
import tarfile
from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from fedsite.client import settings
from fedsite.client.health import facts as health_facts
from fedsite.client.health import findings as health
from fedsite.client.health import overview, scrub
from fedsite.client.health.findings import Finding
from fedsite.client.identity import site
from fedsite.client.settings import Settings
from fedsite.protocol import documents, instants, storage
from fedsite.protocol.errors import ConfigError, FedsiteError
from fedsite.telemetry.errors import Code

SCHEMA: Final = "fedsite.bugreport/1"
LOGS: Final = 12  # files, the newest
_PACKAGES: Final = (
    "fedsite", "flwr", "numpy", "cryptography", "grpcio", "hydra-core", "typer", "click", "rich", "httpx",
    "safetensors", "pyyaml", "torch", "opacus", "onnxruntime", "polars", "psutil",
)  # fmt: skip
# What a state directory holds by its own making; anything else is only counted.
_FILES: Final = frozenset((
    "agent.json", "agent.lock", "agent.sock", "budget.db", "budget.db-shm", "budget.db-wal", "budget.mark", "ca.crt",
    "current", "epsilon.json", "federation.json", "identity.key", "joining.json", "node.key", "pause.json", "site.json",
    "site.signed.json", "site.yaml", "tls.key", "tls.pem",
))  # fmt: skip
_FOLDERS: Final = frozenset({"approvals", "audit", "contract", "exchange", "logs", "outbox", "slots"})
_LOG = re.compile(r"(?:worker|scoring|error-\d{8}T\d{6}Z-\d{1,10})\.log")
_STATES: Final = frozenset(("stopped", "starting", "connecting", "idle", "working", "unreachable", "clock"))
_CODES: Final = frozenset(str(code) for code in Code)


def gather(directory: Path, now: datetime) -> dict[str, bytes]:
    """The members of the archive by name.

    Args:
        directory: the site's state directory, there or not.
        now: UTC.
    """
    try:
        chosen = settings.load(directory)
    except Exception as error:
        if not hasattr(error, "found"):
            raise
        chosen = None
    members = {
        "versions.json": _json(_versions(now)),
        "settings.json": _json(None if chosen is None else plain_settings(chosen)),
        "state.json": _json(_state(directory, now)),
        "files.json": _json(_files(directory)),
    }
    found = [path for folder in (directory / "logs", directory.parent / "logs") for path in _logs(folder)]
    for path in sorted(found, key=_changed)[-LOGS:]:
        try:
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - scrub.LIMIT))
                members[f"logs/{path.name}"] = scrub.scrub(file.read(scrub.LIMIT)).encode()
        except OSError:
            members[f"logs/{path.name}"] = b"cannot be read\n"
    return members


def write(path: Path, members: Mapping[str, bytes], now: datetime) -> int:
    """Write the archive, mode 0600; returns its size in bytes.

    Raises:
        ConfigError: the file is there already. StorageError: it cannot be written.
    """
    if path.exists() or path.is_symlink():
        raise ConfigError(f"{path} is there already", allowed="a new file", next_step="fedsite bugreport OTHER.tar.gz")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(f"fedsite-bugreport/{name}")
            member.size, member.mtime, member.mode = len(data), int(now.timestamp()), 0o600
            archive.addfile(member, io.BytesIO(data))
    storage.write_atomic(path, buffer.getvalue())
    return len(buffer.getvalue())


def plain_settings(chosen: Settings) -> dict[str, Any]:
    """Numbers, switches and words of ours; of paths their ending, of names and lists how many there are."""
    return {name: _told(name, value) for name, value in dataclasses.asdict(chosen).items() if name != "schema"}


def _told(name: str, value: Any) -> Any:
    if name in ("tasks", "columns", "models", "strategies"):
        return None if value is None else len(value)
    if isinstance(value, Mapping):
        return {str(key): _told(str(key), item) for key, item in value.items()}
    if name == "path":
        return None if value is None else "…" + (_ending(value))
    if name in ("site", "seed"):
        return None if value is None else "given"
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value if value in _words() else "given"
    return len(value)


def _ending(path: str) -> str:
    suffix = Path(path).suffix.lower()
    return suffix if suffix in (".csv", ".parquet", ".npz") else ""


def _words() -> frozenset[str]:
    """Every word that a setting may be by its own type."""
    return frozenset(
        {"secagg", "sealed", "none", "automatic", "once", "each", "auto", "yes", "no", "debug", "info", "warning"}
    )


def _versions(now: datetime) -> dict[str, Any]:
    def version(name: str) -> str | None:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    return {
        "schema": SCHEMA,
        "made": instants.text(now),
        "python": platform.python_version(),
        "system": platform.system(),
        "release": platform.release() if re.fullmatch(r"[\w.+-]{1,64}", platform.release()) else "",
        "machine": platform.machine(),
        "bits": sys.maxsize.bit_length() + 1,
        "packages": {name: version(name) for name in _PACKAGES},
    }


def _state(directory: Path, now: datetime) -> dict[str, Any]:
    """Codes, counts and sizes; no text that was made of what lies in a file."""
    try:
        who = site.load(directory)
        facts = health_facts.read(who, now, counting=None)
    except FedsiteError as error:
        found = health.from_error("identity", "this host is no site", error)
        return {"joined": site.joined(directory), "findings": [_coded(found)]}
    expires = facts.certificate_expires
    return {
        "joined": True,
        "agent": facts.agent["state"] if facts.agent["state"] in _STATES else "other",
        "certificate_days": None if expires is None else round((expires - now).total_seconds() / 86_400, 1),
        "disk_free": facts.disk_free,
        "memory_available": facts.memory_available,
        "runs": {"open": facts.runs_open, "finished": facts.runs_finished, "waiting": len(facts.waiting)},
        "balances": [{"unit": _unit(item.unit), "epsilon": item.epsilon} for item in facts.balances],
        "contracts": [sorted(_CODES.intersection(item.codes)) for item in facts.contracts],
        "model_bytes": None if facts.model is None else len(facts.model.model),
        "unsent": facts.unsent,
        "paused": facts.pause is not None,
        "not_now": len(facts.not_now),
        "findings": [_coded(finding) for finding in overview.findings(facts)],
    }


def _unit(unit: str) -> str:
    return unit if unit in ("window", "entity", "site") else "other"


def _coded(finding: Finding) -> dict[str, Any]:
    """A finding without its text, which may quote what lies in a file."""
    return {"code": finding.code, "severity": finding.severity, "exit_code": int(finding.exit_code)}


def _files(directory: Path) -> dict[str, Any]:
    """Sizes and modes of the files we made, folders summed up; names of anything else are not told."""
    found: dict[str, Any] = {}
    other = 0
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        try:
            status = path.lstat()
        except OSError:
            continue
        if path.name in _FOLDERS and stat.S_ISDIR(status.st_mode):
            inside = [item.lstat() for item in path.rglob("*") if not item.is_symlink() and item.is_file()]
            found[path.name] = {"files": len(inside), "bytes": sum(item.st_size for item in inside)}
        elif path.name in _FILES:
            found[path.name] = {"bytes": status.st_size, "mode": oct(stat.S_IMODE(status.st_mode))}
        else:
            other += 1
    return {"known": found, "other": other}


def _logs(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if _LOG.fullmatch(path.name) and path.is_file() and not path.is_symlink()]


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _json(value: Any) -> bytes:
    return json.dumps(json.loads(documents.canonical(value)), indent=1, ensure_ascii=False).encode() + b"\n"
