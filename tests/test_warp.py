"""One resampling: the image goes where its annotations go, and a plain resize is what a plain resize is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from snellen.core import geometry as g
from snellen.data.warp import FILL, warp_batch, warp_image, warp_mask

BLACK = (0, 0, 0)


def photo(width: int, height: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Smooth blobs with some fine texture, asymmetric in every way."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    return np.clip(smooth + rng.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8)


def difference(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> int:
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other.astype(int)).max())


# -- evaluation is a plain resize -----------------------------------------------------------------------------------

SHAPES = [(500, 375), (375, 500), (97, 301), (224, 224), (640, 64), (40, 30)]


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("out", [(224, 224), (96, 64)])
def test_squash_is_pillows_antialiased_resize(size: g.Size, out: g.Size) -> None:
    image = photo(*size)
    plain = np.asarray(Image.fromarray(image).resize(out, Image.Resampling.BILINEAR))
    assert difference(warp_image(image, g.squash(size, out), out), plain) <= 1


@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize(("out", "fraction"), [((224, 224), 0.875), ((64, 96), 1.0), ((65, 65), 0.9)])
def test_center_crop_is_a_resize_of_the_whole_image_and_a_crop_of_whole_pixels(
    size: g.Size, out: g.Size, fraction: float
) -> None:
    import torch

    image = photo(*size)
    warped = warp_image(image, g.center_crop(size, out, fraction), out)
    (width, height), (left, top) = g.center_crop_steps(size, out, fraction)
    cut = np.s_[top : top + out[1], left : left + out[0]]
    plain = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    # Pillow holds the box in single precision and rounds between its two passes, so a few pixels fall to a neighbour.
    assert difference(warped, plain[cut]) <= 2 and np.mean(warped != plain[cut]) < 0.25
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    exported = torch.nn.functional.interpolate(
        tensor, size=(height, width), mode="bilinear", antialias=True, align_corners=False
    )
    pixels = exported.round().to(torch.uint8)[0].permute(1, 2, 0).numpy()[cut]
    assert difference(warped, pixels) <= 2 and np.mean(np.abs(warped - pixels.astype(float))) < 0.3


@pytest.mark.parametrize("size", SHAPES)
def test_letterbox_is_a_resize_pasted_on_the_fill(size: g.Size) -> None:
    image = photo(*size)
    matrix = g.letterbox(size, (200, 160))
    left, top, right, bottom = np.round(g.map_boxes(matrix, [(0, 0, *size)])[0]).astype(int)
    canvas = np.full((160, 200, 3), FILL, np.uint8)
    canvas[top:bottom, left:right] = Image.fromarray(image).resize(
        (right - left, bottom - top), Image.Resampling.BILINEAR
    )
    assert difference(warp_image(image, matrix, (200, 160)), canvas) <= 1


# -- exact moves ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("mirror", [False, True])
def test_flips_and_quarter_turns_move_pixels_without_changing_them(turns: int, mirror: bool) -> None:
    image = photo(31, 20)
    expected = np.rot90(image, -turns)
    matrix, size = g.rot90(turns, 31, 20), (expected.shape[1], expected.shape[0])
    if mirror:
        expected, matrix = expected[:, ::-1], g.compose(matrix, g.hflip(size[0]))
    assert np.array_equal(warp_image(image, matrix, size), expected)
    assert np.array_equal(warp_mask(image[..., 0], matrix, size, ignore=0), expected[..., 0])


def test_a_whole_pixel_crop_is_a_slice_and_the_outside_is_filled() -> None:
    image = photo(40, 30)
    assert np.array_equal(warp_image(image, g.translation(-5, -7), (20, 20)), image[7:27, 5:25])
    shifted = warp_image(image, g.translation(8, -3), (40, 30))
    expected = np.full_like(image, FILL)
    expected[:27, 8:] = image[3:, :32]
    assert np.array_equal(shifted, expected)


@pytest.mark.parametrize("matrix", [g.translation(900, 0), g.compose(g.translation(900, 0), g.rotation(3))])
def test_an_image_moved_out_of_sight_leaves_the_fill(matrix: g.Matrix) -> None:
    assert np.all(warp_image(photo(40, 30), matrix, (16, 12), fill=(1, 2, 3)) == (1, 2, 3))
    assert np.all(warp_mask(np.ones((30, 40), np.uint8), matrix, (16, 12), ignore=255) == 255)


@settings(max_examples=60)
@given(
    st.tuples(st.integers(1, 80), st.integers(1, 60)),
    st.floats(0.05, 4), st.floats(0.05, 4), st.floats(-60, 60), st.floats(-60, 60),
    st.sampled_from([0.0, 0.0, 1e-3, 12.0, -75.0]), st.booleans(),
)  # fmt: skip
def test_every_output_pixel_is_image_or_fill(
    size: g.Size, sx: float, sy: float, dx: float, dy: float, turn: float, mirror: bool
) -> None:
    """A flat image stays flat to its edge: nothing of the fill, and nothing from outside, is blended into it."""
    matrix = g.compose(g.scaling(-sx if mirror else sx, sy), g.rotation(turn, (10, 10)), g.translation(dx, dy))
    image = np.full((size[1], size[0], 3), 200, np.uint8)
    out = warp_image(image, matrix, (33, 29), fill=BLACK)
    assert out.shape == (29, 33, 3) and out.dtype == np.uint8 and out.flags.writeable and out.flags.c_contiguous
    assert set(np.unique(out)) <= {0, 200}
    seen = warp_mask(np.ones((size[1], size[0]), np.uint8), matrix, (33, 29), ignore=0)
    centres = np.stack(np.meshgrid(np.arange(33) + 0.5, np.arange(29) + 0.5), axis=-1)
    origin = g.map_points(g.invert(matrix), centres)
    clear = np.all((np.abs(origin) > 1e-6) & (np.abs(origin - size) > 1e-6), axis=-1)  # not on the very edge
    assert np.array_equal((out[..., 0] == 200)[clear], (seen == 1)[clear])


@pytest.mark.parametrize("matrix", [g.translation(3, -2), g.rot90(1, 32, 32), g.rotation(20, (16, 16))])
def test_a_multiple_of_a_matrix_is_the_same_map(matrix: g.Matrix) -> None:
    import torch

    image, double = photo(32, 32), 2.5 * matrix
    assert difference(warp_image(image, double, (32, 32)), warp_image(image, matrix, (32, 32))) <= 1
    masks = [warp_mask(image[..., 0], one, (32, 32), ignore=0) for one in (double, matrix)]
    assert np.array_equal(*masks)
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]
    assert torch.equal(warp_batch(batch, double[None], (32, 32)), warp_batch(batch, matrix[None], (32, 32)))


# -- the picture and its annotations --------------------------------------------------------------------------------


def inside(polygon: npt.NDArray[np.float64], size: g.Size, samples: int) -> npt.NDArray[np.float64]:
    """How much of each pixel lies in the convex polygon, from samples x samples points: [H, W] in 0..1."""
    ticks = [(np.arange(length * samples) + 0.5) / samples for length in size]
    points = np.stack(np.meshgrid(*ticks), axis=-1)
    sides = np.roll(polygon, -1, axis=0) - polygon
    offsets = points[:, :, None] - polygon
    crosses = sides[:, 0] * offsets[..., 1] - sides[:, 1] * offsets[..., 0]
    covered = np.all(crosses >= 0, axis=-1) | np.all(crosses <= 0, axis=-1)
    return covered.reshape(size[1], samples, size[0], samples).mean(axis=(1, 3))


def overlap(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


CORNERS = np.array([(0, 0), (120, 0), (120, 100), (0, 100)], float)
TILTED = g.perspective(CORNERS, [(12.1, 3.2), (100.3, 9), (126, 96.1), (2.2, 85)])
MOVES = {
    "shift": g.translation(10.3, -7.6),
    "shrink": g.scaling(0.62, 0.71),
    "flip": g.compose(g.hflip(120), g.scaling(1.3, 1.3)),
    "quarter turn": g.compose(g.rot90(1, 120, 100), g.scaling(1.2, 0.9)),
    "turn": g.rotation(33, (60, 50)),
    "turn and shrink to a third": g.compose(g.scaling(1 / 3, 1 / 3, (60, 50)), g.rotation(-20, (60, 50))),
    "lean": g.shear(20, 5, (60, 50)),
    "mirror, turn, enlarge": g.compose(g.scaling(-1.5, 1.4, (60, 50)), g.rotation(100, (60, 50))),
    "perspective": TILTED,
    "perspective, smaller": g.compose(TILTED, g.scaling(0.75, 0.75, (60, 50))),
}


@pytest.mark.parametrize("move", MOVES)
def test_a_drawn_shape_lands_where_its_polygon_lands(move: str) -> None:
    size, matrix = (120, 100), MOVES[move]
    shape = np.array([(30, 22), (88, 30), (80, 77), (35, 70)], float)
    if "third" in move:  # at least 32 pixels where it lands
        size, matrix, shape = (360, 300), g.compose(g.translation(-120, -100), matrix), shape * 3
    image = np.repeat(np.round(255 * inside(shape, size, 4))[..., None], 3, axis=2).astype(np.uint8)
    out = (180, 150)
    matrix = g.compose(matrix, g.translation(20, 20))
    (landed,) = g.map_polygons(matrix, [shape])
    expected = inside(landed, out, 4) > 0.5
    assert expected.sum() > 900
    assert overlap(warp_image(image, matrix, out, fill=BLACK)[..., 0] > 127, expected) >= 0.97
    mask = (image[..., 0] > 127).astype(np.int64)
    assert overlap(warp_mask(mask, matrix, out, ignore=0) == 1, expected) >= 0.96
    low, high = g.map_boxes(matrix, [(*shape.min(axis=0), *shape.max(axis=0))])[0].reshape(2, 2)
    rows, columns = np.nonzero(expected)
    assert np.all(low - 1 <= (columns.min(), rows.min())) and np.all(high + 1 >= (columns.max(), rows.max()))


@pytest.mark.parametrize("move", MOVES)
def test_a_fine_checkerboard_shrinks_to_grey_by_every_path(move: str) -> None:
    board = np.repeat((np.indices((500, 600)).sum(axis=0) % 2 * 255)[..., None], 3, axis=2).astype(np.uint8)
    out = warp_image(
        board, g.compose(g.scaling(0.2, 0.2), MOVES[move], g.scaling(0.6, 0.6)), (40, 30), fill=(127, 127, 127)
    )
    assert np.abs(out.astype(int) - 127).max() <= 12


def test_the_general_path_agrees_with_the_upright_one() -> None:
    """A turn by a millionth of a degree goes through the other code, and must give nearly the same picture."""
    image = photo(500, 375)
    upright = g.center_crop((500, 375), (160, 160), 0.875)
    turned = g.compose(upright, g.rotation(1e-6, (80, 80)))
    assert not g.is_axis_aligned(turned)
    apart = np.abs(warp_image(image, upright, (160, 160)).astype(int) - warp_image(image, turned, (160, 160)))
    assert apart.mean() < 1.5 and apart.max() <= 12


def test_threads_do_not_change_pixels() -> None:
    image = photo(200, 150)
    matrices = [g.compose(g.rotation(angle, (100, 75)), g.scaling(0.5, 0.5)) for angle in range(0, 90, 5)]
    alone = [warp_image(image, matrix, (96, 72)) for matrix in matrices]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda matrix: warp_image(image, matrix, (96, 72)), matrices))
    assert np.array_equal(alone, together)


# -- masks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64])
def test_a_mask_keeps_its_values_and_its_dtype(dtype: Any) -> None:
    mask = np.random.default_rng(0).integers(0, 12, (60, 80)).astype(dtype)
    for matrix in (g.squash((80, 60), (37, 53)), g.rotation(20, (40, 30))):
        warped = warp_mask(mask, matrix, (37, 53), ignore=100)
        assert warped.dtype == dtype and set(np.unique(warped)) <= {*range(12), 100}


@pytest.mark.parametrize("size", [(128, 128), (100, 75)])
def test_a_resized_mask_is_nearest_exact(size: g.Size) -> None:
    import torch

    mask = np.random.default_rng(0).integers(0, 200, (size[1], size[0])).astype(np.uint8)
    expected = torch.nn.functional.interpolate(torch.from_numpy(mask)[None, None], size=(53, 53), mode="nearest-exact")
    assert np.array_equal(warp_mask(mask, g.squash(size, (53, 53)), (53, 53), ignore=255), expected[0, 0].numpy())


@pytest.mark.parametrize("move", MOVES)
def test_a_mask_and_its_image_stay_aligned(move: str) -> None:
    regions = np.kron(np.arange(12).reshape(3, 4), np.ones((34, 30), int))[:100, :120]
    image = np.repeat((regions * 20)[..., None], 3, axis=2).astype(np.uint8)
    matrix = MOVES[move]
    warped = warp_image(image, matrix, (120, 100), fill=(250, 250, 250))[..., 0]
    mask = warp_mask(regions, matrix, (120, 100), ignore=-1)
    agree = np.where(mask < 0, warped == 250, np.abs(warped - 20.0 * mask) < 1)
    assert agree.mean() > 0.85  # the rest are the blended borders between regions
    assert np.array_equal(warped == 250, mask == -1)


# -- batches of tiny images -----------------------------------------------------------------------------------------

tiny_moves = st.builds(
    lambda scale, angle, dx, dy, mirror: g.compose(
        g.scaling(-scale if mirror else scale, scale, (16, 16)), g.rotation(angle, (16, 16)), g.translation(dx, dy)
    ),
    st.floats(1.0, 1.6), st.sampled_from([0.0, 0.0, 7.0, -30.0]), st.floats(-5, 5), st.floats(-5, 5), st.booleans(),
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.lists(tiny_moves, min_size=1, max_size=5), st.sampled_from([(32, 32), (28, 36)]))
def test_a_batch_agrees_with_one_image_at_a_time(matrices: list[g.Matrix], size: g.Size) -> None:
    import torch

    images = np.stack([photo(32, 32, seed) for seed in range(len(matrices))])
    batch = torch.from_numpy(images).permute(0, 3, 1, 2)
    together = warp_batch(batch, np.stack(matrices), size).permute(0, 2, 3, 1).numpy()
    centres = np.stack(np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5), axis=-1)
    for image, matrix, warped in zip(images, matrices, together, strict=True):
        origin = g.map_points(g.invert(matrix), centres)
        clear = np.all((np.abs(origin) > 1e-3) & (np.abs(origin - 32) > 1e-3), axis=-1)
        assert difference(warped[clear], warp_image(image, matrix, size)[clear]) <= 2


@pytest.mark.parametrize("length", [8, 28, 32])
def test_a_batch_is_unchanged_by_the_identity_and_mirrored_by_a_flip(length: int) -> None:
    import torch

    batch = torch.from_numpy(np.stack([photo(length, length, seed) for seed in range(2)])).permute(0, 3, 1, 2)
    warped = warp_batch(batch, np.stack([g.identity(), g.hflip(length)]), (length, length))
    assert torch.equal(warped[0], batch[0]) and torch.equal(warped[1], batch[1].flip(-1))


def test_a_batch_fills_what_it_does_not_see() -> None:
    import torch

    batch = torch.full((1, 3, 8, 8), 9, dtype=torch.uint8)
    warped = warp_batch(batch, g.translation(3, 0)[None], (8, 8), fill=(1, 2, 3))
    assert torch.equal(warped[0, :, 0, :], torch.tensor([[1] * 3 + [9] * 5, [2] * 3 + [9] * 5, [3] * 3 + [9] * 5]))


# -- bad arguments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "words"),
    [(np.zeros((4, 4), np.uint8), "uint8 \\[H, W, 3\\]"), (np.zeros((4, 4, 3), np.float32), "got float32")],
)
def test_an_image_of_another_kind_is_refused(image: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        warp_image(image, g.identity(), (4, 4))
    with pytest.raises(ValueError, match="a mask is integers"):
        warp_mask(np.zeros((4, 4), np.float32), g.identity(), (4, 4), ignore=0)


def test_a_perspective_whose_horizon_crosses_the_picture_is_refused() -> None:
    matrix = np.array([[1, 0, 0], [0, 1, 0], [0.05, 0, 1.0]])
    with pytest.raises(ValueError, match="horizon"):
        warp_image(photo(40, 40), matrix, (40, 40))


@pytest.mark.parametrize(
    "matrix", [g.scaling(0.5, 0.5), g.scaling(1, 0.5), g.shear(60), g.compose(TILTED, g.scaling(0.3, 0.3))]
)
def test_an_image_of_a_batch_that_shrinks_is_antialiased_like_any_other(matrix: g.Matrix) -> None:
    import torch

    images = np.stack([photo(32, 32, seed) for seed in range(2)])
    both = np.stack([matrix, g.identity()])
    batch = warp_batch(torch.from_numpy(images).permute(0, 3, 1, 2), both, (32, 32)).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(batch[0], warp_image(images[0], matrix, (32, 32)))
    assert np.array_equal(batch[1], images[1])


def test_a_batch_goes_through_perspectives_of_its_own() -> None:
    import torch

    square = np.array([(0, 0), (32, 0), (32, 32), (0, 32)])
    dents = np.random.default_rng(0).uniform(0, 4, (5, 4, 2))
    matrices = g.perspective(square, square + dents * [(-1, -1), (1, -1), (1, 1), (-1, 1)])
    assert np.allclose(matrices[3], g.perspective(square, square + dents[3] * [(-1, -1), (1, -1), (1, 1), (-1, 1)]))
    images = np.stack([photo(32, 32, seed) for seed in range(5)])
    batch = warp_batch(torch.from_numpy(images).permute(0, 3, 1, 2), matrices, (32, 32)).permute(0, 2, 3, 1).numpy()
    for image, matrix, warped in zip(images, matrices, batch, strict=True):
        assert difference(warped, warp_image(image, matrix, (32, 32))) <= 2


def test_a_batch_of_another_kind_is_refused() -> None:
    import torch

    with pytest.raises(ValueError, match="a batch is uint8"):
        warp_batch(torch.zeros((1, 3, 8, 8)), g.identity()[None], (8, 8))
    with pytest.raises(ValueError, match="a batch is uint8"):
        warp_batch(torch.zeros((2, 3, 8, 8), dtype=torch.uint8), g.identity()[None], (8, 8))
