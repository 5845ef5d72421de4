"""A seeded plant of centrifugal pumps with injected faults: the telemetry that ships inside the package.

Each machine's logger keeps one burst of 64 readings at 1 Hz every twelve hours, twelve days long. Load drives flow,
pressure and current through a pump curve; the bearing follows load and ambient through a thermal lag; vibration is the
one-second RMS of the shaft's harmonics, the bearing's band and broadband noise, beating with the neighbour on the skid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MACHINES = 96  # per site
HOLDOUT = 32  # of them, the last ones: they show every fault, whatever the site has seen before
BURSTS = 24  # per machine
READINGS = 64  # per burst, one a second
BURST_EVERY = 43_200.0  # seconds
START = 1_767_225_600.0  # 2026-01-01T00:00:00Z, seconds
THERMAL_LAG = 1_200.0  # seconds, first order
CONDITIONS = ("healthy", "bearing_wear", "imbalance", "cavitation", "clogged_strainer")
LOAD_CLASSES = ("light", "normal", "heavy")  # context of a machine, by number
# Which faults a site has met while its training machines ran: two of four, so that no site can know them all.
FAULTS_SEEN = ((1, 2), (3, 4), (1, 3), (2, 4), (1, 4), (2, 3))
CONFIRMED = 0.25  # severity from which an inspection would confirm the fault: the ground truth's threshold
RESOLUTION = {
    "vibration": 0.01,
    "acceleration": 0.01,
    "bearing_temperature": 0.1,
    "pressure": 0.01,
    "current": 0.1,
    "flow": 0.1,
}
OFFSETS = {
    "vibration": 0.1,
    "acceleration": 0.05,
    "bearing_temperature": 1.5,
    "pressure": 0.08,
    "current": 0.6,
    "flow": 1.5,
}
LIMITS = {
    "vibration": (0.0, 20.0),
    "acceleration": (0.0, 10.0),
    "bearing_temperature": (0.0, 110.0),
    "pressure": (0.0, 10.0),
    "current": (0.0, 80.0),
    "flow": (0.0, 250.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """What makes one site unlike the next."""

    load: float  # mean load, fraction of the rated flow
    swing: float  # amplitude of the daily load cycle, same unit
    ambient: float  # degC, mean
    gain: dict[str, float]  # of the site's transmitters, per channel
    offset: dict[str, float]  # in the channel's unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Assets:
    """The machines of one site. Shapes: [machine], `severity` [machine, burst]."""

    fault: NDArray[np.int64]  # index into CONDITIONS; 0: stays healthy
    severity: Array  # 0 (none) to 1 (would trip)
    size: Array  # rated load relative to the site's mean
    load_class: NDArray[np.int64]  # index into LOAD_CLASSES
    age: Array  # years in service
    vibration: Array  # mm/s, residual vibration of the machine as installed
    fit: Array  # [machine, 4] relative deviation of pressure, current, flow and bearing friction from the type's curve


def rows(site: int, rng: np.random.Generator) -> dict[str, NDArray[np.generic]]:
    """All readings of one site, ordered by machine and time.

    Returns:
        columns of MACHINES × BURSTS × READINGS rows: machine, burst, time (seconds), the channels of LIMITS,
        load_class and age (context of the machine), condition and severity (ground truth), split (train or holdout).
    """
    plant = _plant(site, rng)
    assets = _assets(site, rng)
    channels = _readings(plant, assets, rng)
    shape = (MACHINES, BURSTS, READINGS)
    machine = np.array([f"P{index + 1:03d}" for index in range(MACHINES)])
    burst = np.arange(BURSTS)
    # Loggers do not wake at the same second everywhere.
    wake = rng.integers(0, 600, (MACHINES, 1)) + np.rint(rng.normal(0, 20, (MACHINES, BURSTS)))
    time = START + burst[None, :, None] * BURST_EVERY + wake[:, :, None] + np.arange(READINGS)
    state = np.where(assets.severity >= CONFIRMED, assets.fault[:, None], 0)
    columns: dict[str, NDArray[np.generic]] = {
        "machine": _spread(machine[:, None, None], shape),
        "burst": _spread(burst[None, :, None], shape),
        "time": time.reshape(-1),
    }
    columns |= {name: _transmit(name, value, plant, rng) for name, value in channels.items()}
    columns |= {
        "load_class": _spread(assets.load_class[:, None, None], shape),
        "age": _spread(assets.age[:, None, None], shape),
        "condition": _spread(np.array(CONDITIONS)[state][:, :, None], shape),
        "severity": _spread(np.round(assets.severity, 3)[:, :, None], shape),
        "split": _spread(np.where(np.arange(MACHINES) < MACHINES - HOLDOUT, "train", "holdout")[:, None, None], shape),
    }
    return columns


def _plant(site: int, rng: np.random.Generator) -> Plant:
    # The golden ratio spreads any number of sites evenly, so that two sites already differ.
    place = (site * 0.6180339887 + rng.uniform(0, 0.15)) % 1.0
    return Plant(
        load=0.62 + 0.28 * place,
        swing=rng.uniform(0.04, 0.12),
        ambient=8.0 + 24.0 * ((place * 3) % 1.0),
        gain={name: float(np.exp(rng.normal(0, 0.06))) for name in LIMITS},
        offset={name: float(rng.normal(0, scale)) for name, scale in OFFSETS.items()},
    )


def _assets(site: int, rng: np.random.Generator) -> Assets:
    seen = np.array(FAULTS_SEEN[site % len(FAULTS_SEEN)])
    training = MACHINES - HOLDOUT
    # One training machine in five never fails; on the holdout one in eight.
    fault = np.concatenate(
        [
            np.where(np.arange(training) % 5 == 4, 0, seen[np.arange(training) % 2]),
            np.where(np.arange(HOLDOUT) % 8 == 7, 0, 1 + np.arange(HOLDOUT) % 4),
        ]
    )
    onset = rng.uniform(0.0, 0.45, MACHINES) * BURSTS
    pace = rng.uniform(0.5, 1.0, MACHINES)
    age = np.round(rng.gamma(3.0, 2.2, MACHINES), 1)
    progress = np.clip((np.arange(BURSTS) - onset[:, None]) / (BURSTS - onset[:, None]), 0, 1)
    severity = np.where(fault[:, None] > 0, progress ** pace[:, None], 0.0)
    load_class = rng.integers(0, 3, MACHINES)
    return Assets(
        fault=fault,
        severity=severity,
        size=np.array([0.82, 1.0, 1.12])[load_class],
        load_class=load_class,
        age=age,
        vibration=np.exp(rng.normal(np.log(1.3), 0.16, MACHINES)) * (1 + 0.02 * age),
        fit=rng.normal(0, 0.025, (MACHINES, 4)),
    )


def _readings(plant: Plant, assets: Assets, rng: np.random.Generator) -> dict[str, Array]:
    """What the machines do, before any transmitter: arrays [machine, burst, reading]."""
    wear, imbalance, cavitation, clogged = (
        np.where(assets.fault == kind, assets.severity.T, 0.0).T[:, :, None] for kind in range(1, 5)
    )
    pressure_fit, current_fit, flow_fit, friction_fit = (1 + assets.fit.T)[:, :, None, None]
    seconds = np.arange(READINGS)[None, None, :]
    burst = np.arange(BURSTS)[None, :, None]

    daily = plant.swing * np.sin(2 * np.pi * burst * BURST_EVERY / 86_400 + 0.8)
    slow = rng.normal(0, 0.06, (MACHINES, BURSTS, 1))
    size = assets.size[:, None, None]
    before = np.clip((plant.load + daily + rng.normal(0, 0.03, slow.shape) + slow) * size, 0.3, 1.15)
    load = np.clip(before + rng.normal(0, 0.03, slow.shape) + _wander(0.012, 0.9, rng), 0.3, 1.15)
    speed = 0.62 + 0.38 * load

    # Vapour bubbles come in bouts: a slowly wandering intensity with a heavy tail.
    bouts = cavitation * np.exp(0.5 * _wander(1.0, 0.8, rng) - 0.25)
    # A starved suction surges: debris shifts in the basket within tens of seconds.
    surge = clogged * (1 + 0.22 * _wander(1.0, 0.93, rng))
    flow = 160 * load * flow_fit * (1 - 0.42 * surge - 0.10 * bouts)
    relative = flow / (160 * speed)
    head = 6.4 * speed**2 * (1.22 - 0.30 * relative**2) * pressure_fit
    head *= 1 - 0.14 * surge - 0.06 * bouts
    head += rng.normal(0, 1, head.shape) * (0.03 + 0.22 * bouts)
    current = (14 + 40 * (head / 6.4) * (flow / 160)) * current_fit
    current += 4.0 * wear * friction_fit + rng.normal(0, 1, head.shape) * (0.4 + 1.6 * bouts + 0.5 * wear)

    ambient = plant.ambient + 4 * np.sin(2 * np.pi * burst * BURST_EVERY / 86_400 - 0.6)
    ambient = ambient + rng.normal(0, 1.2, slow.shape)
    settled = ambient + _heat(before, wear, clogged) * friction_fit
    target = ambient + _heat(load.mean(axis=2, keepdims=True), wear, clogged) * friction_fit
    bearing = target + (settled - target) * np.exp(-seconds / THERMAL_LAG) + rng.normal(0, 0.08, head.shape)

    vibration, acceleration = _vibration(assets, speed, wear, imbalance, bouts, rng)
    return {
        "vibration": vibration,
        "acceleration": acceleration,
        "bearing_temperature": bearing,
        "pressure": head,
        "current": current,
        "flow": flow + rng.normal(0, 1, head.shape) * (0.8 + 2.0 * bouts),
    }


def _heat(load: Array, wear: Array, clogged: Array) -> Array:
    """Temperature rise of the bearing over ambient at steady load, in kelvin."""
    return 14 + 20 * load**2 + 16 * wear + 4 * clogged


def _vibration(
    assets: Assets, speed: Array, wear: Array, imbalance: Array, bouts: Array, rng: np.random.Generator
) -> tuple[Array, Array]:
    """One-second RMS of casing velocity in mm/s (10 Hz to 1 kHz) and of acceleration in g (above 5 kHz).

    Velocity holds the shaft's first two harmonics; a bearing's impulses and collapsing bubbles ring mostly above them.
    """
    shape = speed.shape
    residual = assets.vibration[:, None, None]
    # The neighbour on the skid turns almost as fast: its force comes and goes at the difference of the shaft rates.
    beat = rng.uniform(0.03, 0.12, (MACHINES, BURSTS, 1))
    phase = rng.uniform(0, 2 * np.pi, (MACHINES, BURSTS, 1))
    swell = 1 + 0.18 * np.sin(2 * np.pi * beat * np.arange(READINGS) + phase)
    first = residual * speed**2 * (1 + 2.6 * imbalance) * swell
    second = 0.35 * residual * speed**2 * (1 + 0.4 * imbalance)
    impulses = rng.gamma(1.2, 1.0, shape) * (rng.uniform(0, 1, shape) < 0.25)
    bearing = 0.4 * speed * (1 + 2.0 * wear + 1.0 * wear * impulses)
    broadband = 0.25 * speed + 1.2 * bouts * rng.gamma(4.0, 0.25, shape)
    velocity = np.sqrt(first**2 + second**2 + bearing**2 + broadband**2)
    ringing = 0.5 * speed * (residual / 1.3) ** 0.5 * (1 + 3.2 * wear + 1.2 * wear * impulses)
    hiss = 1.6 * bouts * rng.gamma(4.0, 0.25, shape)
    acceleration = np.sqrt(ringing**2 + hiss**2)
    return velocity * np.exp(rng.normal(0, 0.04, shape)), acceleration * np.exp(rng.normal(0, 0.06, shape))


def _wander(deviation: float, memory: float, rng: np.random.Generator) -> Array:
    """First-order autoregressive noise along the readings, of the given stationary standard deviation."""
    steps = rng.normal(0, deviation, (MACHINES, BURSTS, READINGS))
    steps[:, :, 1:] *= np.sqrt(1 - memory**2)
    for second in range(1, READINGS):
        steps[:, :, second] += memory * steps[:, :, second - 1]
    return steps


def _transmit(name: str, value: Array, plant: Plant, rng: np.random.Generator) -> Array:
    """What the transmitter reports: gain, offset, resolution and limits of its range."""
    low, high = LIMITS[name]
    step = RESOLUTION[name]
    measured = np.clip(plant.gain[name] * value + plant.offset[name], low, high)
    return np.round(np.rint(measured / step) * step, 3).reshape(-1)


def _spread(value: NDArray[np.generic], shape: tuple[int, ...]) -> NDArray[np.generic]:
    return np.broadcast_to(value, shape).reshape(-1)
