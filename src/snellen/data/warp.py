"""The one resampling: an image, a mask or a batch of tiny images through one matrix.

Training, evaluation, prediction and serving all come through here. ``core.geometry`` holds the conventions: a matrix
maps input to output pixel coordinates, pixel centres are at +0.5, and size is (width, height).

An output pixel is filled when its centre falls outside of the image; at the image's edge nothing is blended into it.
"""

from __future__ import annotations

from math import ceil, floor, hypot, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from snellen.core.geometry import (
    Matrix,
    Size,
    compose,
    crop_resize,
    hflip,
    invert,
    is_affine,
    is_axis_aligned,
    map_points,
    translation,
    vflip,
)

if TYPE_CHECKING:
    import torch

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

FILL: Colour = (124, 116, 104)  # the mean of ImageNet's training pixels, which normalises to about zero
MAX_BILINEAR_SHRINK = sqrt(2.0)  # see _shrink_first

_SWAP_AXES = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def warp_image(image: Pixels, matrix: Matrix, size: Size, *, fill: Colour = FILL) -> Pixels:
    """image uint8 [H, W, 3] through ``matrix`` -> uint8 [height, width, 3] of ``size``, bilinear, antialiased.

    Scale, crop, shift, flips and quarter turns are Pillow's antialiased BILINEAR resize with a fractional box. Under a
    ``squash`` or ``center_crop`` matrix that is the resize of the whole image followed by a crop of whole pixels.
    Other matrices shrink first where they shrink, then sample once. Perspective is shrunk by what it does at the
    middle of the output, so its far end may alias.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"an image is uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    if is_axis_aligned(matrix):
        return _resize_box(image, matrix, size, fill)
    return _sample(image, matrix, size, fill)


def _upright(image: npt.NDArray[Any], matrix: Matrix) -> tuple[npt.NDArray[Any], Matrix]:
    """An axis-aligned matrix that turns rows into columns, as a transposed image and a matrix that does not."""
    matrix = matrix / matrix[2, 2]
    if abs(matrix[0, 0]) < abs(matrix[0, 1]):
        return image.swapaxes(0, 1), matrix @ _SWAP_AXES
    return image, matrix


def _span(scale: float, offset: float, in_length: int, out_length: int) -> tuple[int, int, float, float]:
    """Along one axis, out = scale * in + offset: output pixels [first, last) and the stretch [low, high] they cover."""
    first = max(0, ceil(offset - 0.5))
    last = min(out_length, ceil(offset + scale * in_length - 0.5))
    return first, last, (first - offset) / scale, (last - offset) / scale


def _resize_box(image: Pixels, matrix: Matrix, size: Size, fill: Colour) -> Pixels:
    image, matrix = _upright(image, matrix)
    flip_x, flip_y = matrix[0, 0] < 0, matrix[1, 1] < 0
    if flip_x:
        matrix = compose(matrix, hflip(size[0]))
    if flip_y:
        matrix = compose(matrix, vflip(size[1]))
    in_height, in_width = image.shape[:2]
    left, right, x0, x1 = _span(matrix[0, 0], matrix[0, 2], in_width, size[0])
    top, bottom, y0, y1 = _span(matrix[1, 1], matrix[1, 2], in_height, size[1])
    if right <= left or bottom <= top:
        return _filled(size, fill)
    # The piece that the filter can see, so that what is cropped away is not copied.
    rows, y0, y1 = _seen(y0, y1, in_height, bottom - top)
    columns, x0, x1 = _seen(x0, x1, in_width, right - left)
    piece = image[max(rows[0], 0) : rows[1], max(columns[0], 0) : columns[1]]
    beyond = [(max(-low, 0), max(high - length, 0)) for (low, high), length in ((rows, in_height), (columns, in_width))]
    if any(map(any, beyond)):
        piece = np.pad(piece, (*beyond, (0, 0)), mode="edge")
    source = Image.fromarray(piece)
    resized = source.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=(x0, y0, x1, y1))
    if resized.size == size:
        out = np.array(resized)
    else:
        out = _filled(size, fill)
        out[top:bottom, left:right] = np.asarray(resized)
    if flip_x or flip_y:
        out = out[:: -1 if flip_y else 1, :: -1 if flip_x else 1].copy()
    return out


def _seen(low: float, high: float, length: int, num_out: int) -> tuple[tuple[int, int], float, float]:
    """Input pixels [start, stop) that a resize of [low, high] to ``num_out`` pixels reads; low and high from start.

    The stretch may leave [0, length] by up to half an output pixel; only then do start and stop leave it too. Less
    than a thousandth of a pixel is rounding, and is cut.
    """
    low, high = (0.0 if -1e-3 < low < 0 else low), (float(length) if 0 < high - length < 1e-3 else high)
    reach = ceil(max(1.0, (high - low) / num_out)) + 1
    start = floor(low) if low < 0 else max(0, floor(low) - reach)
    stop = ceil(high) if high > length else min(length, ceil(high) + reach)
    return (start, stop), low - start, high - start


def _filled(size: Size, fill: Colour) -> Pixels:
    return np.full((size[1], size[0], 3), fill, np.uint8)


def _sample(image: Pixels, matrix: Matrix, size: Size, fill: Colour) -> Pixels:
    back = invert(matrix)
    width, height = size
    corners = map_points(back, [(0, 0), (width, 0), (width, height), (0, height)])
    middle = map_points(back, (width / 2, height / 2))
    shrink_x, shrink_y = _shrink_at(matrix, middle[0], middle[1])
    piece, (left, top) = _piece_around(image, corners, margin=ceil(2 * max(shrink_x, shrink_y)) + 2)
    if piece.size == 0:
        return _filled(size, fill)
    source = Image.fromarray(piece)
    source, to_small = _shrink_first(source, shrink_x, shrink_y)
    coefficients = compose(back, translation(-left, -top), to_small)
    flat = (coefficients / coefficients[2, 2]).ravel().tolist()
    affine = is_affine(coefficients)
    out = source.transform(
        size,
        Image.Transform.AFFINE if affine else Image.Transform.PERSPECTIVE,
        flat[:6] if affine else flat[:8],
        resample=Image.Resampling.BILINEAR,
        fillcolor=fill,
    )
    return np.array(out)


def _shrink_at(matrix: Matrix, x: float, y: float) -> tuple[float, float]:
    """How many input pixels along x, and along y, go into one output pixel near the input point (x, y)."""
    u, v, depth = matrix @ (x, y, 1.0)
    jacobian = (matrix[:2, :2] - np.outer((u / depth, v / depth), matrix[2, :2])) / depth
    return 1.0 / hypot(*jacobian[:, 0]), 1.0 / hypot(*jacobian[:, 1])


def _piece_around(image: Pixels, corners: npt.NDArray[np.float64], margin: int) -> tuple[Pixels, tuple[int, int]]:
    """The part of the image within the corners' box and a margin, and its (left, top)."""
    height, width = image.shape[:2]
    low = np.clip(np.floor(corners.min(axis=0)) - margin, 0, (width, height)).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)) + margin, 0, (width, height)).astype(int)
    return image[low[1] : high[1], low[0] : high[0]], (int(low[0]), int(low[1]))


def _shrink_first(source: Image.Image, shrink_x: float, shrink_y: float) -> tuple[Image.Image, Matrix]:
    """The source antialiased to about the target scale, and the matrix that takes it there.

    Bilinear sampling has the variance of a triangle filter of the source's pixels, 1/6 pixel squared. Stopping at
    sqrt(2) times the target's resolution makes the two filters together as wide as the one triangle of the target's
    pixels that a plain antialiased resize uses: a turned image is as sharp as an upright one.
    """
    small = (
        max(1, round(source.width / max(1.0, shrink_x / MAX_BILINEAR_SHRINK))),
        max(1, round(source.height / max(1.0, shrink_y / MAX_BILINEAR_SHRINK))),
    )
    to_small = crop_resize((0, 0, *source.size), small)
    return (source if small == source.size else source.resize(small, Image.Resampling.BILINEAR)), to_small


def warp_mask(mask: npt.NDArray[Any], matrix: Matrix, size: Size, *, ignore: int) -> npt.NDArray[Any]:
    """mask [H, W] of integers through ``matrix`` -> [height, width], the same dtype.

    Each output pixel takes the value of the input pixel that its centre comes from ("nearest-exact"; the one to the
    right and below of an exact tie), or ``ignore`` from outside of the mask.
    """
    if mask.ndim != 2 or mask.dtype.kind not in "iub":
        raise ValueError(f"a mask is integers [H, W], got {mask.dtype} {list(mask.shape)}")
    aligned = is_axis_aligned(matrix)
    if aligned:
        mask, matrix = _upright(mask, matrix)
    back = compose(invert(matrix), translation(1e-9, 1e-9))  # rounding must not move a tie to the left
    height, width = mask.shape
    across, down = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5
    if aligned:  # rows and columns are independent: w + h numbers instead of w x h
        columns = np.floor(back[0, 0] * across + back[0, 2]).astype(np.int64)[None, :]
        rows = np.floor(back[1, 1] * down + back[1, 2]).astype(np.int64)[:, None]
    else:
        centres = np.floor(map_points(back, np.stack(np.meshgrid(across, down), axis=-1))).astype(np.int64)
        columns, rows = centres[..., 0], centres[..., 1]
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    values = mask[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]
    return np.where(inside, values, np.asarray(ignore, mask.dtype))


def warp_batch(images: torch.Tensor, matrices: Matrix, size: Size, *, fill: Colour = FILL) -> torch.Tensor:
    """images uint8 [B, 3, H, W] of one size, each through its matrix [B, 3, 3] -> uint8 [B, 3, height, width].

    For tiny images, where a call for each of them would cost more than its pixels. Affine only, and there is no
    antialiasing: a matrix that shrinks by more than sqrt(2) is a ValueError. A matrix that does not shrink gives what
    ``warp_image`` gives, to rounding.
    """
    import torch
    from torch.nn import functional

    if images.ndim != 4 or images.dtype != torch.uint8 or matrices.shape != (len(images), 3, 3):
        got = f"{images.dtype} {list(images.shape)} and {list(matrices.shape)}"
        raise ValueError(f"a batch is uint8 [B, 3, H, W] with matrices [B, 3, 3], got {got}")
    if not is_affine(matrices):
        raise ValueError("a batch is warped by affine matrices, got one with perspective: use warp_image")
    matrices = matrices / matrices[:, 2:, 2:]
    shrink = 1.0 / np.linalg.svd(matrices[:, :2, :2], compute_uv=False).min(initial=1.0)
    if shrink > MAX_BILINEAR_SHRINK + 1e-6:
        raise ValueError(f"a matrix of the batch shrinks {shrink:.2f} times, the limit is 1.41: use warp_image")
    height, width = images.shape[2:]
    # grid_sample's coordinates run from -1 to 1 over the image, edge to edge (align_corners=False).
    back = compose(crop_resize((-1, -1, 1, 1), size), invert(matrices), crop_resize((0, 0, width, height), (2, 2)))
    back = compose(back, translation(-1, -1))
    theta = torch.from_numpy(np.ascontiguousarray(back[:, :2])).float().to(images.device)
    grid = functional.affine_grid(theta, [len(images), 3, size[1], size[0]], align_corners=False)
    sampled = functional.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    out = sampled.round_().to(torch.uint8)  # border padding keeps it within 0..255
    outside = (grid.abs().amax(dim=-1) > 1.0).unsqueeze(1)
    colour = torch.tensor(fill, dtype=torch.uint8, device=images.device).view(1, 3, 1, 1)
    return torch.where(outside, colour, out)
