"""Entry point of `fedsite`: it imports next to nothing, so that Ctrl-C while the rest is imported is just Ctrl-C."""

from __future__ import annotations

import sys

INTERRUPTED = 130  # protocol.errors.ExitCode.INTERRUPTED, which may not be imported yet


def run(arguments: list[str]) -> int:
    """Run one command line and return the exit code; prints every error itself."""
    try:
        from fedsite.client import application

        return application.run(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def main() -> None:
    """Entry point of the `fedsite` script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
