"""An elastic field moves pixels and points alike, folds nothing over, and is as strong as it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snellen.core import geometry as g
from snellen.data.elastic import ElasticField, elastic_fields, pixel_centres
from snellen.data.warp import warp_image, warp_mask

SIZE = (120, 90)


def one_field(strength: float, seed: int = 0, size: g.Size = SIZE) -> ElasticField:
    return elastic_fields(strength, seed, 0, ["a"], size)[0]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.0, 0.05), st.floats(0.3, 0.7), st.floats(0.3, 0.7), st.floats(-40, 40))
def test_a_bright_dot_lands_where_the_function_says(
    seed: int, strength: float, x: float, y: float, turn: float
) -> None:
    matrix = g.compose(g.rotation(turn, (60, 45)), g.scaling(0.9, 0.9, (60, 45)))
    field = one_field(strength, seed)
    dot = np.array([x * 120, y * 90])
    distance = np.linalg.norm(pixel_centres(SIZE) - dot, axis=-1)
    image = np.repeat(np.rint(255 * np.exp(-0.5 * (distance / 2.0) ** 2))[..., None], 3, axis=2).astype(np.uint8)
    light = warp_image(image, matrix, SIZE, fill=(0, 0, 0), field=field)[..., 0].astype(float)
    expected = field.map_points(g.map_points(matrix, dot))
    brightest = np.unravel_index(light.argmax(), light.shape)
    assert light.max() > 200 and np.linalg.norm(np.array(brightest)[::-1] + 0.5 - expected) <= 2.0
    near = np.linalg.norm(pixel_centres(SIZE) - expected, axis=-1) < 8
    centre = (pixel_centres(SIZE) * (light * near)[..., None]).sum(axis=(0, 1)) / (light * near).sum()
    assert np.linalg.norm(centre - expected) < 0.7  # a dot that is sheared is no longer symmetrical


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.floats(0.0, 0.05), st.integers(8, 60), st.integers(8, 60))
def test_nothing_folds_over_and_every_point_finds_its_way_back(
    seed: int, strength: float, width: int, height: int
) -> None:
    field = one_field(strength, seed, (width, height))
    moved = field.moved_pixels((width, height)).astype(float)
    across, down = np.diff(moved, axis=1)[:-1], np.diff(moved, axis=0)[:, :-1]
    assert np.all(across[..., 0] * down[..., 1] - across[..., 1] * down[..., 0] > 0)
    points = np.random.default_rng(seed).uniform(0, 1, (20, 2)) * (width, height)
    assert np.allclose(field.map_points(points + field.at(points)), points, atol=1e-4)
    assert np.allclose(
        field.at(pixel_centres((width, height)).reshape(-1, 2)),
        (moved - pixel_centres((width, height))).reshape(-1, 2),
        atol=1e-3,
    )


def test_points_move_as_far_as_the_setting_says_and_neighbours_alike() -> None:
    fields = elastic_fields(0.02, 0, 0, [f"{number}" for number in range(60)], (100, 100))
    moved = fields.moved_pixels((100, 100)) - pixel_centres((100, 100))
    assert moved.std() == pytest.approx(2.0, rel=0.05) and abs(moved.mean()) < 0.1
    assert abs(np.corrcoef(moved[..., 0].ravel(), moved[..., 1].ravel())[0, 1]) < 0.06
    steps = np.diff(moved, axis=1).std()
    assert steps == pytest.approx(2.0 / (np.sqrt(2) * 100 * 4 / 29), rel=0.1)  # of a field smoothed by that Gaussian


def test_no_strength_is_no_change_and_a_mask_moves_with_its_image() -> None:
    regions = np.kron(np.arange(12).reshape(3, 4), np.ones((30, 30), int))
    image = np.repeat((regions * 20)[..., None], 3, axis=2).astype(np.uint8)
    assert np.array_equal(warp_image(image, g.identity(), SIZE, field=one_field(0.0)), image)
    field = one_field(0.04)
    warped = warp_image(image, g.identity(), SIZE, fill=(250, 250, 250), field=field)[..., 0]
    mask = warp_mask(regions, g.identity(), SIZE, ignore=-1, field=field)
    assert np.mean(np.where(mask < 0, warped == 250, np.abs(warped - 20.0 * mask) < 1)) > 0.85
    assert not np.array_equal(mask, regions)


def test_a_field_shrinks_an_image_without_aliasing() -> None:
    board = np.repeat((np.indices((500, 600)).sum(axis=0) % 2 * 255)[..., None], 3, axis=2).astype(np.uint8)
    out = warp_image(board, g.scaling(0.1, 0.1), (60, 50), fill=(127, 127, 127), field=one_field(0.02, size=(60, 50)))
    assert np.abs(out.astype(int) - 127).max() <= 12
    far = warp_image(board, g.translation(9000, 0), (60, 50), fill=(1, 2, 3), field=one_field(0.02, size=(60, 50)))
    assert np.all(far == (1, 2, 3))
