"""Randomness that is keyed, not streamed: a number follows from (seed, epoch, sample) and from nothing else.

A run that is resumed, or that uses another number of threads, then needs no replay to draw the same numbers.
"""

from __future__ import annotations

import hashlib

import numpy as np


def keyed_seed(*key: int | str) -> int:
    """A 63-bit seed that depends on every part of ``key`` and is the same in every process and on every machine."""
    digest = hashlib.blake2b("\x1f".join(map(str, key)).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def keyed_generator(*key: int | str) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(keyed_seed(*key)))


def keyed_permutation(n: int, *key: int | str) -> np.ndarray:
    """The order 0..n-1 is visited in, int64 [n]."""
    return keyed_generator("permutation", *key).permutation(n)
