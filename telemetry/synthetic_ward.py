"""Seeded bedside vitals of hospital wards, with deteriorations whose hour is known: a task with patients as entities.

A monitor stores one set of vital signs every five minutes. Some patients deteriorate: for hours before the event their
vital signs drift, each kind of deterioration in its own way, on top of circadian rhythm, activity and episodes (pain,
fever) that look alike and pass. Wards differ in case mix, in their patients' baselines and in their monitors' bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PATIENTS = 150  # per ward
HOLDOUT = 50  # of them, the last ones: admitted later, when every kind of deterioration comes to every ward
STEP = 300.0  # seconds from one reading to the next
LONGEST, SHORTEST = 360, 168  # readings of a stay: 30 and 14 hours
HORIZON = 72  # readings: six hours
START = 1_767_225_600.0  # 2026-01-01T00:00:00Z, seconds
KINDS = ("none", "sepsis", "respiratory_failure", "haemorrhage")
RESOLUTION = {"heart_rate": 1.0, "spo2": 1.0, "respiratory_rate": 1.0, "systolic_pressure": 1.0, "temperature": 0.1}
LIMITS = {
    "heart_rate": (20.0, 250.0),
    "spo2": (50.0, 100.0),
    "respiratory_rate": (4.0, 60.0),
    "systolic_pressure": (40.0, 260.0),
    "temperature": (32.0, 42.0),
}
BIASES = {"heart_rate": 2.0, "spo2": 0.7, "respiratory_rate": 1.2, "systolic_pressure": 5.0, "temperature": 0.15}
# What full deterioration does to each vital sign, in its unit.
DRIFT = {
    "heart_rate": (0.0, 26.0, 8.0, 32.0),
    "spo2": (0.0, -1.0, -8.5, 0.0),
    "respiratory_rate": (0.0, 4.0, 11.0, 2.0),
    "systolic_pressure": (0.0, -16.0, 8.0, -38.0),
    "temperature": (0.0, 2.0, 0.0, -0.6),
}
# Chance that a deterioration in the ward's training data is of each kind (sepsis, respiratory, haemorrhage).
CASE_MIX = ((0.96, 0.02, 0.02), (0.02, 0.96, 0.02), (0.02, 0.02, 0.96))
DETERIORATING = 0.45  # of the patients: monitors are kept for those at risk


@dataclass(frozen=True, slots=True, kw_only=True)
class Patients:
    """The patients of one ward. Shapes: [patient]."""

    kind: NDArray[np.int64]  # index into KINDS
    stay: NDArray[np.int64]  # readings until the event or the discharge
    lead: Array  # readings from the first change to the event
    strength: Array  # of the drift at the event; 1 is DRIFT
    lungs: NDArray[np.bool_]  # chronic lung disease: lives with a low saturation
    admitted: Array  # seconds since 1970


def rows(site: int, rng: np.random.Generator) -> dict[str, NDArray[np.generic]]:
    """All readings of one ward, ordered by patient and time; readings while the monitor was off are not there.

    Returns:
        columns: patient, time (seconds), the channels of LIMITS (NaN where a probe was off), event (1 at a
        deterioration), deteriorates (ground truth: 1 where one comes within HORIZON readings), split (train, holdout).
    """
    bias = {name: float(rng.normal(0, scale)) for name, scale in BIASES.items()}
    chronic = 0.06 + 0.34 * ((site * 0.6180339887 + 0.3) % 1.0)
    patients = _patients(site, chronic, rng)
    vitals = _vitals(patients, rng)
    place = np.arange(LONGEST)[None, :]
    present = (place < patients.stay[:, None]) & ~_monitor_off(patients, rng)
    happens = (patients.kind > 0)[:, None]
    event = happens & (place == patients.stay[:, None] - 1)
    ahead = happens & (place >= patients.stay[:, None] - 1 - HORIZON)
    number = np.broadcast_to(np.arange(PATIENTS)[:, None], present.shape)[present]
    columns: dict[str, NDArray[np.generic]] = {
        "patient": np.array([f"W{site:02d}-{index + 1:03d}" for index in range(PATIENTS)])[number],
        "time": (patients.admitted[:, None] + place * STEP)[present],
    }
    columns |= {name: _measured(name, value, bias[name], rng)[present] for name, value in vitals.items()}
    columns |= {
        "event": event[present].astype(np.int64),
        "deteriorates": ahead[present].astype(np.int64),
        "split": np.where(np.arange(PATIENTS) < PATIENTS - HOLDOUT, "train", "holdout")[number],
    }
    return columns


def _patients(site: int, chronic: float, rng: np.random.Generator) -> Patients:
    later = np.arange(PATIENTS) >= PATIENTS - HOLDOUT
    usual = 1 + rng.choice(3, PATIENTS, p=CASE_MIX[site % len(CASE_MIX)])
    # A fixed share, so that no ward's holdout is without a case of each kind.
    at_risk = np.arange(PATIENTS) % 20 < round(20 * DETERIORATING)
    kind = np.where(at_risk, np.where(later, 1 + np.arange(PATIENTS) % 3, usual), 0)
    return Patients(
        kind=kind,
        stay=rng.integers(SHORTEST, LONGEST + 1, PATIENTS),
        lead=rng.uniform(60, 150, PATIENTS),
        strength=np.exp(rng.normal(-0.1, 0.35, PATIENTS)),
        lungs=rng.uniform(0, 1, PATIENTS) < chronic,
        admitted=START + np.rint(rng.uniform(0, 86_400, PATIENTS) / STEP) * STEP + 86_400.0 * np.arange(PATIENTS),
    )


def _vitals(patients: Patients, rng: np.random.Generator) -> dict[str, Array]:
    """What the patients' bodies do, before any monitor: arrays [patient, reading]."""

    def person(mean: float, deviation: float) -> Array:
        return rng.normal(mean, deviation, (PATIENTS, 1))

    place = np.arange(LONGEST)[None, :]
    hour = (patients.admitted[:, None] / 3600 + place * STEP / 3600) % 24
    day = np.sin(2 * np.pi * (hour - 9) / 24)
    onset = (patients.stay - 1 - patients.lead)[:, None]
    progress = np.clip((place - onset) / patients.lead[:, None], 0, 1)
    drift = patients.strength[:, None] * progress ** person(1.5, 0.25).clip(0.8)
    pain, fever = _episodes(rng, 0.9, 10, 40), _episodes(rng, 0.35, 60, 160)
    active = _episodes(rng, 5.0, 2, 7)
    lungs = patients.lungs[:, None]
    breathing = person(16, 1.8) + 3 * lungs
    healthy = {
        "heart_rate": person(80, 9) + 4 * day + 14 * pain + 9 * fever + 13 * active + _wander(3.5, 0.9, rng),
        "spo2": person(96.6, 0.9) - lungs * person(4.5, 1.0) - 0.8 * active + _wander(0.6, 0.85, rng),
        "respiratory_rate": breathing + 2.5 * pain + 1.5 * fever + 3 * active + _wander(1.4, 0.85, rng),
        "systolic_pressure": person(126, 13) + 4 * day + 15 * pain + 6 * active + _wander(5.5, 0.9, rng),
        "temperature": person(36.8, 0.25) + 0.2 * day + 1.1 * fever + _wander(0.1, 0.97, rng),
    }
    return {name: value + np.array(DRIFT[name])[patients.kind][:, None] * drift for name, value in healthy.items()}


def _episodes(rng: np.random.Generator, mean: float, shortest: int, longest: int) -> Array:
    """Episodes of intensity around 1, `mean` of them a stay, that come, last and pass: [patient, reading]."""
    found = np.zeros((PATIENTS, LONGEST))
    place = np.arange(LONGEST)
    for patient, count in enumerate(rng.poisson(mean, PATIENTS)):
        starts = rng.uniform(0, LONGEST, count)
        lengths = rng.uniform(shortest, longest, count)
        heights = rng.uniform(0.5, 1.3, count)
        for start, length, height in zip(starts, lengths, heights, strict=True):
            found[patient] += height * np.exp(-0.5 * ((place - start) / (length / 2.5)) ** 2)
    return found


def _wander(deviation: float, memory: float, rng: np.random.Generator) -> Array:
    """First-order autoregressive noise along the readings, of the given stationary standard deviation."""
    steps = rng.normal(0, deviation, (PATIENTS, LONGEST))
    steps[:, 1:] *= np.sqrt(1 - memory**2)
    for reading in range(1, LONGEST):
        steps[:, reading] += memory * steps[:, reading - 1]
    return steps


def _monitor_off(patients: Patients, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Transports, baths, battery changes: some minutes to an hour, and now and then two hours of surgery."""
    off = np.zeros((PATIENTS, LONGEST), dtype=bool)
    for patient, count in enumerate(rng.poisson(2.5, PATIENTS)):
        for start in rng.integers(0, LONGEST, count):
            length = 24 if rng.uniform() < 0.06 else int(rng.integers(1, 11))
            off[patient, start : start + length] = True
    # The event itself is seen: that is how it is known.
    off[np.arange(PATIENTS), patients.stay - 1] = False
    return off


def _measured(name: str, value: Array, bias: float, rng: np.random.Generator) -> Array:
    """What the monitor stores: bias, noise, resolution and limits; NaN while a probe is off."""
    low, high = LIMITS[name]
    step = RESOLUTION[name]
    noisy = value + bias + rng.normal(0, 0.5 * step, value.shape)
    found = np.round(np.rint(np.clip(noisy, low, high) / step) * step, 3)
    loose = rng.uniform(0, 1, value.shape) < (0.008 if name in ("spo2", "respiratory_rate") else 0.002)
    loose |= np.roll(loose, 1, axis=1)
    return np.where(loose, np.nan, found)
