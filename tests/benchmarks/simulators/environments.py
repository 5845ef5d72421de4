"""Environments of their own for the other simulators: what they pin does not fit together, nor with this package.

python tests/benchmarks/simulators/environments.py   builds what is missing, in minutes
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3] / "runs" / "peers"
PINS = {
    "pfl": ("torch==2.13.0", "pfl==0.6.0"),
    "flower": ("torch==2.13.0", "flwr[simulation]==1.41.*"),
}


def python(name: str) -> Path:
    """The interpreter of an environment, built where it is not there yet."""
    folder = ROOT / name
    found, done = folder / "bin" / "python", folder / "done"
    if not done.exists():
        print(f"building {folder} with {' '.join(PINS[name])}", file=sys.stderr)
        venv.create(folder, with_pip=True)
        pip = [str(found), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PINS[name]], check=True)
        done.touch()
    return found


if __name__ == "__main__":
    for environment in PINS:
        print(python(environment))
