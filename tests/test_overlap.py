"""IoU of boxes and masks against pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from found_objects import runs
from snellen.core.annotation import Rle
from snellen.metrics.overlap import box_areas, box_iou, mask_areas, mask_iou

SIZE = (30, 40)


def boxes(seed: int, n: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 30, (n, 2))
    return np.concatenate([corner, corner + rng.uniform(1, 30, (n, 2))], axis=1)


def blobs(seed: int, n: int) -> NDArray[np.bool_]:
    """Rectangles with holes; the first is empty, the second the whole image."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((n, *SIZE), np.bool_)
    for mask in masks:
        y0, x0 = rng.integers(0, 20, 2)
        mask[y0 : y0 + rng.integers(1, 20), x0 : x0 + rng.integers(1, 25)] = True
        mask &= rng.random(SIZE) < 0.8
    masks[0], masks[1] = False, True
    return masks


@pytest.mark.parametrize("seed", range(3))
def test_the_iou_of_boxes_is_that_of_pycocotools(seed: int) -> None:
    from pycocotools import mask as reference

    found, true = boxes(seed, 7), boxes(seed + 10, 5)
    crowd = np.array([False, True, False, True, False])
    sides = [np.concatenate([each[:, :2], each[:, 2:] - each[:, :2]], axis=1) for each in (found, true)]
    assert box_iou(found, true, crowd) == pytest.approx(reference.iou(*sides, crowd.astype(np.uint8)))


@pytest.mark.parametrize("seed", range(3))
def test_the_iou_of_masks_is_that_of_pycocotools(seed: int) -> None:
    from pycocotools import mask as reference

    found, true = blobs(seed, 6), blobs(seed + 10, 5)
    crowd = np.array([False, False, False, True, False])
    packed = [reference.encode(np.asfortranarray(each.transpose(1, 2, 0).astype(np.uint8))) for each in (found, true)]
    expected = np.nan_to_num(reference.iou(*packed, crowd.astype(np.uint8)))
    assert mask_iou([*map(runs, found)], [*map(runs, true)], crowd) == pytest.approx(expected)
    assert mask_areas([*map(runs, found)]).tolist() == found.sum(axis=(1, 2)).tolist()


@given(st.lists(st.tuples(*[st.integers(0, 8)] * 2, *[st.integers(1, 4)] * 2), min_size=1))
def test_boxes_on_whole_pixels_overlap_as_their_masks_do(placed: list[tuple[int, int, int, int]]) -> None:
    masks = []
    for x, y, width, height in placed:
        pixels = np.zeros((12, 12), np.bool_)
        pixels[y : y + height, x : x + width] = True
        masks.append(runs(pixels))
    found = np.array([(x, y, x + width, y + height) for x, y, width, height in placed])
    assert box_iou(found, found) == pytest.approx(mask_iou(masks, masks))
    assert box_areas(found).tolist() == mask_areas(masks).tolist()


def test_nothing_found_or_nothing_there_gives_an_empty_table() -> None:
    none, one = np.zeros((0, 4)), boxes(0, 1)
    mask = runs(blobs(0, 2)[1])
    assert box_iou(none, one).shape == mask_iou([], [mask]).shape == (0, 1)
    assert box_iou(one, none).shape == mask_iou([mask], []).shape == (1, 0)


def test_empty_and_inside_out_boxes_overlap_nothing() -> None:
    odd = np.array([[5.0, 5, 5, 5], [9.0, 9, 2, 2]])
    assert not box_iou(odd, np.concatenate([odd, [[0, 0, 20, 20]]])).any()


def test_masks_of_two_images_are_refused() -> None:
    with pytest.raises(ValueError, match="one size"):
        mask_iou([Rle(size=(2, 2), counts=(4,))], [Rle(size=(2, 3), counts=(6,))])
