"""Boundary IoU against erosions of each class, made one by one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion

from snellen.metrics.boundary import boundary_counts, near_contours
from snellen.metrics.class_maps import VOID, iou, of_pixels, pixel_confusion, pixel_counts
from snellen.metrics.confusion import Counts


def regions(seed: int, size: tuple[int, int] = (60, 80), num_classes: int = 3) -> NDArray[np.uint8]:
    """A map of blocks of ten pixels, moved by a few."""
    rng = np.random.default_rng(seed)
    blocks = np.kron(rng.integers(0, num_classes, (size[0] // 10 + 1, size[1] // 10 + 1)), np.ones((10, 10)))
    down, right = rng.integers(0, 10, 2)
    return blocks.astype(np.uint8)[down : down + size[0], right : right + size[1]]


def eroded(region: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    inside: NDArray[np.bool_] = binary_erosion(region, np.ones((3, 3), np.bool_), iterations=distance, border_value=0)
    return inside


def disc(radius: float) -> NDArray[np.uint8]:
    y, x = np.mgrid[:200, :200] - 99.5
    return np.asarray(np.hypot(y, x) < radius, np.uint8)


@pytest.mark.parametrize("ratio", [0.0, 0.02, 0.05])
def test_counts_are_those_of_eroding_each_class_by_itself(ratio: float) -> None:
    truth, said = regions(0), regions(1)
    distance = max(1, round(ratio * 100))
    counts = boundary_counts(truth, said, 3, ratio=ratio)
    for index in range(3):
        true, guessed = ((each == index) & ~eroded(each == index, distance) for each in (truth, said))
        expected = (np.count_nonzero(true & guessed), np.count_nonzero(true), np.count_nonzero(guessed))
        assert tuple(column[index] for column in counts) == expected


@pytest.mark.parametrize("distance", [1, 5, 40])
def test_a_distance_that_swallows_the_image_leaves_no_inside(distance: int) -> None:
    small = np.zeros((7, 9), np.uint8)
    assert near_contours(small, distance).all() == (distance >= 4)


def test_a_boundary_that_is_everything_gives_the_plain_iou() -> None:
    truth, said = regions(0), regions(1)
    assert iou(boundary_counts(truth, said, 3, ratio=1.0)) == pytest.approx(
        iou(pixel_counts(pixel_confusion(truth, said, 3)))
    )


def test_the_contour_of_a_large_object_weighs_more_than_in_the_plain_iou() -> None:
    truth, said = disc(80), disc(76)
    assert iou(pixel_counts(pixel_confusion(truth, said, 2)))[1] > 0.9
    assert iou(boundary_counts(truth, said, 2))[1] < 0.5


def test_a_prediction_that_is_right_wherever_it_is_judged_gets_1() -> None:
    truth = regions(2)
    said = truth.copy()
    truth[20:40, 30:60] = VOID
    said[20:40, 30:60] = regions(3)[20:40, 30:60]
    assert np.nanmin(iou(boundary_counts(truth, said, 3))) == 1.0


def test_counts_add_up_over_images_of_any_size() -> None:
    each = [boundary_counts(regions(s, size), regions(s + 9, size), 3) for s, size in enumerate([(60, 80), (40, 50)])]
    total = Counts(*(np.stack(columns).sum(axis=0)[None] for columns in zip(*each, strict=True)))
    assert 0 < of_pixels(total)["mean_iou"][0] < 1


def test_maps_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="one size"):
        boundary_counts(regions(0), regions(0)[:-1], 3)
