"""flwr's own client functions of SecAgg+ beside a site's functions of SA-1, over the same work.

Mask path: from float32 parameters to the vector that is sent — weighting, rounding, key agreement, every mask
(`_collect_masked_vectors` with its defaults; fixedpoint.encode and site.mask). Share stage: from the cohort's keys to
encrypted shares (`_share_keys`; site.share, which checks every neighbour's signature too). No transport on either side.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from flwr.client.mod.secure_aggregation.secaggplus_mod import (
    Key,
    SecAggPlusState,
    _collect_masked_vectors,
    _share_keys,
)
from flwr.common import ConfigRecord, bytes_to_ndarray, ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.symmetric_encryption import encrypt, generate_shared_key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen, share_keys_plaintext_concat
from flwr.supercore.primitives.asymmetric import (
    bytes_to_private_key,
    bytes_to_public_key,
    generate_key_pairs,
    private_key_to_bytes,
    public_key_to_bytes,
)

from fedsite.protocol.errors import IntegrityError
from fedsite.protocol.secagg import agreement, context, fixedpoint, masking, site
from fedsite.protocol.secagg.masking import Mask
from tests.benchmarks.sums.cohort import EXAMPLES, NO_MODEL, Cohort, complete_up_to, update

RING = 1 << 32
CLIP, STEPS = 8.0, 1 << 22  # flwr's defaults
THREADS = os.cpu_count() or 1


@dataclass(frozen=True)
class Ratio:
    """Medians of one piece of work, in turns; the processor's seconds beside those of the clock."""

    work: str
    ours_s: float  # with all threads
    ours_one_thread_s: float
    flower_s: float
    ours_cpu_s: float  # of one thread
    flower_cpu_s: float

    @property
    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "work": self.work,
            "ours_s": self.ours_s,
            "ours_one_thread_s": self.ours_one_thread_s,
            "flower_s": self.flower_s,
            "ratio": self.flower_s / self.ours_s,
            "ratio_one_thread": self.flower_s / self.ours_one_thread_s,
            "ratio_cpu": self.flower_cpu_s / self.ours_cpu_s,
        }


def in_turns(work: str, ours: Callable[[int], object], flower: Callable[[], object], repetitions: int) -> Ratio:
    """Time ours with all threads, ours with one, and flwr's, one after the other, `repetitions` times."""
    actions = (lambda: ours(THREADS), lambda: ours(1), flower)
    wall: list[list[float]] = [[], [], []]
    cpu: list[list[float]] = [[], [], []]
    for _ in range(repetitions):
        for place, action in enumerate(actions):
            started, spent = time.perf_counter(), time.process_time()
            action()
            wall[place].append(time.perf_counter() - started)
            cpu[place].append(time.process_time() - spent)
    walls = [median(found) for found in wall]
    return Ratio(work, *walls, ours_cpu_s=median(cpu[1]), flower_cpu_s=median(cpu[2]))


def mask_path(parameters: int, neighbours: int, repetitions: int) -> Ratio:
    """One site's vector with so many neighbours; what both sides send is taken apart again and compared."""
    x = update(parameters, 0)
    with complete_up_to(neighbours + 1):
        cohort = Cohort(neighbours + 1, parameters)
        cohort.share_all()
        one = cohort.sum.u2[0]
        state, sealed = cohort.states[one], cohort.sum.shares_for(one)
        manifest, values = cohort.manifest, {"delta/x": x, "weight": np.ones(1, np.float32)}
        sent: list[np.ndarray] = []

        def encoded() -> np.ndarray:
            steps = fixedpoint.encode(manifest.fields, values, manifest.scales, sites=manifest.sites, weight=1.0)
            return fixedpoint.to_ring(steps)

        def ours(threads: int) -> None:
            sent[:] = [site.mask(state, cohort.sum.u2, sealed, encoded(), threads=threads)[1]]

        flower_state, ciphertexts = flower_after_shares(neighbours)
        packed = ndarrays_to_parameters([x])
        theirs: list[Mapping[str, Any]] = []

        def flower() -> None:
            theirs[:] = [_collect_masked_vectors(flower_state, ciphertexts, EXAMPLES, packed)]

        found = in_turns(f"mask path, {parameters:,} parameters, {neighbours} neighbours", ours, flower, repetitions)
        _check_ours(cohort, one, sent[0], encoded())
        _check_flower(flower_state, theirs[0], x)
    return found


def share_stage(count: int, repetitions: int) -> Ratio:
    """One site's share stage in a cohort of `count`, with the same threshold on both sides."""
    cohort = Cohort(count, 1)
    one = cohort.roster.sites[0]
    threshold = cohort.manifest.terms.size(count).threshold
    state, publics = flower_before_shares(count, threshold)
    made: list[int] = []

    def ours(_threads: int) -> None:
        made[:] = [len(site.share(cohort.states[one], cohort.roster, cohort.identities, NO_MODEL)[1])]

    def flower() -> None:
        answer = _share_keys(state, ConfigRecord(publics))
        if len(answer[Key.CIPHERTEXT_LIST]) != made[0]:  # type: ignore[arg-type]
            raise IntegrityError("the two made different numbers of shares")

    return in_turns(f"share stage, {count} sites, threshold {threshold}", ours, flower, repetitions)


def flower_before_shares(count: int, threshold: int) -> tuple[SecAggPlusState, dict[str, list[bytes]]]:
    """flwr's state of node 0 after setup, and the cohort's keys as they come to it."""
    pairs = [(generate_key_pairs(), generate_key_pairs()) for _ in range(count)]
    publics = {
        str(number): [public_key_to_bytes(mask[1]), public_key_to_bytes(share[1])]
        for number, (mask, share) in enumerate(pairs)
    }
    state = SecAggPlusState()
    state.nid, state.threshold, state.share_num = 0, threshold, count
    state.rd_seed_share_dict, state.sk1_share_dict, state.ss2_dict = {}, {}, {}
    state.sk1, state.pk1 = private_key_to_bytes(pairs[0][0][0]), publics["0"][0]
    state.sk2, state.pk2 = private_key_to_bytes(pairs[0][1][0]), publics["0"][1]
    return state, publics


def flower_after_shares(neighbours: int) -> tuple[SecAggPlusState, ConfigRecord]:
    """flwr's state of node 0 before it masks, and the shares of its neighbours as they come to it."""
    state = SecAggPlusState()
    state.nid, state.threshold, state.share_num = 0, neighbours // 2 + 1, neighbours + 1
    state.clipping_range, state.target_range, state.mod_range, state.max_weight = CLIP, STEPS, RING, float(EXAMPLES)
    state.rd_seed, state.rd_seed_share_dict, state.sk1_share_dict, state.ss2_dict = os.urandom(32), {}, {}, {}
    (private, _), (share_private, _) = generate_key_pairs(), generate_key_pairs()
    state.sk1, state.sk2 = private_key_to_bytes(private), private_key_to_bytes(share_private)
    state.public_keys_dict, ciphertexts = {}, []
    for number in range(1, neighbours + 1):
        mask, share = generate_key_pairs()[1], generate_key_pairs()[1]
        state.public_keys_dict[number] = (public_key_to_bytes(mask), public_key_to_bytes(share))
        state.ss2_dict[number] = generate_shared_key(share_private, share)
        text = share_keys_plaintext_concat(number, 0, os.urandom(68), os.urandom(260))
        ciphertexts.append(encrypt(state.ss2_dict[number], text))
    sources = list(range(1, neighbours + 1))
    return state, ConfigRecord({Key.CIPHERTEXT_LIST: ciphertexts, Key.SOURCE_LIST: sources})


def _check_ours(cohort: Cohort, one: bytes, sent: np.ndarray, plain: np.ndarray) -> None:
    """Take every mask off again with the keys of the others."""
    salt = context.salt(cohort.sum.session, cohort.sum.u2)
    masks = [Mask(agreement.self_seed(cohort.states[one].secret, salt, one), -1)]
    public = cohort.roster.of_site(one).mask_public
    for other in cohort.sum.neighbours_of(one):
        key = agreement.key_of(cohort.states[other].mask_private)
        masks.append(Mask(agreement.pair_seed(key, public, salt, other, one), -1 if one < other else 1))
    found = sent.copy()
    masking.apply(found, masks, threads=THREADS)
    if not np.array_equal(found, plain):
        raise IntegrityError("our masked vector is not the vector under its masks")


def _check_flower(state: SecAggPlusState, answer: Mapping[str, Any], x: np.ndarray) -> None:
    """Take flwr's masks off again: within one step of its grid, for it rounds at random."""
    _, masked = (bytes_to_ndarray(item) for item in answer[Key.MASKED_PARAMETERS])
    shapes = [(1,), masked.shape]
    total = masked - pseudo_rand_gen(state.rd_seed, RING, shapes)[1]
    for public, _ in state.public_keys_dict.values():
        shared = generate_shared_key(bytes_to_private_key(state.sk1), bytes_to_public_key(public))
        total += pseudo_rand_gen(shared, RING, shapes)[1]  # node 0 is the lowest: it subtracted
    expected = (np.clip(x, -CLIP, CLIP) + CLIP) * (STEPS / (2 * CLIP))
    if np.abs(total % RING - expected).max() > 2:
        raise IntegrityError("flwr's masked vector is not the vector under its masks")
