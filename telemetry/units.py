"""Units as they stand in a column's header (`oil_temp [degF]`), and the conversions that are beyond doubt."""

from __future__ import annotations

import re

_HEADER = re.compile(r"^(?P<name>.*?\S)\s*(?P<open>[\[(])(?P<unit>[^\[\]()]*)[\])]\s*$")

# unit: (quantity, factor, offset); value in the quantity's own unit = factor * value + offset
_UNITS: dict[str, tuple[str, float, float]] = {
    "degC": ("temperature", 1.0, 0.0),
    "degF": ("temperature", 5 / 9, -160 / 9),
    "K": ("temperature", 1.0, -273.15),
    "degR": ("temperature", 5 / 9, -273.15),
    "Pa": ("pressure", 1.0, 0.0),
    "hPa": ("pressure", 1e2, 0.0),
    "mbar": ("pressure", 1e2, 0.0),
    "kPa": ("pressure", 1e3, 0.0),
    "MPa": ("pressure", 1e6, 0.0),
    "bar": ("pressure", 1e5, 0.0),
    "psi": ("pressure", 6894.757293168, 0.0),
    "psia": ("pressure", 6894.757293168, 0.0),
    "mmHg": ("pressure", 133.322387415, 0.0),
    "mm/s": ("speed", 1e-3, 0.0),
    "m/s": ("speed", 1.0, 0.0),
    "km/h": ("speed", 1 / 3.6, 0.0),
    "in/s": ("speed", 0.0254, 0.0),
    "g": ("acceleration", 9.80665, 0.0),
    "m/s2": ("acceleration", 1.0, 0.0),
    "m3/h": ("flow", 1 / 3600, 0.0),
    "L/min": ("flow", 1 / 60000, 0.0),
    "L/s": ("flow", 1e-3, 0.0),
    "m3/s": ("flow", 1.0, 0.0),
    "A": ("current", 1.0, 0.0),
    "mA": ("current", 1e-3, 0.0),
    "V": ("voltage", 1.0, 0.0),
    "mV": ("voltage", 1e-3, 0.0),
    "kV": ("voltage", 1e3, 0.0),
    "W": ("power", 1.0, 0.0),
    "kW": ("power", 1e3, 0.0),
    "MW": ("power", 1e6, 0.0),
    "Hz": ("frequency", 1.0, 0.0),
    "1/min": ("frequency", 1 / 60, 0.0),
    "rpm": ("frequency", 1 / 60, 0.0),
    "1": ("share", 1.0, 0.0),
    "%": ("share", 1e-2, 0.0),
    "s": ("duration", 1.0, 0.0),
    "ms": ("duration", 1e-3, 0.0),
}
_SPELLINGS = {
    "°C": "degC",
    "C": "degC",
    "celsius": "degC",
    "°F": "degF",
    "F": "degF",
    "fahrenheit": "degF",
    "kelvin": "K",
    "m³/h": "m3/h",
    "l/min": "L/min",
    "l/s": "L/s",
    "lpm": "L/min",
    "m/s²": "m/s2",
    "m/s^2": "m/s2",
    "percent": "%",
    "-": "1",
    "": "1",
}


def split_header(text: str) -> tuple[str, str | None]:
    """Name and unit of a header: `oil_temp [degF]` is (`oil_temp`, `degF`); the unit is None where there is none.

    Square brackets always hold a unit, round ones only where it is a known one (`temperature (motor)` is a name).
    """
    match = _HEADER.match(text)
    if match is None:
        return text, None
    unit = match["unit"].strip()
    known = unit in _UNITS or unit in _SPELLINGS
    return (match["name"], unit) if match["open"] == "[" or known else (text, None)


def conversion(found: str, wanted: str) -> tuple[float, float] | None:
    """(factor, offset) such that a value in `wanted` is factor * value in `found` + offset; None: there is none."""
    found, wanted = _SPELLINGS.get(found, found), _SPELLINGS.get(wanted, wanted)
    if found == wanted:
        return 1.0, 0.0
    source, target = _UNITS.get(found), _UNITS.get(wanted)
    if source is None or target is None or source[0] != target[0]:
        return None
    return source[1] / target[1], (source[2] - target[2]) / target[1]


def convertible(wanted: str) -> list[str]:
    """Units that can be converted to `wanted`, itself first."""
    target = _UNITS.get(_SPELLINGS.get(wanted, wanted))
    others = [name for name, unit in _UNITS.items() if target is not None and unit[0] == target[0]]
    return [wanted, *(name for name in others if name != wanted)]
