from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as oracle
from scipy import ndimage

from snellen.core.annotation import Annotation, Rle
from snellen.core.masks import (
    annotation_mask,
    decode,
    encode,
    mask_area,
    mask_box,
    outline,
    polygon_mask,
    runs_to_text,
    text_to_runs,
)

MASKS = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda shape: arrays(bool, shape))
POINTS = st.lists(st.tuples(st.floats(-5, 25, width=32), st.floats(-5, 25, width=32)), min_size=3, max_size=7)


def flat(points: list[tuple[float, float]]) -> tuple[float, ...]:
    return tuple(float(number) for point in points for number in point)


# ---- outlines -> pixels


@given(POINTS, st.integers(1, 20), st.integers(1, 20))
def test_a_pixel_belongs_to_an_outline_when_its_centre_is_inside(
    points: list[tuple[float, float]], width: int, height: int
) -> None:
    def inside(x: float, y: float) -> bool:
        odd = False
        for (ax, ay), (bx, by) in zip(points, [*points[1:], points[0]], strict=True):
            if (ay <= y) != (by <= y):
                odd ^= ax + (y - ay) / (by - ay) * (bx - ax) <= x
        return odd

    expected = [[inside(x + 0.5, y + 0.5) for x in range(width)] for y in range(height)]
    differing = polygon_mask([flat(points)], (width, height)) != np.array(expected)
    for y, x in np.argwhere(differing):  # only centres that lie on the outline, to the last digit
        distances = [
            abs((bx - ax) * (ay - y - 0.5) - (ax - x - 0.5) * (by - ay)) / max(np.hypot(bx - ax, by - ay), 1e-9)
            for (ax, ay), (bx, by) in zip(points, [*points[1:], points[0]], strict=True)
        ]
        assert min(distances) < 1e-5


def test_a_box_as_an_outline_covers_its_pixels_and_parts_are_united() -> None:
    square, other = (2.0, 1.0, 5.0, 1.0, 5.0, 4.0, 2.0, 4.0), (4.0, 3.0, 9.0, 3.0, 9.0, 9.0, 4.0, 9.0)
    expected = np.zeros((6, 8), dtype=bool)
    expected[1:4, 2:5] = expected[3:6, 4:8] = True
    assert np.array_equal(polygon_mask([square, other], (8, 6)), expected)


def test_outlines_that_tile_an_image_share_no_pixel_and_miss_none() -> None:
    left, right = (0.0, 0.0, 7.3, 0.0, 2.1, 10.0, 0.0, 10.0), (7.3, 0.0, 10.0, 0.0, 10.0, 10.0, 2.1, 10.0)
    both = [polygon_mask([part], (10, 10)) for part in (left, right)]
    assert not (both[0] & both[1]).any() and (both[0] | both[1]).all()


def test_an_outline_beyond_the_image_leaves_what_is_within() -> None:
    assert polygon_mask([(-1e8, -1e8, 1e8, -1e8, 1e8, 1e8, -1e8, 1e8)], (4, 3)).all()
    assert not polygon_mask([(10.0, 0.0, 20.0, 0.0, 20.0, 5.0)], (4, 3)).any()


@pytest.mark.parametrize("polygon", [(), (1.0, 1.0, 2.0, 2.0), (0.0, 0.0, 1.0, 0.0, float("nan"), 1.0)])
def test_what_is_no_outline_is_refused(polygon: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="three or more finite points"):
        polygon_mask([polygon], (4, 4))


# ---- pixels -> outlines


@given(MASKS)
def test_an_outline_gives_back_exactly_its_mask(mask: np.ndarray) -> None:
    shape = outline(mask)
    height, width = mask.shape
    back = decode(shape) if isinstance(shape, Rle) else polygon_mask(shape, (width, height))
    assert np.array_equal(back, mask)


@given(MASKS)
def test_there_is_a_part_for_each_region_and_runs_for_holes_only(mask: np.ndarray) -> None:
    holes = ndimage.label(~np.pad(mask, 1), structure=np.ones((3, 3)))[1] > 1
    shape = outline(mask)
    assert isinstance(shape, Rle) == holes
    if not isinstance(shape, Rle):
        assert len(shape) == ndimage.label(mask)[1]


def test_an_outline_tells_turning_points_only() -> None:
    mask = np.zeros((5, 6), dtype=bool)
    mask[1:4, 2:5] = True
    assert outline(mask) == ((2.0, 1.0, 5.0, 1.0, 5.0, 4.0, 2.0, 4.0),)


# ---- runs


@given(MASKS)
def test_runs_are_those_of_pycocotools(mask: np.ndarray) -> None:
    theirs = oracle.encode(np.asfortranarray(mask, dtype=np.uint8))
    rle = encode(mask)
    assert runs_to_text(rle.counts) == theirs["counts"].decode()
    assert text_to_runs(theirs["counts"].decode()) == rle.counts
    assert np.array_equal(decode(rle), mask)
    assert mask_area(mask) == oracle.area(theirs) == sum(rle.counts[1::2])
    box = mask_box(mask)
    x, y, width, height = oracle.toBbox(theirs)
    assert box is None if not mask.any() else box == (x, y, x + width, y + height)


@given(st.lists(st.integers(0, 2**30), min_size=1, max_size=12))
def test_any_counts_survive_the_text(counts: list[int]) -> None:
    assert text_to_runs(runs_to_text(counts)) == tuple(counts)


@pytest.mark.parametrize("text", ["\n", "é", "o" * 100, "1o", "P" * 1000])
def test_text_that_is_no_runs_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="runs of a mask"):
        text_to_runs(text)


@pytest.mark.parametrize("counts", [(3, 3), (-1, 13), (), (0, 10**12)])
def test_runs_that_do_not_fill_the_image_are_refused(counts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must sum to 4 x 3"):
        decode(Rle(size=(3, 4), counts=counts))


# ---- of one object


def test_an_object_has_the_mask_of_its_runs_or_its_outline_or_none() -> None:
    mask = np.zeros((4, 6), dtype=bool)
    mask[1:3, 1:5] = True
    shape = outline(mask)
    assert not isinstance(shape, Rle)
    box = (1.0, 1.0, 5.0, 3.0)
    for annotation in (
        Annotation(label="a", box=box, polygons=shape),
        Annotation(label="a", box=box, mask=encode(mask)),
    ):
        found = annotation_mask(annotation, (6, 4))
        assert found is not None and np.array_equal(found, mask)
    assert annotation_mask(Annotation(label="a", box=box), (6, 4)) is None
    with pytest.raises(ValueError, match="does not fit an image of 4 x 6"):
        annotation_mask(Annotation(label="a", box=box, mask=encode(mask)), (4, 6))
