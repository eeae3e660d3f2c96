"""Objects that were seen in overlapping parts of an image, each named once.

The trap is an object that the border of a tile cuts: what is left of it overlaps the whole by little, so that plain
suppression keeps both. Three rules:

* Two sightings of one class, from different parts, are of one object when they agree where both parts look: when what
  lies of them in the region that the parts share overlaps by more than half. Those of the same part are left as they
  are.
* Cut sightings that agree are pieces of one object and become one. A part brings one piece at most.
* Of what still agrees the surest stays, as in greedy suppression, but what is cut counts half: it loses to one that saw
  the object whole, in a neighbour or in the whole image, unless that one was far less sure. What stays is as sure as
  the surest of those that it stands for.

A sighting is cut when its box ends at a border of its part that is not a border of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from snellen.core.geometry import Size
from snellen.data.tiles import Region
from snellen.tasks.objects.target import ObjectSet

_AGREE = 0.5
_CUT = 0.5  # what the score of a cut sighting counts
_AT_BORDER = 0.02  # of a part's side: networks miss the border that cuts an object by a few pixels

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Scores = NDArray[np.float32]

InCommon = Callable[[Ints, Ints, Region], tuple[Floats, Floats, Floats]]
"""Pairs of sightings, rows i [p] and j [p], and a region -> how much of each lies in it, and how much is of both: [p]
each, in square pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """All that was seen in ``regions`` of an image, one after the other.

    boxes   float64 [n, 4], in the pixels of the image
    labels  int64 [n]
    scores  float32 [n]
    part    int64 [n], which of the regions each was seen in
    """

    regions: Sequence[Region]
    boxes: Floats
    labels: Ints
    scores: Scores
    part: Ints

    @classmethod
    def of(cls, parts: Sequence[ObjectSet], regions: Sequence[Region]) -> Self:
        """Of predictions for each of the regions, in its own pixels."""
        shifts = [np.array([x0, y0, x0, y0], np.float64) for x0, y0, _, _ in regions]
        return cls(
            regions,
            np.concatenate([each.boxes + shift for each, shift in zip(parts, shifts, strict=True)]),
            np.concatenate([each.labels for each in parts]),
            np.concatenate([_scores(each) for each in parts]),
            np.repeat(np.arange(len(parts)), [len(each) for each in parts]),
        )

    def cut(self, size: Size) -> Bools:
        """Whether the border of its part cuts each, [n], in an image of ``size``."""
        where = np.array(self.regions, np.float64)[self.part]
        sides = np.tile(where[:, 2:] - where[:, :2], 2)
        ends = np.abs(self.boxes - where) <= _AT_BORDER * sides
        inner = np.concatenate([where[:, :2] > 0, where[:, 2:] < size], axis=1)
        return np.asarray((ends & inner).any(axis=1))


class Found(NamedTuple):
    """The objects that there are, the surest first.

    pieces  for each the rows of what it is made of: one, unless it was cut
    surest  for each the row with the highest score of those that it stands for, which has its class and score
    """

    pieces: list[Ints]
    surest: Ints

    def boxes(self, seen: Seen) -> NDArray[np.float32]:
        """Round the pieces of each, [k, 4]."""
        if not self.pieces:
            return np.zeros((0, 4), np.float32)
        boxes = seen.boxes[np.concatenate(self.pieces)]
        starts = np.cumsum([0, *map(len, self.pieces[:-1])])
        ends = np.minimum.reduceat(boxes[:, :2], starts), np.maximum.reduceat(boxes[:, 2:], starts)
        return np.concatenate(ends, axis=1).astype(np.float32)


def found_once(seen: Seen, size: Size, in_common: InCommon, *, by: str = "iou", agnostic: bool = False) -> Found:
    """What was seen in parts of an image of ``size`` -> what there is in it.

    by        'iou': sightings overlap by intersection over union; 'smaller': by intersection over the smaller of the
              two, so that one within another is the same object
    agnostic  sightings of different classes may be of one object; it then has the class that is surest
    """
    cut = seen.cut(size)
    groups = np.zeros_like(seen.labels) if agnostic else seen.labels
    pairs = _agreeing(seen, groups, in_common, by=by)
    sighting = _joined(pairs, seen.part, seen.scores, cut)
    kept, surest = _surest(pairs, sighting, np.where(cut, _CUT * seen.scores, seen.scores), seen.scores)
    order = np.argsort(-seen.scores[surest], kind="stable")
    return Found(_pieces(sighting, kept[order]), surest[order])


def _scores(found: ObjectSet) -> Scores:
    assert found.scores is not None, "only predictions are merged"
    return found.scores


def _agreeing(seen: Seen, groups: Ints, in_common: InCommon, *, by: str) -> Ints:
    """Pairs [p, 2] of sightings from different parts that are of one object."""
    where = np.array(seen.regions)
    rows = np.split(np.arange(len(seen.part)), np.searchsorted(seen.part, np.arange(1, len(where))))
    some = np.array([each.size > 0 for each in rows])
    found = [np.zeros((0, 2), np.int64)]
    for a in range(len(where) - 1):
        low, high = np.maximum(where[a, :2], where[a + 1 :, :2]), np.minimum(where[a, 2:], where[a + 1 :, 2:])
        for b in np.flatnonzero((low < high).all(axis=1) & some[a] & some[a + 1 :]):
            (x0, y0), (x1, y1) = low[b].tolist(), high[b].tolist()
            one, other = _touching(seen.boxes, rows[a], rows[a + 1 + b], (x0, y0, x1, y1))
            alike = groups[one] == groups[other]
            one, other = one[alike], other[alike]
            same = _overlap(*in_common(one, other, (x0, y0, x1, y1)), by) > _AGREE
            found.append(np.stack([one[same], other[same]], axis=1))
    return np.concatenate(found)


def _touching(boxes: Floats, one: Ints, other: Ints, region: Region) -> tuple[Ints, Ints]:
    """Which of the rows ``one`` and ``other`` have boxes that overlap within a region, pair by pair."""
    low = np.maximum(np.maximum(boxes[one, None, :2], boxes[None, other, :2]), region[:2])
    high = np.minimum(np.minimum(boxes[one, None, 2:], boxes[None, other, 2:]), region[2:])
    i, j = np.nonzero((low < high).all(axis=2))
    return one[i], other[j]


def _overlap(one: Floats, other: Floats, both: Floats, by: str) -> Floats:
    """Areas [p] -> [p], 0..1; 0 where both are empty."""
    whole = np.minimum(one, other) if by == "smaller" else one + other - both
    return np.divide(both, whole, out=np.zeros_like(both), where=whole > 0)


def _joined(pairs: Ints, part: Ints, scores: Scores, cut: Bools) -> Ints:
    """The object [n] that each sighting belongs to: its own row, or that of the first piece of the same object.

    The surest pairs come first. A piece that is less than half as sure as another adds nothing to it.
    """
    sighting = np.arange(len(part))
    members: dict[int, list[int]] = {}
    both = pairs[cut[pairs].all(axis=1)]
    low, high = np.sort(scores[both], axis=1).T
    alike = low >= _CUT * high
    for i, j in both[alike][np.argsort(-low[alike], kind="stable")]:
        one, other = sorted((int(sighting[i]), int(sighting[j])))
        mine, theirs = members.get(one, [one]), members.get(other, [other])
        if one != other and not set(part[mine]) & set(part[theirs]):
            members[one] = mine + theirs
            sighting[theirs] = one
    return sighting


def _surest(pairs: Ints, sighting: Ints, ranks: Scores, scores: Scores) -> tuple[Ints, Ints]:
    """The objects that stay, and for each the row with the highest score of those that it stands for."""
    n = len(sighting)
    best, rank = np.arange(n), np.zeros(n)
    for i in np.argsort(-scores, kind="stable")[::-1]:
        best[sighting[i]] = i
    np.maximum.at(rank, sighting, ranks)
    between = sighting[pairs]
    between = np.unique(np.concatenate([between, between[:, ::-1]]), axis=0)
    between = between[between[:, 0] != between[:, 1]]
    neighbours = np.split(between[:, 1], np.searchsorted(between[:, 0], np.arange(1, n)))
    order = np.argsort(-rank, kind="stable")
    kept, taken = [], np.zeros(n, np.bool_)
    for one in order[sighting[order] == order]:
        if taken[one]:
            continue
        kept.append(one)
        for other in neighbours[one][~taken[neighbours[one]]]:
            taken[other] = True
            if scores[best[other]] > scores[best[one]]:
                best[one] = best[other]
    return np.array(kept, np.int64), best[np.array(kept, np.int64)]


def _pieces(sighting: Ints, kept: Ints) -> list[Ints]:
    """For each of ``kept`` the rows that belong to it."""
    rows = np.argsort(sighting, kind="stable")
    starts, ends = (np.searchsorted(sighting[rows], kept, side=side) for side in ("left", "right"))
    return [rows[start:end] for start, end in zip(starts, ends, strict=True)]
