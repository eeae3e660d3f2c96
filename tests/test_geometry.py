"""Geometry is one matrix; it holds for points, boxes, rotated boxes, polygons and keypoints alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from snellen.core import geometry as g

W, H = 128, 96
numbers = st.floats(-200, 300, allow_nan=False)
factors = st.floats(0.2, 5.0)
angles = st.floats(-180, 180)
signs = st.sampled_from([-1.0, 1.0])

similarities = st.builds(
    lambda scale, angle, dx, dy, mirror: g.compose(
        g.rotation(angle, (dx, dy)), g.scaling(scale * mirror, scale), g.translation(dx, dy)
    ),
    factors,
    angles,
    numbers,
    numbers,
    signs,
)
axis_aligned = st.builds(
    lambda sx, sy, fx, fy, dx, dy, turns: g.compose(
        g.rot90(turns, W, H), g.scaling(sx * fx, sy * fy), g.translation(dx, dy)
    ),
    factors,
    factors,
    signs,
    signs,
    numbers,
    numbers,
    st.integers(0, 3),
)
affinities = st.builds(
    lambda first, lean, then: g.compose(first, g.shear(lean), then), axis_aligned, st.floats(-40, 40), similarities
)
dents = st.lists(st.floats(0.0, 0.3), min_size=8, max_size=8)


def _perspective(dents: list[float]) -> g.Matrix:
    """The image's corners onto corners moved inwards by up to 0.3 of the sides: always convex."""
    inwards = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) * np.reshape(dents, (4, 2)) * (W, H)
    corners = np.array([(0, 0), (W, 0), (W, H), (0, H)], float)
    return g.perspective(corners, corners + inwards)


perspectives = st.builds(_perspective, dents)
matrices = st.one_of(similarities, axis_aligned, affinities, perspectives)
inside = st.tuples(st.floats(0, W), st.floats(0, H))
clouds = st.lists(inside, min_size=1, max_size=6).map(np.array)
boxes = st.lists(
    st.tuples(st.floats(0, 100), st.floats(0, 80), st.floats(0, 28), st.floats(0, 16)), min_size=1, max_size=5
).map(lambda rows: np.array([(x, y, x + w, y + h) for x, y, w, h in rows]))
rotated = st.lists(
    st.tuples(st.floats(10, 100), st.floats(10, 80), st.floats(1, 40), st.floats(1, 40), st.floats(-7, 7)),
    min_size=1,
    max_size=5,
).map(np.array)


def same_rectangles(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    """Corner for corner, whatever corner comes first and which way round they go."""
    first, second = g.rotated_box_corners(one), g.rotated_box_corners(other)
    distance = np.linalg.norm(first[:, :, None] - second[:, None], axis=-1)
    return bool((distance.min(axis=2).max() < 1e-4) and (distance.min(axis=1).max() < 1e-4))


# -- one matrix and its way back ------------------------------------------------------------------------------------


@given(matrices, clouds)
def test_a_matrix_then_its_inverse_moves_nothing(matrix: g.Matrix, points: npt.NDArray[Any]) -> None:
    assert np.allclose(g.map_points(g.invert(matrix), g.map_points(matrix, points)), points, atol=1e-6)
    assert np.allclose(g.map_points(g.compose(matrix, g.invert(matrix)), points), points, atol=1e-6)


@given(matrices, matrices, clouds)
def test_composed_matrices_are_one_after_the_other_for_points_and_polygons(
    first: g.Matrix, then: g.Matrix, points: npt.NDArray[Any]
) -> None:
    middle = g.map_points(first, points)
    assume(np.all(middle @ then[2, :2] + then[2, 2] > 0.05))  # not beyond the second's horizon
    both = g.compose(first, then)
    after = g.map_points(then, middle)
    assert np.allclose(g.map_points(both, points), after, rtol=1e-9, atol=1e-6)
    (polygon,) = g.map_polygons(both, [points])
    assert np.allclose(polygon, g.map_polygons(then, g.map_polygons(first, [points]))[0], rtol=1e-9, atol=1e-6)


@given(axis_aligned, axis_aligned, boxes)
def test_composed_matrices_are_one_after_the_other_for_boxes(
    first: g.Matrix, then: g.Matrix, boxes: npt.NDArray[Any]
) -> None:
    assert np.allclose(
        g.map_boxes(g.compose(first, then), boxes), g.map_boxes(then, g.map_boxes(first, boxes)), atol=1e-6
    )


@given(similarities, similarities, rotated)
def test_composed_matrices_are_one_after_the_other_for_rotated_boxes(
    first: g.Matrix, then: g.Matrix, boxes: npt.NDArray[Any]
) -> None:
    at_once = g.map_rotated_boxes(g.compose(first, then), boxes)
    assert same_rectangles(at_once, g.map_rotated_boxes(then, g.map_rotated_boxes(first, boxes)))


@given(st.one_of(similarities, axis_aligned), st.one_of(similarities, axis_aligned), clouds)
def test_composed_matrices_are_one_after_the_other_for_keypoints_with_flip_pairs(
    first: g.Matrix, then: g.Matrix, points: npt.NDArray[Any]
) -> None:
    keypoints = np.column_stack([points, np.arange(len(points)) % 3])
    pairs = [(0, len(points) - 1)]
    at_once = g.map_keypoints(g.compose(first, then), keypoints, pairs)
    assert np.allclose(at_once, g.map_keypoints(then, g.map_keypoints(first, keypoints, pairs), pairs), atol=1e-6)


@pytest.mark.parametrize("flip", [g.hflip(W), g.vflip(H), g.scaling(-1, 1, (W / 2, 7)), g.rot90(2, W, H)])
def test_a_flip_twice_is_the_identity_to_the_bit(flip: g.Matrix) -> None:
    assert np.array_equal(g.compose(flip, flip), g.identity())


def test_half_a_turn_is_both_flips() -> None:
    both = g.compose(g.hflip(W), g.vflip(H))
    assert np.array_equal(g.rot90(2, W, H), both)
    assert np.allclose(g.rotation(180, (W / 2, H / 2)), both, atol=1e-12)


@pytest.mark.parametrize("turns", range(-1, 5))
def test_quarter_turns_are_rotations_that_end_at_the_corner(turns: int) -> None:
    size = (H, W) if turns % 2 else (W, H)
    turned = g.compose(g.translation(-W / 2, -H / 2), g.rotation(90 * turns), g.translation(size[0] / 2, size[1] / 2))
    assert np.allclose(g.rot90(turns, W, H), turned, atol=1e-12)


def test_positive_angles_turn_clockwise_on_the_screen() -> None:
    assert np.allclose(g.map_points(g.rotation(90), (1.0, 0.0)), (0.0, 1.0))
    assert np.allclose(g.map_rotated_boxes(g.rotation(10), [(50, 50, 30, 10, 0.2)])[0, 4], 0.2 + np.radians(10))


def test_makers_take_arrays_and_give_stacks() -> None:
    stack = g.compose(
        g.translation([1, 2], [3, 4]), g.rotation([10, 20], (5, 5)), g.scaling([2, 3], 1.0), g.shear([5, 6])
    )
    for index in range(2):
        one = g.compose(
            g.translation(1 + index, 3 + index),
            g.rotation(10 + 10 * index, (5, 5)),
            g.scaling(2 + index, 1.0),
            g.shear(5 + index),
        )
        assert np.allclose(stack[index], one)
    assert np.allclose(g.invert(stack) @ stack, np.eye(3))


# -- fits -----------------------------------------------------------------------------------------------------------

sizes = st.tuples(st.integers(1, 5000), st.integers(1, 5000))
out_sizes = st.tuples(st.integers(1, 512), st.integers(1, 512))


@given(sizes, out_sizes, st.floats(0.2, 1.0))
def test_a_center_crop_is_a_whole_resize_and_a_whole_pixel_crop(in_size: g.Size, out: g.Size, fraction: float) -> None:
    resized, (left, top) = g.center_crop_steps(in_size, out, fraction)
    assert 0 <= left <= resized[0] - out[0] and 0 <= top <= resized[1] - out[1]
    steps = g.compose(g.squash(in_size, resized), g.translation(-left, -top))
    assert np.array_equal(g.center_crop(in_size, out, fraction), steps)
    # The crop is central to half a pixel, and the aspect ratio is kept to the rounding of the longer side.
    assert abs(2 * left - (resized[0] - out[0])) <= 1 and abs(2 * top - (resized[1] - out[1])) <= 1
    scale = max(round(out[0] / fraction) / in_size[0], round(out[1] / fraction) / in_size[1])
    assert np.all(np.abs(np.array(resized) - scale * np.array(in_size)) <= 0.5 + 1e-6)


@pytest.mark.parametrize(
    ("in_size", "steps"),
    [((500, 375), ((341, 256), (58, 16))), ((375, 500), ((256, 341), (16, 58))), ((256, 256), ((256, 256), (16, 16)))],
)
def test_a_center_crop_of_224_at_fraction_0875_resizes_the_short_side_to_256(in_size: g.Size, steps: Any) -> None:
    assert g.center_crop_steps(in_size, (224, 224), 0.875) == steps


@given(sizes, out_sizes)
def test_a_letterbox_shows_the_whole_image_on_whole_pixels(in_size: g.Size, out: g.Size) -> None:
    (box,) = g.map_boxes(g.letterbox(in_size, out), [(0, 0, *in_size)])
    assert np.allclose(box, np.round(box), atol=1e-6)
    assert np.all(box[:2] >= -1e-6) and np.all(box[2:] <= np.array(out) + 1e-6)
    assert max((box[2] - box[0]) / out[0], (box[3] - box[1]) / out[1]) == pytest.approx(1.0)


def test_squash_maps_the_whole_onto_the_whole() -> None:
    assert np.allclose(g.map_points(g.squash((500, 375), (224, 224)), [(0, 0), (500, 375)]), [(0, 0), (224, 224)])


@given(dents)
def test_a_perspective_takes_its_four_points_to_the_other_four(dents: list[float]) -> None:
    matrix = _perspective(dents)
    corners = np.array([(0, 0), (W, 0), (W, H), (0, H)], float)
    inwards = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) * np.reshape(dents, (4, 2)) * (W, H)
    assert np.allclose(g.map_points(matrix, corners), corners + inwards, atol=1e-6)


# -- annotations ----------------------------------------------------------------------------------------------------


@given(similarities, rotated)
def test_a_rotated_box_under_a_similarity_keeps_its_corners_and_which_side_is_its_width(
    matrix: g.Matrix, boxes: npt.NDArray[Any]
) -> None:
    mapped = g.map_rotated_boxes(matrix, boxes)
    corners = g.map_points(matrix, g.rotated_box_corners(boxes))
    distance = np.linalg.norm(g.rotated_box_corners(mapped)[:, :, None] - corners[:, None], axis=-1)
    assert distance.min(axis=2).max() < 1e-4
    scale = np.sqrt(abs(np.linalg.det(matrix)))
    assert np.allclose(mapped[:, 2:4], boxes[:, 2:4] * scale, rtol=1e-6)
    assert np.all((mapped[:, 4] >= -np.pi / 2) & (mapped[:, 4] < np.pi / 2))


@given(matrices, rotated)
def test_a_refitted_box_holds_its_corners_in_the_least_area(matrix: g.Matrix, boxes: npt.NDArray[Any]) -> None:
    assume(np.all(g.rotated_box_corners(boxes) @ matrix[2, :2] + matrix[2, 2] > 0.2))
    corners = g.map_points(matrix, g.rotated_box_corners(boxes))
    for fitted, shape in zip(g.map_rotated_boxes(matrix, boxes), corners, strict=True):
        back = g.compose(g.translation(-fitted[0], -fitted[1]), g.rotation(-np.degrees(fitted[4])))
        assert np.all(np.abs(g.map_points(back, shape)) <= fitted[2:4] / 2 * (1 + 1e-6) + 1e-6)
        tried = [np.ptp(g.map_points(g.rotation(angle), shape), axis=0).prod() for angle in np.arange(0, 90, 3)]
        assert fitted[2] * fitted[3] <= min(tried) * (1 + 1e-6) + 1e-6


@given(st.one_of(st.just(g.hflip(W)), st.just(g.vflip(H)), axis_aligned), boxes)
def test_keypoints_on_box_corners_stay_on_box_corners(matrix: g.Matrix, boxes: npt.NDArray[Any]) -> None:
    keypoints = np.array([[(x0, y0, 2), (x1, y0, 2), (x1, y1, 2), (x0, y1, 2)] for x0, y0, x1, y1 in boxes])
    mapped = g.map_keypoints(matrix, keypoints)[..., :2]
    assert np.allclose(mapped.min(axis=1), g.map_boxes(matrix, boxes)[:, :2], atol=1e-9)
    assert np.allclose(mapped.max(axis=1), g.map_boxes(matrix, boxes)[:, 2:], atol=1e-9)


def test_a_mirror_swaps_left_and_right_keypoints_and_a_turn_does_not() -> None:
    keypoints = np.array([(10.0, 5.0, 2.0), (30.0, 6.0, 1.0), (20.0, 9.0, 2.0)])  # left eye, right eye, nose
    mirrored = g.map_keypoints(g.hflip(W), keypoints, [(0, 1)])
    assert np.array_equal(mirrored, [(W - 30, 6, 1), (W - 10, 5, 2), (W - 20, 9, 2)])
    turned = g.map_keypoints(g.rot90(2, W, H), keypoints, [(0, 1)])
    assert np.array_equal(turned[:, 2], keypoints[:, 2])
    assert np.array_equal(keypoints[0], (10, 5, 2))  # the caller's array is left alone


def test_unlabelled_keypoints_stay_zero() -> None:
    mapped = g.map_keypoints(g.translation(7, 7), [(0.0, 0.0, 0.0), (1.0, 1.0, 2.0)])
    assert np.array_equal(mapped, [(0, 0, 0), (8, 8, 2)])


@given(matrices, boxes, st.tuples(st.integers(1, 200), st.integers(1, 200)))
def test_boxes_are_never_negative_or_not_a_number(matrix: g.Matrix, boxes: npt.NDArray[Any], size: g.Size) -> None:
    mapped = g.map_boxes(matrix, boxes)
    clipped, kept = g.clip_boxes(mapped, size)
    for found in (mapped, clipped):
        assert np.all(np.isfinite(found)) and np.all(found[:, 2:] >= found[:, :2])
    assert np.all((clipped >= 0) & (clipped <= [*size, *size]))
    assert np.all((kept >= 0) & (kept <= 1 + 1e-12))
    rotated = g.map_rotated_boxes(matrix, np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2], boxes[:, 0]]) / 2)
    assert np.all(np.isfinite(rotated)) and np.all(rotated[:, 2:4] >= 0)


def test_clipping_says_what_is_left_of_each_box() -> None:
    clipped, kept = g.clip_boxes([(-10, 0, 10, 10), (5, 5, 9, 9), (200, 0, 210, 10), (3, 3, 3, 3)], (100, 100))
    assert np.array_equal(clipped, [(0, 0, 10, 10), (5, 5, 9, 9), (100, 0, 100, 10), (3, 3, 3, 3)])
    assert kept.tolist() == [0.5, 1.0, 0.0, 0.0]


def test_nothing_in_gives_nothing_out() -> None:
    assert g.map_boxes(g.hflip(W), np.zeros((0, 4))).shape == (0, 4)
    assert g.map_rotated_boxes(g.hflip(W), np.zeros((0, 5))).shape == (0, 5)
    assert g.map_points(g.hflip(W), np.zeros((0, 2))).shape == (0, 2)
    assert g.map_keypoints(g.hflip(W), np.zeros((0, 3))).shape == (0, 3)
    assert g.map_polygons(g.hflip(W), []) == []
    assert g.clip_boxes(np.zeros((0, 4)), (1, 1))[0].shape == (0, 4)


# -- what a matrix is -----------------------------------------------------------------------------------------------


@given(axis_aligned)
def test_scales_flips_and_quarter_turns_are_axis_aligned(matrix: g.Matrix) -> None:
    assert g.is_axis_aligned(matrix) and g.is_affine(matrix)


@pytest.mark.parametrize(
    ("matrix", "aligned", "affine", "mirroring"),
    [
        (g.rotation(90), True, True, False),
        (g.rotation(0.1), False, True, False),
        (g.shear(1), False, True, False),
        (g.hflip(9), True, True, True),
        (g.compose(g.hflip(9), g.vflip(9)), True, True, False),
        (_perspective([0.1] * 7 + [0.2]), False, False, False),
        (g.compose(_perspective([0.1] * 7 + [0.2]), g.vflip(9)), False, False, True),
        (2 * g.identity(), True, True, False),
    ],
)
def test_a_matrix_is_what_it_does(matrix: g.Matrix, aligned: bool, affine: bool, mirroring: bool) -> None:
    assert (g.is_axis_aligned(matrix), g.is_affine(matrix), g.is_mirroring(matrix)) == (aligned, affine, mirroring)


SQUARE = [(0, 0), (1, 0), (1, 1), (0, 1)]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: g.crop_resize((5, 5, 5, 9), (8, 8)), "x1 > x0"),
        (lambda: g.center_crop((9, 9), (4, 4), 1.5), "crop_fraction"),
        (lambda: g.perspective(SQUARE, [(0, 0), (1, 0), (0.2, 0.2), (0, 1)]), "convex"),
        (lambda: g.perspective(SQUARE, [(0, 0), (1, 0), (2, 0), (0, 0)]), "line|convex"),
        (lambda: g.perspective(SQUARE[:3], SQUARE), "4 points"),
        (lambda: g.invert(g.scaling(0, 1)), "no inverse"),
        (lambda: g.map_points(np.array([[1, 0, 0], [0, 1, 0], [-0.1, 0, 1]]), [(11.0, 0.0)]), "horizon"),
        (lambda: g.map_points(g.identity(), [(np.nan, 0.0)]), "not a number"),
        (lambda: g.map_keypoints(g.identity(), [(1, 2)]), "shape"),
    ],
)
def test_a_bad_argument_is_named(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
