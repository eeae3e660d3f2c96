"""The one resampling: an image, a mask or a batch of tiny images through one matrix, and a smooth field after it.

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
from snellen.data.elastic import ElasticField, pixel_centres

if TYPE_CHECKING:
    import torch

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

FILL: Colour = (124, 116, 104)  # the mean of ImageNet's training pixels, which normalises to about zero
MAX_BILINEAR_SHRINK = sqrt(2.0)  # see _shrink_first

_MOST_CROPPED = 16  # times the output, to which an image is resized as a whole although only a part is used

_SWAP_AXES = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def warp_image(
    image: Pixels, matrix: Matrix, size: Size, *, fill: Colour = FILL, field: ElasticField | None = None
) -> Pixels:
    """image uint8 [H, W, 3] through ``matrix`` and ``field`` -> uint8 [height, width, 3] of ``size``, antialiased.

    Scale, crop, shift, flips and quarter turns are Pillow's antialiased BILINEAR resize with a fractional box. Under a
    ``squash`` or ``center_crop`` matrix that is the resize of the whole image followed by a crop of whole pixels.
    Other matrices shrink first where they shrink, then sample once, bilinearly. Perspective is shrunk by what it does
    at the middle of the output, so its far end may alias; what a field shrinks here and there may alias as well.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"an image is uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    if field is not None:
        return _sample_bent(image, matrix, field, size, fill)
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
    whole = _whole_pixels(matrix, (in_width, in_height), size)
    if whole is None:
        resized = _stretch(image, (x0, y0, x1, y1), (right - left, bottom - top))
    else:
        resized = _whole(image, whole, (left, top, right, bottom), matrix)
    if resized.size == size:
        out = np.array(resized)
    else:
        out = _filled(size, fill)
        out[top:bottom, left:right] = np.asarray(resized)
    if flip_x or flip_y:
        out = out[:: -1 if flip_y else 1, :: -1 if flip_x else 1].copy()
    return out


def _whole_pixels(matrix: Matrix, in_size: Size, size: Size) -> Size | None:
    """The size that the matrix resizes the whole image to, where that and its place are whole pixels, and most of it is
    used: the way of squash, letterbox and centre crop."""
    scale, place = np.array([matrix[0, 0], matrix[1, 1]]), np.array([matrix[0, 2], matrix[1, 2]])
    resized = scale * in_size
    if np.any(np.abs(resized - resized.round()) > 1e-6) or np.any(np.abs(place - place.round()) > 1e-6):
        return None
    width, height = (int(length) for length in resized.round())
    return (width, height) if width * height <= _MOST_CROPPED * size[0] * size[1] else None


def _whole(image: Pixels, resized: Size, shown: tuple[int, int, int, int], matrix: Matrix) -> Image.Image:
    """The image resized to ``resized``, of which the part is kept that is ``shown`` (left, top, right, bottom)."""
    dx, dy = round(matrix[0, 2]), round(matrix[1, 2])
    left, top, right, bottom = shown
    source = Image.fromarray(np.ascontiguousarray(image))
    rows = source.resize((resized[0], source.height), Image.Resampling.BILINEAR)
    if (left - dx, right - dx) != (0, resized[0]):
        rows = rows.crop((left - dx, 0, right - dx, source.height))
    columns = rows.resize((rows.width, resized[1]), Image.Resampling.BILINEAR)
    return columns.crop((0, top - dy, columns.width, bottom - dy))


def _stretch(image: Pixels, box: tuple[float, float, float, float], size: Size) -> Image.Image:
    """The stretch (x0, y0, x1, y1) of the image, which may leave it by half an output pixel, resized to ``size``."""
    x0, y0, x1, y1 = box
    in_height, in_width = image.shape[:2]
    # The piece that the filter can see, so that what is cropped away is not copied.
    rows, y0, y1 = _seen(y0, y1, in_height, size[1])
    columns, x0, x1 = _seen(x0, x1, in_width, size[0])
    piece = image[max(rows[0], 0) : rows[1], max(columns[0], 0) : columns[1]]
    beyond = [(max(-low, 0), max(high - length, 0)) for (low, high), length in ((rows, in_height), (columns, in_width))]
    if any(map(any, beyond)):
        piece = np.pad(piece, (*beyond, (0, 0)), mode="edge")
    return _resized(Image.fromarray(piece), size, (x0, y0, x1, y1))


def _resized(source: Image.Image, size: Size, box: tuple[float, float, float, float]) -> Image.Image:
    """Pillow's antialiased resize of a stretch of the source, rows first and then columns.

    In two calls: since version 13 Pillow takes the columns first where that is less work, and as each pass rounds to
    whole grey levels a quarter of the pixels would differ by one from what an older Pillow, or a graph, makes of them.
    """
    x0, y0, x1, y1 = box
    rows = source.resize((size[0], source.height), Image.Resampling.BILINEAR, box=(x0, 0, x1, source.height))
    return rows.resize(size, Image.Resampling.BILINEAR, box=(0, y0, size[0], y1))


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


def _sample_bent(image: Pixels, matrix: Matrix, field: ElasticField, size: Size, fill: Colour) -> Pixels:
    """Of the ways to sample anywhere, torch's is the fastest: a sixth of the time of SciPy's ``map_coordinates``."""
    import torch

    back = invert(matrix)
    points = field.moved_pixels(size)
    origin = _mapped(back, points)
    shrink_x, shrink_y = _shrink_at(matrix, *map_points(back, (size[0] / 2, size[1] / 2)))
    margin = ceil(2 * max(shrink_x, shrink_y)) + 2
    x, y = origin[..., 0], origin[..., 1]
    extremes = np.array([(x.min(), y.min()), (x.max(), y.max())])  # 10 times as fast as along two axes at once
    piece, (left, top) = _piece_around(image, extremes, margin)
    if piece.size == 0:
        return _filled(size, fill)
    small, to_small = _shrink_first(Image.fromarray(piece), shrink_x, shrink_y)
    grid = _mapped(compose(back, translation(-left, -top), to_small, _to_grid(small.size)), points)
    pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None]
    return _sample_grid(pixels, torch.from_numpy(grid)[None], fill)[0].permute(1, 2, 0).contiguous().numpy()


def _mapped(matrices: Matrix, points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """``map_points`` for a matrix [3, 3] or a stack [B, 3, 3] and points [(B,) height, width, 2], in half the bits."""
    affine = is_affine(matrices)
    entries = (matrices / matrices[..., 2:, 2:] if affine else matrices).astype(np.float32)[..., None, None]
    x, y = points[..., 0], points[..., 1]

    def row(number: int) -> npt.NDArray[np.float32]:
        a, b, c = entries[..., number, 0, :, :], entries[..., number, 1, :, :], entries[..., number, 2, :, :]
        return np.asarray(a * x + b * y + c, np.float32)

    if affine:
        return np.stack([row(0), row(1)], axis=-1)
    depth = row(2)
    if not depth.min() > 0.0:
        raise ValueError("a point lies beyond the horizon of the perspective (or is not a number)")
    return np.stack([row(0) / depth, row(1) / depth], axis=-1)


def _to_grid(size: Size) -> Matrix:
    """From pixels to ``grid_sample``'s coordinates: from -1 to 1 over the image, edge to edge (align_corners=False)."""
    return compose(crop_resize((0, 0, *size), (2, 2)), translation(-1, -1))


def _sample_grid(images: torch.Tensor, grid: torch.Tensor, fill: Colour) -> torch.Tensor:
    """images uint8 [B, 3, H, W] at grid [B, height, width, 2] -> uint8 [B, 3, height, width], bilinear."""
    import torch
    from torch.nn import functional

    sampled = functional.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    out = sampled.round_().to(torch.uint8)  # border padding keeps it within 0..255
    outside = (grid.abs().amax(dim=-1) > 1.0).unsqueeze(1)
    colour = torch.tensor(fill, dtype=torch.uint8, device=images.device).view(1, 3, 1, 1)
    return torch.where(outside, colour, out)


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


def warp_mask(
    mask: npt.NDArray[Any], matrix: Matrix, size: Size, *, ignore: int, field: ElasticField | None = None
) -> npt.NDArray[Any]:
    """mask [H, W] of integers through ``matrix`` and ``field`` -> [height, width], the same dtype.

    Each output pixel takes the value of the input pixel that its centre comes from ("nearest-exact"; the one to the
    right and below of an exact tie), or ``ignore`` from outside of the mask.
    """
    if mask.ndim != 2 or mask.dtype.kind not in "iub":
        raise ValueError(f"a mask is integers [H, W], got {mask.dtype} {list(mask.shape)}")
    aligned = field is None and is_axis_aligned(matrix)
    if aligned:
        mask, matrix = _upright(mask, matrix)
    back = compose(invert(matrix), translation(1e-9, 1e-9))  # rounding must not move a tie to the left
    height, width = mask.shape
    if aligned:  # rows and columns are independent: w + h numbers instead of w x h
        across, down = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5
        columns = np.floor(back[0, 0] * across + back[0, 2]).astype(np.int64)[None, :]
        rows = np.floor(back[1, 1] * down + back[1, 2]).astype(np.int64)[:, None]
    else:
        centres = pixel_centres(size) if field is None else field.moved_pixels(size)
        origin = np.floor(map_points(back, centres)).astype(np.int64)
        columns, rows = origin[..., 0], origin[..., 1]
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    values = mask[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]
    return np.where(inside, values, np.asarray(ignore, mask.dtype))


def warp_batch(
    images: torch.Tensor, matrices: Matrix, size: Size, *, fill: Colour = FILL, fields: ElasticField | None = None
) -> torch.Tensor:
    """images uint8 [B, 3, H, W] of one size, each through its matrix [B, 3, 3] -> uint8 [B, 3, height, width].

    For tiny images, where a call for each of them would cost more than its pixels. ``fields`` is a stack, one an image.
    A matrix that shrinks by more than sqrt(2) needs antialiasing, so its image goes through ``warp_image``.
    The others come out as they would there, to rounding, unless they shrink.
    """
    import torch

    if images.ndim != 4 or images.dtype != torch.uint8 or matrices.shape != (len(images), 3, 3):
        got = f"{images.dtype} {list(images.shape)} and {list(matrices.shape)}"
        raise ValueError(f"a batch is uint8 [B, 3, H, W] with matrices [B, 3, 3], got {got}")
    grid = _batch_grid(matrices, (images.shape[3], images.shape[2]), size, fields).to(images.device)
    out = _sample_grid(images, grid, fill)
    for i in np.flatnonzero(_most_shrunk(matrices, size) > MAX_BILINEAR_SHRINK + 1e-6):
        image = np.ascontiguousarray(images[i].permute(1, 2, 0).cpu().numpy())
        warped = warp_image(image, matrices[i], size, fill=fill, field=None if fields is None else fields[int(i)])
        out[i] = torch.from_numpy(warped).permute(2, 0, 1).to(images.device)
    return out


def _batch_grid(matrices: Matrix, in_size: Size, out_size: Size, fields: ElasticField | None) -> torch.Tensor:
    """Where each output pixel comes from, in ``grid_sample``'s coordinates, float32 [B, height, width, 2]."""
    import torch
    from torch.nn import functional

    if fields is None and is_affine(matrices):
        back = compose(invert(_to_grid(out_size)), invert(matrices), _to_grid(in_size))
        theta = torch.from_numpy(np.ascontiguousarray(back[:, :2] / back[:, 2:, 2:])).float()
        return functional.affine_grid(theta, [len(matrices), 3, out_size[1], out_size[0]], align_corners=False)
    back = compose(invert(matrices), _to_grid(in_size))
    points = pixel_centres(out_size) if fields is None else fields.moved_pixels(out_size)
    return torch.from_numpy(_mapped(back, points))


def _most_shrunk(matrices: Matrix, size: Size) -> npt.NDArray[np.float64]:
    """How many input pixels go into one output pixel, in the direction in which they are most; [B].

    As ``warp_image`` does, perspective is judged by what it does at the middle of the output.
    """
    slopes = matrices[:, :2, :2] / matrices[:, 2:, 2:]
    if not is_affine(matrices):
        back = invert(matrices)
        x, y, depth = (back @ (size[0] / 2, size[1] / 2, 1.0)).T[..., None, None]
        slopes = np.linalg.inv((back[:, :2, :2] - np.concatenate([x, y], axis=1) / depth * back[:, 2:, :2]) / depth)
    # The smaller singular value of a 2x2 matrix, from its Frobenius norm and its determinant.
    squares = (slopes**2).sum(axis=(1, 2))
    determinant = slopes[:, 0, 0] * slopes[:, 1, 1] - slopes[:, 0, 1] * slopes[:, 1, 0]
    largest = (squares + np.sqrt(np.maximum(squares**2 - 4 * determinant**2, 0.0))) / 2
    return np.asarray(np.sqrt(largest) / np.abs(determinant))
