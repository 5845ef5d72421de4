"""What this host says of itself: power, temperature, network, memory, load; None where it does not say.

Only what the settings ask about is read. psutil comes with training (`fedsite[site]`); without it they are unknown.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from fedsite.client.consent.conditions import Facts
from fedsite.client.settings import Settings

# Sensors of processors, as Linux drivers name them; others sit on disks, batteries and network cards.
_SENSORS: Final = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "cpu-thermal", "soc_thermal", "cpu", "acpitz")
_MOBILE: Final = ("wwan", "ppp", "rmnet")  # interfaces of mobile networks
_ASK: Final = (
    "busctl", "--system", "get-property", "org.freedesktop.NetworkManager", "/org/freedesktop/NetworkManager",
    "org.freedesktop.NetworkManager", "Metered",
)  # fmt: skip
_METERED: Final = {"1": True, "3": True, "2": False, "4": False}  # NMMetered: yes, guess-yes, no, guess-no
_ROUTES: Final = Path("/proc/net/route")
ASK_S: Final = 2.0  # seconds to wait for the network manager


def read(settings: Settings) -> Facts:
    """The facts that the policy asks about, and the time."""
    rules = settings.policy
    return Facts(
        local_time=local_time(),
        on_mains=on_mains() if rules.mains_only else None,
        cpu_celsius=cpu_celsius() if rules.max_celsius is not None else None,
        metered=metered(settings.agent.metered) if rules.no_metered else None,
        memory_available=memory_available() if rules.memory_free is not None else None,
        load=load() if rules.load_max is not None else None,
    )


def local_time() -> datetime:
    """Now, in this host's time zone as it is set now: the zone is read anew, also in an agent that runs for months."""
    time.tzset()
    return datetime.now().astimezone()


def at_this_place(wall: datetime) -> datetime:
    """The moment at which this host's clocks show what `wall` shows, by the offset of that day and not of today."""
    return wall.replace(tzinfo=None).astimezone()


def on_mains() -> bool | None:
    """Whether a host with a battery is plugged in; None without a battery, and where nobody knows."""
    found = _psutil("sensors_battery")
    return None if found is None else found.power_plugged


def cpu_celsius() -> float | None:
    """The hottest of the processor's sensors."""
    found = _psutil("sensors_temperatures") or {}
    values = [one.current for name in _SENSORS for one in found.get(name, ()) if one.current is not None]
    return max(values, default=None)


def memory_available() -> int | None:
    """Bytes that can be had without swapping."""
    found = _psutil("virtual_memory")
    return None if found is None else int(found.available)


def load() -> float | None:
    """Processes that want to run, per processor, over the last minute; the agent's own are among them."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except OSError:
        return None


def metered(said: bool | str = "auto") -> bool | None:
    """Whether the way out is metered: what the operator said, else the network manager, else a mobile interface."""
    if isinstance(said, bool):
        return said
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(_ASK, capture_output=True, text=True, timeout=ASK_S, check=False)
        known = _METERED.get(done.stdout.strip().removeprefix("u "))
        if known is not None:
            return known
    return True if _default_interface().startswith(_MOBILE) else None


def _default_interface() -> str:
    """The interface of the default route; empty where there is none to read."""
    with contextlib.suppress(OSError):
        for line in _ROUTES.read_text(encoding="ascii", errors="replace").splitlines()[1:]:
            words = line.split()
            if len(words) > 1 and words[1] == "00000000":
                return words[0]
    return ""


def _psutil(name: str) -> Any:
    """One of psutil's answers; None without psutil, or where this system has no such thing."""
    try:
        return getattr(importlib.import_module("psutil"), name)()
    except Exception:  # it reads what drivers say as numbers, and they say all kinds of things
        return None
