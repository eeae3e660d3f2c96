"""Which pairs of images are worth comparing: those whose descriptors, of the whole or of a part, point the same way.

Up to 10,000 images every whole, in each of its eight orientations, meets every part of every other image (matrix
products in blocks). Above that each descriptor is filed under the nearest of a few hundred pivots and meets only those
filed with it, which finds nearly the same pairs in a fraction of the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from snellen.data.fingerprint import ORIENTATIONS, PARTS, Floats, Pixels, describe, redescribed

Indices = npt.NDArray[np.int64]

EXHAUSTIVE = 10_000  # images
PER_IMAGE = 10  # an image's best proposals that are kept, whatever the other image has
_TURNED = 0.05  # how much better than as they are two images must look turned: symmetric scenes look alike in any way
_BLOCK = 2**21  # scores held at once: 8 MB
_PROBES = 8
_KEEP = 2**20  # found pairs held before the weak ones are dropped


@dataclass(frozen=True, slots=True, eq=False)
class Proposals:
    """n pairs: the whole of ``first`` in an orientation looks like part ``PARTS[part]`` of ``second``.

    Every field has shape [n]; best first, no pair of images twice.
    """

    first: Indices
    second: Indices
    part: Indices
    orientation: Indices
    score: Floats

    def __len__(self) -> int:
        return len(self.first)


def propose(grey: Pixels, *, threshold: float = 0.78, as_they_are: bool = False) -> Proposals:
    """Pairs among small pictures, uint8 [n, 64, 64], whose descriptors have a dot product above ``threshold``.

    as_they_are  compare only wholes with wholes, and in no other orientation
    """
    whole = describe(grey, PARTS[0])
    queries = [redescribed(whole, orientation) for orientation in range(1 if as_they_are else ORIENTATIONS)]
    parts = PARTS[:1] if as_they_are else PARTS
    pivots = _pivots(whole)
    filed = [_nearest(query, pivots, _PROBES) for query in queries]
    chunks: list[Floats] = []  # rows of first, second, part, orientation, score; float32 holds integers to 16 million
    for number, part in enumerate(parts):
        base = whole if number == 0 else describe(grey, part)
        shelf = _nearest(base, pivots, 1)[:, 0]
        for orientation, (query, cells) in enumerate(zip(queries, filed, strict=True)):
            for first, second, score in _matches(query, base, cells, shelf, threshold):
                kind = np.broadcast_to(np.array([number, orientation], np.float32), (len(first), 2))
                chunks.append(np.column_stack([first, second, kind, score - _TURNED * (orientation > 0)]))
                if sum(map(len, chunks)) > _KEEP:
                    chunks = [_best(np.concatenate(chunks))]
    found = _best(np.concatenate([np.zeros((0, 5), np.float32), *chunks]))
    return Proposals(
        first=found[:, 0].astype(np.int64),
        second=found[:, 1].astype(np.int64),
        part=found[:, 2].astype(np.int64),
        orientation=found[:, 3].astype(np.int64),
        score=found[:, 4],
    )


def _best(found: Floats) -> Floats:
    """Rows sorted by falling score, each pair of images once, those among the PER_IMAGE best of either image."""
    low, high = np.minimum(found[:, 0], found[:, 1]), np.maximum(found[:, 0], found[:, 1])
    found = found[np.lexsort((high, low, -found[:, 4]))]
    ends = np.sort(found[:, :2], axis=1)
    _, firsts = np.unique(ends[:, 0].astype(np.int64) * 2**32 + ends[:, 1].astype(np.int64), return_index=True)
    firsts = np.sort(firsts)
    ranks = _rank(ends[firsts].ravel()).reshape(-1, 2)
    return np.asarray(found[firsts[ranks.min(axis=1) < PER_IMAGE]])


def _rank(keys: Floats) -> Indices:
    """How many earlier rows have the same key, [n]."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(keys) else np.zeros(0, np.int64)
    lengths = np.diff(np.r_[starts, len(keys)])
    rank = np.empty(len(keys), np.int64)
    rank[order] = np.arange(len(keys)) - np.repeat(starts, lengths)
    return rank


def _matches(
    query: Floats, base: Floats, cells: Indices, shelf: Indices, threshold: float
) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Pairs (row of query, row of base, score) above the threshold within each cell, as float32 arrays."""
    for cell in range(int(shelf.max(initial=-1)) + 1):
        columns = np.flatnonzero(shelf == cell)
        rows = np.flatnonzero((cells == cell).any(axis=1))
        if not len(columns):
            continue
        table = base[columns].T
        step = max(1, _BLOCK // len(columns))
        for start in range(0, len(rows), step):
            block = rows[start : start + step]
            scores = (query[block] @ table).ravel()
            hits = np.flatnonzero(scores > threshold)  # argwhere takes three times as long
            of_block, of_columns = np.divmod(hits, len(columns))
            first, second = block[of_block], columns[of_columns]
            apart = first != second
            yield first[apart].astype(np.float32), second[apart].astype(np.float32), scores[hits[apart]]


def _pivots(whole: Floats) -> Floats:
    """One pivot for few images; else about 4 * sqrt(n) of the descriptors themselves, evenly spaced in the listing."""
    if len(whole) <= EXHAUSTIVE:
        return whole[:1]
    count = int(4 * np.sqrt(len(whole)))
    return whole[np.linspace(0, len(whole) - 1, count).astype(np.int64)]


def _nearest(rows: Floats, pivots: Floats, count: int) -> Indices:
    """Indices of the ``count`` nearest pivots of every row, [n, count], or [n, number of pivots] if that is fewer."""
    if len(pivots) <= 1:
        return np.zeros((len(rows), 1), np.int64)
    nearest = np.empty((len(rows), min(count, len(pivots))), np.int64)
    step = max(1, _BLOCK // len(pivots))
    for start in range(0, len(rows), step):
        scores = rows[start : start + step] @ pivots.T
        nearest[start : start + step] = np.argpartition(-scores, nearest.shape[1] - 1, axis=1)[:, : nearest.shape[1]]
    return nearest
