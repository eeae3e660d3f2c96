"""Which training images an epoch visits, and in which order: a pure function of (seed, epoch).

Labels decide how often an image is wanted. One class an image: each class as often as the largest ('oversample') or
the smallest ('undersample'). Several labels an image: repeat factors (Gupta et al. 2019, LVIS, appendix B), the square
root of how much rarer an image's rarest label is than the most frequent one (or, below 1, than the rarest one).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from snellen.core.record import Record
from snellen.core.seeds import keyed_generator, keyed_permutation

SAMPLINGS = ("as is", "oversample", "undersample")

_OFFSETS = 2**20  # places where the counting can begin: so few that rounding errors of sums never reach the next


def epoch_length(records: Sequence[Record], sampling: str) -> int:
    """How many images an epoch of ``sampling`` (one of SAMPLINGS) visits, the repeated ones counted each time."""
    return round(float(_wanted(records, sampling)[0].sum()))


def epoch_order(records: Sequence[Record], sampling: str, seed: int, epoch: int) -> NDArray[np.int64]:
    """Indices into ``records`` in the order of the visits, int64 [epoch_length].

    'as is' visits each once. 'oversample' repeats images of rare classes, each as often as the others of its class but
    for one; 'undersample' leaves out images of common classes, others in each epoch.
    """
    if sampling == "as is":
        return keyed_permutation(len(records), seed, epoch)
    wanted, kinds = _wanted(records, sampling)
    rng = keyed_generator("sampling", seed, epoch)
    shuffled = rng.permutation(len(records))
    by_kind = shuffled[np.argsort(kinds[shuffled], kind="stable")]
    visits = np.repeat(by_kind, _systematic(wanted[by_kind], (int(rng.integers(_OFFSETS)) + 0.5) / _OFFSETS))
    return visits[rng.permutation(len(visits))]


def copy_numbers(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many times the same image came before each visit of an epoch, [n]: its repeats are varied differently."""
    by_image = np.argsort(order, kind="stable")
    images = order[by_image]
    firsts = np.flatnonzero(np.diff(images, prepend=-1))
    numbers = np.empty(len(order), np.int64)
    numbers[by_image] = np.arange(len(order)) - np.repeat(firsts, np.diff(firsts, append=len(order)))
    return numbers


def label_counts(records: Sequence[Record]) -> Counter[str]:
    """How many images have each label."""
    return Counter(label for record in records for label in record.labels)


def _wanted(records: Sequence[Record], sampling: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Visits that each image should have on average, summing to a whole number, and its kind: each [n].

    Kinds are the classes where images have one each; all the same otherwise.
    """
    if sampling not in SAMPLINGS:
        raise ValueError(f"sampling must be one of {SAMPLINGS}, got {sampling!r}")
    counts = label_counts(records)
    ones, same = np.ones(len(records)), np.zeros(len(records), np.int64)
    if sampling == "as is" or not counts:
        return ones, same
    most = max(counts.values())
    aim = most if sampling == "oversample" else min(counts.values())
    if all(len(record.labels) == 1 for record in records):
        codes = {label: code for code, label in enumerate(counts)}
        wanted = np.array([aim / counts[record.labels[0]] for record in records])
        return wanted, np.array([codes[record.labels[0]] for record in records])
    # An image without any label counts as one of the most frequent label.
    rarest = np.array([min((counts[label] for label in record.labels), default=most) for record in records])
    wanted = np.sqrt(aim / rarest)
    return wanted * (round(float(wanted.sum())) / wanted.sum()), same


def _systematic(wanted: NDArray[np.float64], offset: float) -> NDArray[np.int64]:
    """Whole numbers next to ``wanted`` [n] whose sums over any stretch are within one of its sums (Madow 1949)."""
    return np.diff(np.floor(np.cumsum(wanted) + offset), prepend=0.0).astype(np.int64)
