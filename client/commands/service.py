"""`fedsite service`: prints a hardened systemd unit for this host's agent; nothing is installed."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsite.protocol import output
from fedsite.protocol.errors import ConfigError, FedsiteError

if TYPE_CHECKING:
    from fedsite.client.settings import Settings

SCHEMA = "fedsite.service/1"
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("service", rich_help_panel="Site operator")(service)


def service(
    user: Annotated[
        str, typer.Option(help="The system user that the agent runs as, and nothing else does.")
    ] = "fedsite",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Print a systemd unit that runs the agent as a user of its own, with bounds from site.yaml.

    The state directory is FEDSITE_HOME, or /var/lib/fedsite. How to install it stands on top of what is printed.
    """
    from fedsite.client.identity import service as units
    from fedsite.client.work import memory

    if not _USER.fullmatch(user):
        raise ConfigError(
            f"--user {user!r:.60}", allowed="a system user's name", next_step="fedsite service --user fedsite"
        )
    home = Path(os.environ.get("FEDSITE_HOME") or units.HOME).expanduser().absolute()
    found = _settings(home)
    worker = memory.default() if found.agent.worker_memory is None else found.agent.worker_memory
    paths = [found.data.path, *(source.path for source in found.data.tasks.values())]
    text = units.unit(
        units.Service(
            program=_program(),
            user=user,
            home=home,
            memory_bytes=worker + units.BESIDE_WORKER if worker else None,
            threads=found.policy.cpu_threads,
            data=tuple(dict.fromkeys(Path(path) for path in paths if path and Path(path).is_absolute())),
        )
    )
    if json:
        output.emit({"schema": SCHEMA, "name": f"{units.NAME}.service", "unit": text}, True)
    else:
        print(text, end="")


def _settings(home: Path) -> Settings:
    """The site's settings; the defaults where there are none yet, or none that this user may read."""
    from fedsite.client import settings
    from fedsite.telemetry.errors import TelemetryError

    try:
        return settings.load(home / "site")
    except ConfigError:
        raise
    except (FedsiteError, TelemetryError, OSError):
        output.say(f"warning: {home / 'site'} cannot be read; the bounds are those of the default settings")
        return settings.Settings()


def _program() -> tuple[str, ...]:
    """How this installation is started, by its absolute path."""
    beside = Path(sys.executable).with_name("fedsite")
    return (str(beside),) if beside.exists() else (sys.executable, "-m", "fedsite.client.cli")
