"""`fedsite`: one command with three help panels; the server's and the researcher's commands join by entry point.

Starting it imports no torch and nothing of Flower: every command imports what it needs when it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import click
import typer

from fedsite.client.commands import (
    audit,
    bugreport,
    data,
    doctor,
    exchange,
    join,
    leave,
    model,
    pause,
    policy,
    privacy,
    rounds,
    score,
    service,
    status,
    up,
)
from fedsite.protocol import output
from fedsite.protocol.errors import ConfigError, ExitCode
from fedsite.protocol.shape import nearest

ENTRY_POINTS = "fedsite.commands"
# What only one part brings (pyproject.toml).
_EXTRAS = {
    "score": ("onnxruntime", "polars"),
    "site": ("torch", "opacus", "psutil"),
    "server": ("hydra", "omegaconf", "onnx", "onnxscript"),
}
_HELP = "Federated learning across sites: private fine-tuning on telemetry, signed int8 models back on the device."


def build() -> tuple[typer.Typer, dict[str, str]]:
    """The application with every installed command, and why a group of commands could not be loaded (by its name)."""
    app = typer.Typer(
        name="fedsite",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(help=_HELP)(_options)
    for module in (
        join,
        up,
        status,
        doctor,
        pause,
        rounds,
        policy,
        data,
        privacy,
        model,
        score,
        audit,
        exchange,
        service,
        bugreport,
        leave,
    ):
        module.register(app)
    missing: dict[str, str] = {}
    for point in sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        try:
            point.load()(app)
        except ImportError as error:
            # A device installs the site's part only: its own commands must still work.
            missing[point.name] = str(error)
    return app, missing


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return the exit code; prints every error itself."""
    as_json = "--json" in arguments
    missing: dict[str, str] = {}
    try:
        app, missing = build()
        result = typer.main.get_command(app).main(args=list(arguments), prog_name="fedsite", standalone_mode=False)
        return int(result) if isinstance(result, int) else int(ExitCode.OK)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return int(ExitCode.USAGE)
    except click.UsageError as error:
        return output.fail(_usage(error, missing), as_json)
    except (click.Abort, KeyboardInterrupt):
        return output.fail(KeyboardInterrupt(), as_json)
    except BrokenPipeError:
        # The reader of our output (head, less) has seen enough; Python would complain again when flushing at exit.
        sys.stdout = None
        return int(ExitCode.OK)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(ExitCode.OK)
    except ModuleNotFoundError as error:
        return output.fail(_not_installed(error), as_json)
    except Exception as error:
        return output.fail(error, as_json)


def _not_installed(error: ModuleNotFoundError) -> Exception:
    """What to install, where a command meets a package that comes with another part than the one installed here."""
    package = (error.name or "").partition(".")[0]
    for extra, packages in _EXTRAS.items():
        if package in packages:
            return ConfigError(
                f"this command needs {package}, which is not installed here",
                allowed=f"the part of fedsite that brings it: {extra}",
                next_step=f"pip install 'fedsite[{extra}]'",
            )
    return error


def _version(wanted: bool) -> None:
    if wanted:
        print(metadata.version("fedsite"))
        raise typer.Exit


def _options(
    version: bool = typer.Option(
        False, "--version", help="Print the version and end.", callback=_version, is_eager=True
    ),
) -> None:
    """Options before the command."""


def _usage(error: click.UsageError, missing: dict[str, str]) -> ConfigError:
    """A usage error in our own words, with the nearest command or option."""
    context: Any = error.ctx
    path = context.command_path if context is not None else "fedsite"
    found = error.format_message().rstrip(".")
    allowed = ""
    command = context.command if context is not None else None
    if isinstance(command, click.Group) and "No such command" in found:
        word = found.split("'")[1] if "'" in found else ""
        found = f"no such command: {path} {word}"
        allowed = nearest(word, command.list_commands(context))
        if word in missing:
            found += f" ({missing[word]})"
            return ConfigError(found, next_step="pip install 'fedsite[server]'")
    return ConfigError(found, allowed=allowed, next_step=f"{path} --help")
