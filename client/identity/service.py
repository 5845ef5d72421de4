"""The agent as a systemd service: a unit that gives it its own user, its own directory and little else of the host."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedsite.protocol.errors import ConfigError

NAME = "fedsite-agent"
USER = "fedsite"
HOME = Path("/var/lib/fedsite")
BESIDE_WORKER = 512 << 20  # bytes for the agent itself, and for scoring and self-tests, beside the training process
_STATE = Path("/var/lib")
_TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108  what PrivateTmp hides
_UNNAMEABLE = re.compile(r"""["'\\$\x00-\x1f\x7f-\x9f]""")  # each means something else in some line of a unit
_PLAIN = re.compile(r"[A-Za-z0-9._-]+")  # a name that StateDirectory takes; a colon or a space parts it
_HOMES = (Path("/home"), Path("/root"), Path("/run/user"))  # what ProtectHome hides


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What differs from host to host."""

    program: tuple[str, ...]  # absolute path of fedsite, and arguments before its command
    user: str = USER
    home: Path = HOME  # FEDSITE_HOME
    memory_bytes: int | None = None  # of all its processes together; None: no bound
    threads: int = 1  # of the training process
    data: tuple[Path, ...] = ()  # where telemetry lies


def unit(service: Service) -> str:
    """The text of the unit, with how to install it on top.

    Raises:
        ConfigError: a path that a unit cannot name.
    """
    for path in (service.program[0], service.home, *service.data):
        if _UNNAMEABLE.search(str(path)):
            raise ConfigError(
                f"the path {str(path)!r:.200}",
                allowed="a path without quotation marks, backslashes, dollar and control signs",
                next_step="move it, or name it by a link of another name",
            )
    return "\n".join((*_steps(service), *_unit(service), *_process(service), *_bounds(service), *_hardening(service)))


def _steps(service: Service) -> Sequence[str]:
    home, user, fedsite = shlex.quote(str(service.home)), service.user, shlex.join(service.program)
    readable = [f"#   make sure that {user} may read {path}" for path in service.data]
    return (
        f"# {NAME}.service, as printed by `fedsite service`. Once, as root:",
        f"#   useradd --system --user-group --home-dir {home} --shell /usr/sbin/nologin {user}",
        f"#   install -d -o {user} -g {user} -m 0700 {home}",
        f"#   fedsite service > /etc/systemd/system/{NAME}.service && systemctl daemon-reload",
        f"#   runuser -u {user} -- env FEDSITE_HOME={home} {fedsite} join -      (the token from the keyboard)",
        *readable,
        f"#   systemctl enable --now {NAME}; journalctl -u {NAME} shows its log",
    )


def _unit(service: Service) -> Sequence[str]:
    return (
        "",
        "[Unit]",
        "Description=fedsite agent: trains shared models on this site's telemetry, under this site's rules",
        "Wants=network-online.target",
        "# The clock first: requests are signed with the time.",
        "After=network-online.target time-sync.target",
        f"ConditionPathExists={_value(str(service.home / 'site' / 'site.json'))}",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
    )


def _process(service: Service) -> Sequence[str]:
    below = service.home.parent == _STATE and _PLAIN.fullmatch(service.home.name)
    return (
        "Type=exec",
        f"ExecStart={' '.join(_word(word) for word in service.program)} up",
        f"User={service.user}",
        f"Group={service.user}",
        f"StateDirectory={service.home.name}" if below else f"ReadWritePaths={_word(str(service.home))}",
        *(("StateDirectoryMode=0700",) if below else ()),
        f"RuntimeDirectory={NAME}",
        "RuntimeDirectoryMode=0700",
        f"Environment={_word(f'FEDSITE_HOME={service.home}')}",
        f"Environment=XDG_RUNTIME_DIR=%t/{NAME}",
        f"WorkingDirectory={_value(str(service.home))}",
        "UMask=0077",
        "# SIGTERM goes to the agent, which ends its own processes; what is left after that is killed.",
        "KillMode=mixed",
        "TimeoutStopSec=90",
        "# Exit code 2: not joined, or wrong settings; starting again changes nothing. A server's end does not end it.",
        "Restart=on-failure",
        "RestartSec=30",
        "RestartPreventExitStatus=2",
    )


def _bounds(service: Service) -> Sequence[str]:
    memory = "infinity" if service.memory_bytes is None else f"{service.memory_bytes >> 20}M"
    return (
        "",
        "# agent.worker_memory and policy.cpu_threads of site.yaml bound the training process; these bound everything.",
        f"MemoryMax={memory}",
        "# Nothing of the data or the keys on a swap disk.",
        "MemorySwapMax=0",
        f"CPUQuota={100 * (service.threads + 1)}%",
        "TasksMax=256",
        "LimitCORE=0",
    )


def _hardening(service: Service) -> Sequence[str]:
    needed = [Path(service.program[0]), service.home, *service.data]
    inside = any(path.is_relative_to(home) for path in needed for home in _HOMES)
    temporary = any(path.is_relative_to(place) for path in needed for place in _TEMPORARY)
    return (
        "",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "AmbientCapabilities=",
        "ProtectSystem=strict",
        f"ProtectHome={'read-only' if inside else 'yes'}",
        f"PrivateTmp={'no' if temporary else 'yes'}",
        "PrivateDevices=yes",
        "PrivateIPC=yes",
        "ProtectKernelTunables=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelLogs=yes",
        "ProtectControlGroups=yes",
        "ProtectClock=yes",
        "ProtectHostname=yes",
        "# Not ProcSubset=pid: the agent reads /proc for the host's free memory and load.",
        "ProtectProc=invisible",
        "# It calls out, and listens on nothing but its own socket.",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
        "SocketBindDeny=any",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "LockPersonality=yes",
        "RemoveIPC=yes",
        "KeyringMode=private",
        "# Not MemoryDenyWriteExecute: PyTorch and onnxruntime compile kernels as they run.",
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        "SystemCallFilter=~@privileged",
        "SystemCallErrorNumber=EPERM",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
        "",
    )


def _value(text: str) -> str:
    """A value that systemd takes whole: a percent sign is doubled."""
    return text.replace("%", "%%")


def _word(text: str) -> str:
    """One word of a list or a command line."""
    return f'"{_value(text)}"' if any(letter.isspace() for letter in text) else _value(text)
