"""Whole sums without a transport: seconds of a site and of the server by stage, bytes by stage, and the exact sum.

Every site masks a whole vector; `SAMPLED` of them are timed, with nothing remembered from the others. The server's
clock runs over everything that its machine does.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedsite.protocol import certified
from fedsite.protocol.errors import IntegrityError
from fedsite.protocol.secagg import fixedpoint, masking, site, wire
from fedsite.protocol.secagg.masking import Mask
from fedsite.protocol.secagg.wire import OPENED_BYTES
from tests.benchmarks.sums.cohort import EXAMPLES, Clock, Cohort, update

SAMPLED = 7
NOW = datetime(2026, 1, 1, tzinfo=UTC)
THREADS = os.cpu_count() or 1
ASIDE = ("identities", "encode")


@dataclass
class Site:
    """What one site spends and moves, by stage."""

    clocks: dict[str, Clock] = field(default_factory=dict)
    up: dict[str, int] = field(default_factory=lambda: {"advertise": 176})
    down: dict[str, int] = field(default_factory=dict)  # without model and manifest

    def stage(self, name: str) -> Clock:
        """Its clock."""
        return self.clocks.setdefault(name, Clock())


def whole_round(count: int, parameters: int, dropped: float) -> dict[str, Any]:
    """One sum of which this share of sites sends keys and shares, but no vector."""
    cohort = Cohort(count, parameters)
    sum_, server, ids = cohort.sum, cohort.server, cohort.roster.sites
    sampled = {ids[place * count // SAMPLED]: Site() for place in range(SAMPLED)}
    lost = set([one for one in ids if one not in sampled][: round(dropped * count)])
    for one in ids:
        if one in sampled:
            certified._check.cache_clear()
            with sampled[one].stage("identities").running():
                for item in cohort.certified:
                    certified.verify(item, cohort.federation, NOW)
            with sampled[one].stage("share").running():
                sealed = cohort.share(one)
            sampled[one].up["share"] = len(wire.pack_items(sealed))
            sampled[one].down["share"] = len(cohort.roster.raw) + certified.SIZE * count
        else:
            with cohort.remembering():
                sealed = cohort.share(one)
        with server.running():
            sum_.add_shares(one, sealed)
    with server.running():
        u2 = sum_.close_shares()
    exact = _mask(cohort, sampled, [one for one in u2 if one not in lost], parameters)
    with server.running():
        u3 = sum_.close_vectors()
    confirmations = _confirm(cohort, sampled) if sum_.stage == "confirm" else {}
    for one in u3:
        if one in sampled:
            with sampled[one].stage("unmask").running():
                cohort.states[one], opened = site.unmask(cohort.states[one], u3, cohort.identities, confirmations)
            sampled[one].up["unmask"] = OPENED_BYTES * len(opened)
            sampled[one].down["unmask"] = (count + 7) // 8 * (2 if confirmations else 1) + 64 * len(confirmations)
        else:
            with cohort.remembering():
                cohort.states[one], opened = site.unmask(cohort.states[one], u3, cohort.identities, confirmations)
        with server.running():
            sum_.add_opened(one, opened)
    opening = Clock()
    with server.running(), opening.running():
        sum_.open(threads=THREADS)
    if not np.array_equal(sum_.total, exact):
        raise IntegrityError("the sum is not the sum")
    return _facts(cohort, list(sampled.values()), opening, parameters, dropped)


def limit(words: int, masks: int, repetitions: int) -> dict[str, float]:
    """Our masks on one thread as a fraction of AES-256-CTR (OpenSSL's, into a buffer) and one addition to each word.

    Both are in the processor's seconds, in turns, blocks of the same size, and nothing else is done in the limit.
    """
    block = masking.BLOCK_BYTES
    zeros, buffer = bytes(block), bytearray(block + 16)
    stream, total = np.frombuffer(buffer, np.uint32, count=block // 4), np.zeros(block // 4, np.uint32)
    vector = np.zeros(words, np.uint32)
    encryptor = Cipher(algorithms.AES256(os.urandom(32)), modes.CTR(bytes(16))).encryptor()
    ours, machine = [], []
    for _ in range(repetitions):
        clock = Clock()
        with clock.running():
            masking.apply(vector, [Mask(os.urandom(32)) for _ in range(masks)])
        ours.append(clock.cpu)
        clock = Clock()
        with clock.running():
            for _ in range(masks * 4 * words // block):
                encryptor.update_into(zeros, buffer)
                np.add(total, stream, out=total)
        machine.append(clock.cpu)
    size = masks * 4 * words
    return {
        "gigabytes_per_s": size / median(ours) / 1e9,
        "limit_gigabytes_per_s": size / median(machine) / 1e9,
        "fraction": median(machine) / median(ours),
    }


def _mask(cohort: Cohort, sampled: dict[bytes, Site], left: list[bytes], parameters: int) -> np.ndarray:
    """Everybody's vector under masks; the sum in the clear."""
    sum_, manifest = cohort.sum, cohort.manifest
    exact = np.zeros(manifest.words, np.uint32)
    for number, one in enumerate(left):
        weight = fixedpoint.weight_of(1 + number % EXAMPLES, EXAMPLES)
        values = {"delta/x": update(parameters, number % 10), "weight": np.ones(1)}
        sealed, seen = sum_.shares_for(one), sampled.get(one, Site())
        with seen.stage("encode").running():
            steps = fixedpoint.encode(manifest.fields, values, manifest.scales, sites=manifest.sites, weight=weight)
            vector = fixedpoint.to_ring(steps)
        np.add(exact, vector, out=exact)
        with seen.stage("mask").running():
            cohort.states[one], masked = site.mask(cohort.states[one], sum_.u2, sealed, vector, threads=THREADS)
        seen.up["mask"] = masked.nbytes
        seen.down["mask"] = (len(cohort.roster.sites) + 7) // 8 + len(wire.pack_items(sealed))
        with cohort.server.running():
            sum_.add_vector(one, masked)
    return exact


def _confirm(cohort: Cohort, sampled: dict[bytes, Site]) -> dict[bytes, bytes]:
    """Signatures over U3; the quorum."""
    sum_ = cohort.sum
    for one in sum_.u3:
        seen = sampled.get(one, Site())
        with seen.stage("confirm").running():
            cohort.states[one], signature = site.confirm(cohort.states[one], sum_.u3, cohort.keys[one])
        seen.up["confirm"], seen.down["confirm"] = len(signature), (len(cohort.roster.sites) + 7) // 8
        with cohort.server.running():
            sum_.add_confirmation(one, signature, cohort.identities)
    with cohort.server.running():
        return sum_.close_confirmations()


def _facts(cohort: Cohort, sampled: list[Site], opening: Clock, parameters: int, dropped: float) -> dict[str, Any]:
    count = len(cohort.roster.sites)
    size = cohort.manifest.terms.size(count)
    stages = [
        stage for stage in ("identities", "share", "encode", "mask", "confirm", "unmask") if stage in sampled[0].clocks
    ]
    wall = {stage: median(one.clocks[stage].wall for one in sampled) for stage in stages}
    cpu = {stage: median(one.clocks[stage].cpu for one in sampled) for stage in stages}
    up = {stage: median(one.up[stage] for one in sampled) for stage in sampled[0].up}
    return {
        "sites": count,
        "parameters": parameters,
        "dropped": dropped,
        "neighbours": size.neighbours,
        "threshold": size.threshold,
        "site_s": wall,
        "site_cpu_s": cpu,
        # A round's; `identities` is paid in the first one only, and `encode` is rounding.
        "site_crypto_s": sum(wall[stage] for stage in stages if stage not in ASIDE),
        "site_crypto_cpu_s": sum(cpu[stage] for stage in stages if stage not in ASIDE),
        "server_s": cohort.server.wall,
        "server_cpu_s": cohort.server.cpu,
        "server_open_s": opening.wall,
        "bytes_up": up,
        "bytes_down": {stage: median(one.down[stage] for one in sampled) for stage in sampled[0].down},
        "upload_over_float32": sum(up.values()) / (4 * parameters),
    }
