"""Two predictions of objects: which are the same, which only shifted, and which only one of the two shows."""

from __future__ import annotations

import numpy as np
import pytest

from snellen.tasks.base import create_task
from snellen.tasks.detection.target import Boxes
from snellen.tasks.objects.counterparts import counterparts

BOX = (10.0, 10.0, 50.0, 50.0)
NUDGED = (12.0, 10.0, 52.0, 50.0)  # IoU 0.905
ELSEWHERE = (60.0, 60.0, 90.0, 90.0)


def boxes(*found: tuple[tuple[float, float, float, float], int, float]) -> Boxes:
    return Boxes.predicted(
        (100, 100),
        np.array([box for box, _, _ in found], np.float32).reshape(-1, 4),
        np.array([label for _, label, _ in found], np.int64),
        np.array([score for _, _, score in found], np.float32),
    )


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (boxes((BOX, 0, 0.9)), (1, 0, 0)),
        (boxes((BOX, 0, 0.7)), (2, 2, 2)),  # less sure of the same
        (boxes((NUDGED, 0, 0.9)), (2, 2, 2)),
        (boxes((NUDGED, 1, 0.9)), (2, 2, 0)),  # of another class
        (boxes((ELSEWHERE, 0, 0.9)), (2, 2, 0)),
        (boxes((BOX, 0, 0.9), (ELSEWHERE, 0, 0.9)), (2, 1, 0)),
        (boxes((NUDGED, 0, 0.9), (ELSEWHERE, 0, 0.9)), (3, 3, 2)),
        (boxes((BOX, 0, 0.1)), (1, 1, 0)),  # below the threshold: not shown
        (boxes(), (1, 1, 0)),
    ],
)
def test_a_decision_differs_plainly_or_is_only_shifted(other: Boxes, expected: tuple[int, int, int]) -> None:
    found = create_task("detection", ("cell", "dust")).difference(boxes((BOX, 0, 0.9)), other)
    assert (found.decisions, found.different, found.shifted) == expected


def test_of_several_that_overlap_the_nearest_is_the_counterpart() -> None:
    one, other = boxes((BOX, 0, 0.9), (NUDGED, 0, 0.8)), boxes((NUDGED, 0, 0.9), (BOX, 0, 0.8))
    pairs = {(int(i), int(j)) for i, j in counterparts(one, other, overlap=0.5, score=1.0)}
    assert pairs == {(0, 1), (1, 0)}
