"""Objects that several overlapping parts of an image have seen: each is named once, whatever the borders cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from snellen.core.geometry import Size
from snellen.data.tiles import Region, Tiling
from snellen.tasks.detection.target import Boxes


def seen(*found: tuple[tuple[float, ...], float], labels: Sequence[int] = (), size: Size = (100, 100)) -> Boxes:
    boxes = np.array([box for box, _ in found], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score in found], np.float32)
    return Boxes.predicted(size, boxes, np.array(labels or [0] * len(found), np.int64), scores)


LEFT, RIGHT, BOTH = (0, 0, 100, 100), (80, 0, 180, 100), (0, 0, 180, 100)


def told(*parts: Boxes, regions: Sequence[Region] = (LEFT, RIGHT), **options: Any) -> list[tuple[list[float], float]]:
    found = Boxes.merged(parts, regions, (180, 100), **options)
    assert found.size == (180, 100) and found.scores is not None
    return [(box.tolist(), round(float(score), 3)) for box, score in zip(found.boxes, found.scores, strict=True)]


def test_answers_are_moved_to_where_their_part_lies() -> None:
    assert told(seen(((10, 10, 20, 20), 0.9)), seen(((50, 5, 60, 9), 0.5))) == [
        ([10, 10, 20, 20], 0.9),
        ([130, 5, 140, 9], 0.5),
    ]
    assert told(seen(), seen()) == []


def test_of_two_sightings_of_one_object_the_surer_stays() -> None:
    assert told(seen(((84, 10, 94, 20), 0.6)), seen(((4, 11, 14, 21), 0.8))) == [([84, 11, 94, 21], 0.8)]


def test_a_cut_box_loses_to_one_that_saw_the_object_whole() -> None:
    """It is the surer of the two, and what is left of the object overlaps the whole by a quarter only."""
    cut, whole = seen(((95, 10, 100, 20), 0.9)), seen(((15, 10, 35, 20), 0.7))
    assert told(cut, whole) == [([95, 10, 115, 20], 0.9)]


def test_a_cut_box_is_not_lost_to_one_that_was_hardly_seen() -> None:
    assert told(seen(((95, 10, 100, 20), 0.9)), seen(((15, 10, 35, 20), 0.02)))[0] == ([95, 10, 100, 20], 0.9)


def test_pieces_of_an_object_that_no_part_holds_become_one_box() -> None:
    pieces = seen(((40, 10, 100, 20), 0.8)), seen(((0, 10, 60, 21), 0.7))
    assert told(*pieces) == [([40, 10, 140, 21], 0.8)]
    with_whole = told(*pieces, seen(((39, 9, 141, 22), 0.6)), regions=(LEFT, RIGHT, BOTH))
    assert with_whole == [([39, 9, 141, 22], 0.8)]


def test_objects_beside_each_other_at_a_border_stay_two() -> None:
    found = told(seen(((70, 10, 90, 20), 0.9), ((91, 10, 100, 20), 0.8)), seen(((11, 10, 30, 20), 0.9)))
    assert sorted(found) == [([70, 10, 90, 20], 0.9), ([91, 10, 110, 20], 0.9)]


def test_boxes_of_one_part_are_left_as_they_are() -> None:
    twins = seen(((10, 10, 20, 20), 0.9), ((11, 10, 21, 20), 0.8))
    assert len(told(twins, seen())) == 2


def test_classes_are_kept_apart_unless_suppression_is_agnostic() -> None:
    one, other = seen(((82, 10, 92, 20), 0.6)), seen(((2, 10, 12, 20), 0.8), labels=[1])
    assert len(told(one, other)) == 2
    (only,) = Boxes.merged([one, other], (LEFT, RIGHT), (180, 100), agnostic=True).labels
    assert only == 1


def test_a_box_within_another_is_one_object_only_by_the_smaller_area() -> None:
    small, large = seen(((86, 12, 92, 18), 0.6)), seen(((4, 10, 18, 30), 0.8))
    assert len(told(small, large)) == 2
    assert told(small, large, by="smaller") == [([84, 10, 98, 30], 0.8)]


objects = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 20), st.integers(1, 9), st.integers(1, 9), st.floats(0.3, 1)),
    max_size=12,
    unique_by=lambda each: each[:2],
)


@given(objects, st.sampled_from([40, 64, 90]), st.sampled_from([0.25, 0.5]), st.sampled_from(["iou", "smaller"]))
def test_objects_no_larger_than_the_overlap_are_each_named_once(
    cells: list[tuple[int, int, int, int, float]], tile: int, overlap: float, by: str
) -> None:
    """Whatever the tiles cut: what each shows of an object, however little, is found in it."""
    size = (310, 210)
    truth = np.array([(10 * x, 10 * y, 10 * x + w, 10 * y + h) for x, y, w, h, _ in cells], float).reshape(-1, 4)
    regions = Tiling(tile=(tile, tile), overlap=overlap).regions(size, whole=True)
    parts = []
    for x0, y0, x1, y1 in regions:
        boxes = np.clip(truth - [x0, y0, x0, y0], 0, [x1 - x0, y1 - y0] * 2)
        there = (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
        sure = [cells[i][4] for i in np.flatnonzero(there)]
        parts.append(seen(*zip(map(tuple, boxes[there]), sure, strict=True), size=(x1 - x0, y1 - y0)))
    found = Boxes.merged(parts, regions, size, by=by)
    assert sorted(map(tuple, found.boxes.tolist())) == sorted(map(tuple, truth.tolist()))
    again = Boxes.merged(parts, regions, size, by=by)
    assert np.array_equal(found.boxes, again.boxes) and np.array_equal(found.scores, again.scores)
