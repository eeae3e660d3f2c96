"""Objects that were seen in overlapping parts of an image, each named once.

The trap is an object that the border of a tile cuts: the box of what is left of it overlaps the box of the whole by
little, so that plain suppression keeps both. Three rules:

* Two boxes of one class, from different parts, are of one object when they agree where both parts look: when what lies
  of them in the region that the parts share overlaps by more than half. Boxes of the same part are left as they are.
* Cut boxes that agree are pieces of one object: they become the box round both. A part brings one piece at most.
* Of what still agrees the surest stays, as in greedy suppression, but a cut box counts half: it loses to one that saw
  the object whole, in a neighbour or in the whole image, unless that one was far less sure. What stays is as sure as
  the surest of those that it stands for.

A box is cut when it ends at a border of its part that is not a border of the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from snellen.core.geometry import Size
from snellen.data.tiles import Region
from snellen.metrics.overlap import box_areas
from snellen.tasks.detection.target import Boxes

_AGREE = 0.5
_CUT = 0.5  # what the score of a cut box counts
_AT_BORDER = 0.02  # of a part's side: networks miss the border that cuts an object by a few pixels

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def merged(
    parts: Sequence[Boxes], regions: Sequence[Region], size: Size, *, by: str = "iou", agnostic: bool = False
) -> Boxes:
    """What was found in each of ``regions``, in its own pixels -> what there is in the image of ``size``.

    by        'iou': boxes overlap by intersection over union; 'smaller': by intersection over the smaller of the two,
              so that a box within another is the same object
    agnostic  boxes of different classes may be of one object; it then has the class that is surest
    """
    shifts = [np.array([x0, y0, x0, y0], np.float64) for x0, y0, _, _ in regions]
    boxes = np.concatenate([each.boxes + shift for each, shift in zip(parts, shifts, strict=True)])
    labels = np.concatenate([each.labels for each in parts])
    scores = np.concatenate([_scores(each) for each in parts])
    part = np.repeat(np.arange(len(parts)), [len(each) for each in parts])
    cut = _is_cut(boxes, np.array(regions, np.float64)[part], size)
    groups = np.zeros_like(labels) if agnostic else labels
    pairs = _agreeing(boxes, groups, part, regions, by=by)
    sighting = _joined(pairs, part, scores, cut)
    kept, surest = _surest(pairs, sighting, scores * np.where(cut, _CUT, 1.0), scores)
    joined = _round(boxes, sighting)[kept]
    order = np.argsort(-scores[surest], kind="stable")
    surest = surest[order]
    return Boxes.predicted(size, joined[order].astype(np.float32), labels[surest], scores[surest])


def _scores(found: Boxes) -> NDArray[np.float32]:
    assert found.scores is not None, "only predictions are merged"
    return found.scores


def _is_cut(boxes: Floats, regions: Floats, size: Size) -> Bools:
    """boxes [n, 4] and the region [n, 4] that each was seen in -> bool [n]."""
    sides = np.tile(regions[:, 2:] - regions[:, :2], 2)
    ends = np.abs(boxes - regions) <= _AT_BORDER * sides
    inner = np.concatenate([regions[:, :2] > 0, regions[:, 2:] < size], axis=1)
    return np.asarray((ends & inner).any(axis=1))


def _agreeing(boxes: Floats, groups: Ints, part: Ints, regions: Sequence[Region], *, by: str) -> Ints:
    """Pairs [p, 2] of boxes from different parts that are of one object."""
    where = np.array(regions, np.float64)
    rows = np.split(np.arange(len(boxes)), np.searchsorted(part, np.arange(1, len(regions))))
    some = np.array([each.size > 0 for each in rows])
    found = [np.zeros((0, 2), np.int64)]
    for a in range(len(regions) - 1):
        low, high = np.maximum(where[a, :2], where[a + 1 :, :2]), np.minimum(where[a, 2:], where[a + 1 :, 2:])
        for b in np.flatnonzero((low < high).all(axis=1) & some[a] & some[a + 1 :]):
            shared = np.concatenate([low[b], high[b]])
            one, clipped_one = _within(boxes, rows[a], shared)
            other, clipped_other = _within(boxes, rows[a + 1 + b], shared)
            same = (_overlap(clipped_one, clipped_other, by) > _AGREE) & (groups[one][:, None] == groups[other])
            i, j = np.nonzero(same)
            found.append(np.stack([one[i], other[j]], axis=1))
    return np.concatenate(found)


def _within(boxes: Floats, rows: Ints, region: Floats) -> tuple[Ints, Floats]:
    """Which of ``rows`` reach into a region [4], and what lies in it of their boxes."""
    low, high = np.maximum(boxes[rows, :2], region[:2]), np.minimum(boxes[rows, 2:], region[2:])
    seen = (low < high).all(axis=1)
    return rows[seen], np.concatenate([low, high], axis=1)[seen]


def _overlap(one: Floats, other: Floats, by: str) -> Floats:
    """boxes [n, 4] and [m, 4], none of them empty -> [n, m], 0..1."""
    sides = np.minimum(one[:, None, 2:], other[:, 2:]) - np.maximum(one[:, None, :2], other[:, :2])
    shared = np.maximum(sides, 0).prod(axis=2)
    areas = box_areas(one)[:, None], box_areas(other)[None]
    return np.asarray(shared / (np.minimum(*areas) if by == "smaller" else areas[0] + areas[1] - shared))


def _joined(pairs: Ints, part: Ints, scores: NDArray[np.float32], cut: Bools) -> Ints:
    """The sighting [n] that each box belongs to: its own place, or that of the first piece of the same object.

    The surest pairs come first. A piece that is less than half as sure as another does not change its box.
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


def _surest(pairs: Ints, sighting: Ints, ranks: Floats, scores: NDArray[np.float32]) -> tuple[Ints, Ints]:
    """The sightings that stay, and for each the box with the highest score of those that it stands for."""
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


def _round(boxes: Floats, sighting: Ints) -> Floats:
    """For each sighting the box [n, 4] round its pieces."""
    around = boxes.copy()
    np.minimum.at(around[:, :2], sighting, boxes[:, :2])
    np.maximum.at(around[:, 2:], sighting, boxes[:, 2:])
    return around
