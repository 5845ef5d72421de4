"""Secure aggregation against flwr's own client functions, the machine's limit, and whole rounds at 100 and 1,000 sites.

Both sides do the same work in turns: masking a vector for so many neighbours, and the share stage of a cohort. flwr's
functions are called as its client mod calls them, without its transport.

    python tests/benchmarks/secagg.py            everything (some minutes)
    python tests/benchmarks/secagg.py --quick    one repetition, without the rounds of 1,000 sites
    python tests/benchmarks/secagg.py --json     one document on the last line
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from flwr.client.mod.secure_aggregation.secaggplus_mod import SecAggPlusState, _share_keys
from flwr.common import ConfigRecord
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import parameters_addition, parameters_mod
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import generate_key_pairs, private_key_to_bytes, public_key_to_bytes

from fedsite.protocol.errors import FedsiteError
from fedsite.protocol.keys import SigningKey
from fedsite.protocol.secagg import agreement, fixedpoint, masking, site
from fedsite.protocol.secagg.context import Attempt
from fedsite.protocol.secagg.fixedpoint import Field
from fedsite.protocol.secagg.manifest import Manifest, Terms
from fedsite.protocol.secagg.masking import Mask
from fedsite.protocol.secagg.server import Sum

RUN = "01ARYZ6S410000000000000000"
NO_MODEL = bytes(32)
MOD_RANGE = 1 << 32


@dataclass(frozen=True)
class Ratio:
    """Medians of one piece of work on both sides."""

    work: str
    ours_s: float
    flower_s: float

    @property
    def ratio(self) -> float:
        return self.flower_s / self.ours_s


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def interleaved(work: str, ours: Callable[[], object], theirs: Callable[[], object], repetitions: int) -> Ratio:
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(repetitions)]
    return Ratio(work, median(pair[0] for pair in pairs), median(pair[1] for pair in pairs))


def mask_path(words: int, neighbours: int, repetitions: int) -> Ratio:
    """Key agreement, seeds and all masks of one vector; both sides over the same number of neighbours."""
    private, mine = os.urandom(32), os.urandom(16)
    others = [(os.urandom(16), agreement.public_of(os.urandom(32))) for _ in range(neighbours)]
    secret, salt = os.urandom(32), os.urandom(32)
    vector = np.arange(words, dtype=np.uint32)

    def ours() -> None:
        key = agreement.key_of(private)
        masks = [Mask(agreement.self_seed(secret, salt, mine))]
        for other, public in others:
            masks.append(Mask(agreement.pair_seed(key, public, salt, mine, other), 1 if mine < other else -1))
        masking.apply(vector.copy(), masks, threads=os.cpu_count() or 1)

    their_private, _ = generate_key_pairs()
    theirs = [generate_key_pairs()[1] for _ in range(neighbours)]

    def flower_masks() -> None:
        total = [np.arange(words, dtype=np.int64)]
        total = parameters_addition(total, pseudo_rand_gen(secret, MOD_RANGE, [(words,)]))
        for public in theirs:
            shared = generate_shared_key(their_private, public)
            total = parameters_addition(total, pseudo_rand_gen(shared, MOD_RANGE, [(words,)]))
        parameters_mod(total, MOD_RANGE)

    return interleaved(f"mask {words:,} parameters, {neighbours} neighbours", ours, flower_masks, repetitions)


class Cohort:
    """Sites whose keys are made; the benchmark times what one of them does."""

    def __init__(self, count: int, words: int, terms: Terms) -> None:
        self.keys = {bytes.fromhex(key.public.id): key for key in (SigningKey.generate() for _ in range(count))}
        self.identities = {one: key.public for one, key in self.keys.items()}
        field = Field(name="delta", shape=(words,), bound=1.0)
        self.manifest = Manifest(purpose="train", plan_hash="ab" * 32, sites=count, fields=(field,), terms=terms)
        self.attempt = Attempt(run_id=RUN, round=1, attempt=1, manifest_hash=self.manifest.hash)
        self.sum = Sum(manifest=self.manifest, attempt=self.attempt, model_hash=NO_MODEL)
        self.states = {}
        for one, key in self.keys.items():
            self.states[one], advert = site.advertise(self.manifest, self.attempt, key)
            self.sum.add_advert(one, advert.raw, self.identities)


def share_stage(count: int, repetitions: int) -> Ratio:
    """One site's share stage: ours checks n − 1 signatures more than theirs."""
    cohort = Cohort(count, 1, Terms())
    roster = cohort.sum.close_adverts()
    one = roster.sites[0]
    threshold = cohort.manifest.terms.size(count).threshold

    def ours() -> None:
        site.share(cohort.states[one], roster, cohort.identities, NO_MODEL)

    pairs = [(generate_key_pairs(), generate_key_pairs()) for _ in range(count)]
    publics = {
        str(number): [public_key_to_bytes(mask[1]), public_key_to_bytes(share[1])]
        for number, (mask, share) in enumerate(pairs)
    }

    def flower_shares() -> None:
        state = SecAggPlusState()
        state.nid, state.threshold, state.share_num = 0, threshold, count
        state.rd_seed_share_dict, state.sk1_share_dict, state.ss2_dict = {}, {}, {}
        state.sk1, state.pk1 = private_key_to_bytes(pairs[0][0][0]), publics["0"][0]
        state.sk2, state.pk2 = private_key_to_bytes(pairs[0][1][0]), publics["0"][1]
        _share_keys(state, ConfigRecord(publics))

    return interleaved(f"share stage, {count} sites", ours, flower_shares, repetitions)


def limit(words: int, repetitions: int) -> dict[str, float]:
    """Our mask path as a fraction of AES-256-CTR and one addition over the same words, one thread each."""
    block, zeros = masking.BLOCK_BYTES, bytes(masking.BLOCK_BYTES)
    buffer = bytearray(block + 16)
    stream, total = np.frombuffer(buffer, np.uint32, count=block // 4), np.zeros(block // 4, np.uint32)
    vector = np.zeros(words, np.uint32)
    encryptor = Cipher(algorithms.AES256(os.urandom(32)), modes.CTR(bytes(16))).encryptor()

    def machine() -> None:
        for _ in range(4 * words // block):
            encryptor.update_into(zeros, buffer)
            np.add(total, stream, out=total)

    pairs = []
    for _ in range(repetitions):
        ours = seconds(lambda: masking.apply(vector, [Mask(os.urandom(32))]))
        pairs.append((ours, seconds(machine)))
    ours, theirs = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
    return {"gigabytes_per_s": 4 * words / ours / 1e9, "fraction": theirs / ours}


def whole_round(count: int, words: int, dropped: float) -> dict[str, Any]:
    """Everything of one sum but the transport: medians at a site, totals at the server, bytes by stage."""
    cohort = Cohort(count, words, Terms())
    sum_, states = cohort.sum, cohort.states
    roster = sum_.close_adverts()
    spent: dict[str, list[float]] = {"share": [], "mask": [], "unmask": []}
    server = 0.0
    sent = {"advertise": 176, "mask": 4 * words}
    for one in roster.sites:
        started = time.perf_counter()
        states[one], sealed = site.share(states[one], roster, cohort.identities, NO_MODEL)
        spent["share"].append(time.perf_counter() - started)
        server += seconds(lambda one=one, sealed=sealed: sum_.add_shares(one, sealed))
        sent["share"] = 81 * len(sealed)
    u2 = sum_.close_shares()
    left = u2[: count - round(dropped * count)]
    vector = np.arange(words, dtype=np.int64) % 1000
    for one in left:
        shares, words_of = sum_.shares_for(one), fixedpoint.to_ring(vector)
        started = time.perf_counter()
        states[one], masked = site.mask(states[one], u2, shares, words_of, threads=os.cpu_count() or 1)
        spent["mask"].append(time.perf_counter() - started)
        server += seconds(lambda one=one, masked=masked: sum_.add_vector(one, masked))
    u3 = sum_.close_vectors()
    confirmations: dict[bytes, bytes] = {}
    if sum_.stage == "confirm":
        for one in u3:
            states[one], signature = site.confirm(states[one], u3, cohort.keys[one])
            sum_.add_confirmation(one, signature, cohort.identities)
        confirmations = sum_.close_confirmations()
        sent["confirm"] = 64
    for one in u3:
        started = time.perf_counter()
        states[one], opened = site.unmask(states[one], u3, cohort.identities, confirmations)
        spent["unmask"].append(time.perf_counter() - started)
        server += seconds(lambda one=one, opened=opened: sum_.add_opened(one, opened))
        sent["unmask"] = 33 * len(opened)
    server += seconds(lambda: sum_.open(threads=os.cpu_count() or 1))
    if not np.array_equal(fixedpoint.from_ring(sum_.total), vector * len(u3)):
        raise FedsiteError("the sum is not the sum")
    return {
        "sites": count,
        "words": words,
        "dropped": dropped,
        "neighbours": cohort.manifest.terms.size(count).neighbours,
        "site_s": {stage: median(found) for stage, found in spent.items()},
        "site_total_s": sum(median(found) for found in spent.values()),
        "server_s": server,
        "bytes_up": sent,
        "upload_over_float32": sum(sent.values()) / (4 * words),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one repetition, no rounds of 1,000 sites")
    parser.add_argument("--json", action="store_true", help="one document on the last line")
    arguments = parser.parse_args()
    repetitions = 1 if arguments.quick else 5
    ratios = [
        share_stage(20, repetitions),
        share_stage(100, repetitions),
        mask_path(1_000_000, 100, repetitions),
    ]
    if not arguments.quick:
        ratios.append(mask_path(10_000_000, 50, 3))
    for ratio in ratios:
        print(f"{ratio.work:45} ours {ratio.ours_s:8.4f} s   flwr {ratio.flower_s:8.3f} s   {ratio.ratio:7.1f}x")
    share = limit(4_000_000, max(3, repetitions))
    print(f"mask stream: {share['gigabytes_per_s']:.2f} GB/s, {share['fraction']:.2f} of AES-CTR and one addition")
    rounds = []
    for count in (100,) if arguments.quick else (100, 1000):
        for dropped in (0.0, 0.1, 0.2):
            try:
                found = whole_round(count, 1_000_000 if count == 100 else 100_000, dropped)
            except FedsiteError as error:
                print(f"{count} sites, {dropped:.0%} dropped: {error}")
                continue
            rounds.append(found)
            at_site = ", ".join(f"{stage} {spent:.3f} s" for stage, spent in found["site_s"].items())
            print(
                f"{count} sites x {found['words']:,}, {dropped:.0%} dropped: site {at_site}; "
                f"server {found['server_s']:.2f} s; upload {found['upload_over_float32']:.3f} of float32"
            )
    if arguments.json:
        plain = [asdict(ratio) | {"ratio": ratio.ratio} for ratio in ratios]
        print(json.dumps({"schema": "fedsite.bench.secagg/1", "ratios": plain, "limit": share, "rounds": rounds}))


if __name__ == "__main__":
    main()
