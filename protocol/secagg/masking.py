"""Mask streams: AES-256 in counter mode, added to or subtracted from a vector of Z_2^32 in place.

Block j of a seed's stream is 128 KiB of AES-256-CTR from counter block be96(j) ‖ be32(2): what AES-256-GCM encrypts
zeros to under nonce be96(j). The one-shot interface into a buffer that is used again is the fastest there is in
Python, and releases the interpreter lock. ChaCha20 is the option for processors without AES instructions.

Source: NIST SP 800-38A (CTR), SP 800-38D (GCM); RFC 8439 (ChaCha20).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Literal

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from numpy.typing import NDArray

Stream = Literal["aes256ctr", "chacha20"]
Ring = NDArray[np.uint32]

BLOCK_BYTES: Final = 1 << 17
BLOCK: Final = BLOCK_BYTES // 4  # words
SEED_BYTES: Final = 32

_TAG = 16
_ZEROS = memoryview(bytes(BLOCK_BYTES))
_Cipher = AESGCM | ChaCha20Poly1305
_CIPHERS: Final[dict[str, type[_Cipher]]] = {"aes256ctr": AESGCM, "chacha20": ChaCha20Poly1305}


@dataclass(frozen=True, slots=True)
class Mask:
    """One stream and the sign it enters the vector with."""

    seed: bytes = field(repr=False)  # 32 bytes, used for one vector and never again
    sign: Literal[1, -1] = 1


def apply(
    values: Ring, masks: Sequence[Mask], *, stream: Stream = "aes256ctr", first_block: int = 0, threads: int = 1
) -> None:
    """Add every mask to `values`, in place.

    Args:
        values: [word] uint32, contiguous; the words of the whole vector from `first_block` * BLOCK on.
        masks: any number; each is read from the same position of its stream.
        stream: the cipher.
        first_block: lets a vector be masked in pieces of whole blocks, in any order.
        threads: the blocks are cut into as many runs.

    Raises:
        ValueError: not a contiguous vector of uint32.
    """
    if values.dtype != np.uint32 or values.ndim != 1 or not values.flags.c_contiguous:
        raise ValueError("masks go over a contiguous vector of uint32")
    count = -(-len(values) // BLOCK)
    if min(threads, count) <= 1:
        _apply(values, _ciphers(masks, stream), range(count), first_block)
        return
    with applying(values, stream=stream, first_block=first_block, threads=threads) as add:
        add(masks)


@contextmanager
def applying(
    values: Ring, *, stream: Stream = "aes256ctr", first_block: int = 0, threads: int = 1
) -> Iterator[Callable[[Sequence[Mask]], None]]:
    """Hands out what adds masks to `values` in the background, so that more seeds are made meanwhile.

    Arguments as for `apply`. All masks are on when the context ends.
    """
    count = -(-len(values) // BLOCK)
    threads = max(1, min(threads, count))
    cuts = [count * number // threads for number in range(threads + 1)]
    pools = [ThreadPoolExecutor(1) for _ in range(threads)]  # one for each run of blocks: nothing is written twice
    runs: list[Future[None]] = []

    def add(masks: Sequence[Mask]) -> None:
        ciphers = _ciphers(masks, stream)
        for pool, (a, b) in zip(pools, pairwise(cuts), strict=True):
            runs.append(pool.submit(_apply, values, ciphers, range(a, b), first_block))

    try:
        yield add
        for run in runs:
            run.result()
    finally:
        for pool in pools:
            pool.shutdown()


def _ciphers(masks: Sequence[Mask], stream: Stream) -> list[tuple[_Cipher, int]]:
    return [(_CIPHERS[stream](mask.seed), mask.sign) for mask in masks]


def _apply(values: Ring, ciphers: Sequence[tuple[_Cipher, int]], blocks: range, first_block: int) -> None:
    buffer = bytearray(BLOCK_BYTES + _TAG)
    stream = np.frombuffer(buffer, "<u4", count=BLOCK)
    for block in blocks:
        piece = values[block * BLOCK : (block + 1) * BLOCK]
        size = 4 * len(piece)
        zeros, target, key = _ZEROS[:size], memoryview(buffer)[: size + _TAG], stream[: len(piece)]
        nonce = (first_block + block).to_bytes(12, "big")
        for cipher, sign in ciphers:
            cipher.encrypt_into(nonce, zeros, None, target)
            if sign > 0:
                np.add(piece, key, out=piece)
            else:
                np.subtract(piece, key, out=piece)
