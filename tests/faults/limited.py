"""`fedsite` on a disk that is full or read-only: `python tests/faults/limited.py full BYTES|readonly - fedsite words…`.

Full: no file may grow beyond so many bytes. Read-only: permissions hold for root too, who would otherwise write anyway.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys

_PR_CAPBSET_DROP = 24
_CAP_DAC_OVERRIDE = 1


def main(kind: str, bound: str, *command: str) -> None:
    """Limit this process, and become the command."""
    if kind == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(bound), int(bound)))
    elif os.geteuid() == 0 and ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, _CAP_DAC_OVERRIDE, 0, 0, 0) != 0:
        raise SystemExit("this root cannot be kept from writing")
    os.execv(sys.executable, [sys.executable, "-m", "fedsite.client.cli", *command])  # noqa: S606


if __name__ == "__main__":
    main(*sys.argv[1:])
