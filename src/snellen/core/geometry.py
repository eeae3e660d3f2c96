"""Plane geometry as 3x3 matrices, for images and for everything that is drawn on them.

Conventions, used everywhere:

* A matrix maps input pixel coordinates to output pixel coordinates: ``(x', y', 1) ~ matrix @ (x, y, 1)``, float64.
* Coordinates are continuous: pixel (0, 0) covers [0, 1) x [0, 1) and its centre is at (0.5, 0.5). A horizontal flip is
  therefore x -> width - x for points and box edges alike, and nothing moves when it is done twice.
* ``size`` is (width, height).
* Angles turn from +x to +y, clockwise on the screen: ``rotation(10)`` adds 10 degrees to a rotated box's angle.
* A projective matrix is scaled so that its third output is positive for what can be seen; what it makes zero or
  negative lies beyond the horizon and is an error. Products and inverses keep that sign.

The matrix makers take numbers, or arrays of one shape [...] for a stack of matrices [..., 3, 3].
Bad arguments are a ValueError.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]  # [3, 3], or [..., 3, 3] where a stack is allowed
Points = npt.NDArray[np.float64]
Size = tuple[int, int]  # (width, height)

_TINY = 1e-9  # a linear term this small moves nothing: 1e-5 pixels over a 10,000 pixel image


def _affine(
    a: npt.ArrayLike, b: npt.ArrayLike, c: npt.ArrayLike, d: npt.ArrayLike, e: npt.ArrayLike, f: npt.ArrayLike
) -> Matrix:
    """x' = a x + b y + c;  y' = d x + e y + f."""
    matrix = np.zeros((*np.broadcast(a, b, c, d, e, f).shape, 3, 3))
    for place, entry in enumerate((a, b, c, d, e, f)):
        matrix[..., place // 3, place % 3] = entry
    matrix[..., 2, 2] = 1.0
    return matrix


def identity() -> Matrix:
    return np.eye(3)


def translation(dx: npt.ArrayLike, dy: npt.ArrayLike) -> Matrix:
    return _affine(1.0, 0.0, dx, 0.0, 1.0, dy)


def scaling(sx: npt.ArrayLike, sy: npt.ArrayLike, about: tuple[float, float] = (0.0, 0.0)) -> Matrix:
    sx, sy = np.asarray(sx, np.float64), np.asarray(sy, np.float64)
    return _affine(sx, 0.0, about[0] - sx * about[0], 0.0, sy, about[1] - sy * about[1])


def rotation(degrees: npt.ArrayLike, about: tuple[float, float] = (0.0, 0.0)) -> Matrix:
    """Clockwise on the screen about the point ``about``."""
    angle = np.radians(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = about
    return _affine(cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


def shear(degrees_x: npt.ArrayLike, degrees_y: npt.ArrayLike = 0.0, about: tuple[float, float] = (0.0, 0.0)) -> Matrix:
    """Vertical lines lean by ``degrees_x``, horizontal lines by ``degrees_y``; the point ``about`` stays."""
    along_x, along_y = np.tan(np.radians(degrees_x)), np.tan(np.radians(degrees_y))
    return _affine(1.0, along_x, -along_x * about[1], along_y, 1.0, -along_y * about[0])


def hflip(width: int) -> Matrix:
    return _affine(-1.0, 0.0, width, 0.0, 1.0, 0.0)


def vflip(height: int) -> Matrix:
    return _affine(1.0, 0.0, 0.0, 0.0, -1.0, height)


def rot90(turns: int, width: int, height: int) -> Matrix:
    """Quarter turns clockwise of an image of (width, height); odd turns give one of (height, width)."""
    match turns % 4:
        case 1:
            return _affine(0.0, -1.0, height, 1.0, 0.0, 0.0)
        case 2:
            return _affine(-1.0, 0.0, width, 0.0, -1.0, height)
        case 3:
            return _affine(0.0, 1.0, 0.0, -1.0, 0.0, width)
    return identity()


def crop_resize(box: npt.ArrayLike, size: Size) -> Matrix:
    """Maps ``box`` (x0, y0, x1, y1), or boxes [..., 4], onto (0, 0, width, height) of ``size``."""
    corners = np.asarray(box, np.float64)
    x0, y0, x1, y1 = corners[..., 0], corners[..., 1], corners[..., 2], corners[..., 3]
    if not (np.all(x1 > x0) and np.all(y1 > y0)):
        raise ValueError(f"a crop needs x1 > x0 and y1 > y0, got {corners.tolist()}")
    sx, sy = size[0] / (x1 - x0), size[1] / (y1 - y0)
    return _affine(sx, 0.0, -sx * x0, 0.0, sy, -sy * y0)


def squash(in_size: Size, out_size: Size) -> Matrix:
    """The whole image onto the whole output; the aspect ratio gives way."""
    return crop_resize((0, 0, *in_size), out_size)


def center_crop_steps(in_size: Size, out_size: Size, crop_fraction: float = 1.0) -> tuple[Size, tuple[int, int]]:
    """The two whole-pixel steps that ``center_crop`` stands for: (size of the resized whole image, (left, top)).

    The image is resized to cover ``out_size / crop_fraction``, then ``out_size`` is cut out at (left, top). Everything
    after the constant ``cover`` is integer arithmetic, so an exported graph can repeat it on symbolic sizes.
    """
    if not 0.0 < crop_fraction <= 1.0:
        raise ValueError(f"crop_fraction must be above 0 and at most 1, got {crop_fraction}")
    width, height = in_size
    cover = (round(out_size[0] / crop_fraction), round(out_size[1] / crop_fraction))
    resized = (
        max(cover[0], (2 * width * cover[1] + height) // (2 * height)),
        max(cover[1], (2 * height * cover[0] + width) // (2 * width)),
    )
    return resized, ((resized[0] - out_size[0]) // 2, (resized[1] - out_size[1]) // 2)


def center_crop(in_size: Size, out_size: Size, crop_fraction: float = 1.0) -> Matrix:
    """Resize the short side, then crop the centre; exactly the whole-pixel steps of ``center_crop_steps``."""
    resized, (left, top) = center_crop_steps(in_size, out_size, crop_fraction)
    return compose(squash(in_size, resized), translation(-left, -top))


def letterbox(in_size: Size, out_size: Size) -> Matrix:
    """The whole image inside the output, centred on whole pixels, its aspect ratio kept (to the rounding)."""
    width, height = in_size
    resized = (
        max(1, min(out_size[0], (2 * width * out_size[1] + height) // (2 * height))),
        max(1, min(out_size[1], (2 * height * out_size[0] + width) // (2 * width))),
    )
    offset = ((out_size[0] - resized[0]) // 2, (out_size[1] - resized[1]) // 2)
    return compose(squash(in_size, resized), translation(*offset))


def _square_to_quad(quad: Points) -> Matrix:
    """The unit square's corners (0,0) (1,0) (1,1) (0,1) onto ``quad`` [..., 4, 2] (Heckbert 1989, section 2.2.3)."""
    p0, p1, p2, p3 = np.moveaxis(quad, -2, 0)
    u, v, s = p1 - p2, p3 - p2, p0 - p1 + p2 - p3
    area = u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]
    if np.any(area == 0.0):
        raise ValueError(f"three of the four corners {quad.tolist()} are on one line")
    g = (s[..., 0] * v[..., 1] - s[..., 1] * v[..., 0]) / area
    h = (u[..., 0] * s[..., 1] - u[..., 1] * s[..., 0]) / area
    if not np.all(np.minimum(np.minimum(g, h), g + h) > _TINY - 1.0):
        raise ValueError(f"the four corners {quad.tolist()} must go round a convex shape")
    matrix = np.empty((*area.shape, 3, 3))
    matrix[..., :2, 0] = p1 - p0 + g[..., None] * p1
    matrix[..., :2, 1] = p3 - p0 + h[..., None] * p3
    matrix[..., :2, 2] = p0
    matrix[..., 2, 0], matrix[..., 2, 1], matrix[..., 2, 2] = g, h, 1.0
    return matrix


def perspective(from_points: npt.ArrayLike, to_points: npt.ArrayLike) -> Matrix:
    """The projective map that takes four corners [..., 4, 2] of a convex shape, in order, to four others."""
    source, target = (np.asarray(points, np.float64) for points in (from_points, to_points))
    if source.shape[-2:] != (4, 2) or target.shape[-2:] != (4, 2):
        raise ValueError(f"a perspective needs 4 points and 4 points, got shapes {source.shape} and {target.shape}")
    return compose(invert(_square_to_quad(source)), _square_to_quad(target))


def compose(first: Matrix, *then: Matrix) -> Matrix:
    """One matrix that does ``first`` and then the others, from left to right."""
    product = first
    for matrix in then:
        product = matrix @ product
    return product


def invert(matrix: Matrix) -> Matrix:
    """The way back, of one matrix or of a stack."""
    determinant = np.linalg.det(matrix)
    if not np.all(np.abs(determinant) > 1e-15):
        raise ValueError("the matrix flattens the plane, so that it has no inverse")
    return np.asarray(np.linalg.inv(matrix), np.float64)


def is_affine(matrix: Matrix) -> bool:
    """True for one matrix, or a stack, without perspective."""
    return bool(np.all(np.abs(matrix[..., 2, :2]) <= 1e-12 * np.abs(matrix[..., 2, 2:])))


def is_axis_aligned(matrix: Matrix) -> bool:
    """True when rows stay rows or become columns: scale, crop, shift, flips and quarter turns only."""
    linear = np.abs(matrix[:2, :2] / matrix[2, 2])
    upright, turned = linear[0, 1] + linear[1, 0], linear[0, 0] + linear[1, 1]
    return is_affine(matrix) and bool(min(upright, turned) < _TINY)


def is_mirroring(matrix: Matrix) -> bool:
    """True when left and right hands change places."""
    return bool(np.linalg.det(matrix) < 0.0)


def map_points(matrix: Matrix, points: npt.ArrayLike) -> Points:
    """points [..., 2] in input pixels -> [..., 2] in output pixels."""
    points = np.asarray(points, np.float64)
    mapped = points @ matrix[:, :2].T + matrix[:, 2]
    depth = mapped[..., 2:]
    if not np.all(depth > 0.0):
        raise ValueError("a point lies beyond the horizon of the perspective (or is not a number)")
    return np.asarray(mapped[..., :2] / depth, np.float64)


def map_boxes(matrix: Matrix, boxes: npt.ArrayLike) -> Points:
    """boxes [n, 4] (x0, y0, x1, y1) -> the upright boxes [n, 4] round their mapped corners (looser when turned)."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    corners = map_points(matrix, boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2))
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def clip_boxes(boxes: npt.ArrayLike, size: Size) -> tuple[Points, Points]:
    """boxes [n, 4] cut to the image of ``size``, and the fraction [n] of each box's area that is left (0 for none)."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    clipped = np.clip(boxes, 0.0, [*size, *size])
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    left = np.prod(clipped[:, 2:] - clipped[:, :2], axis=1)
    return clipped, np.divide(left, area, out=np.zeros_like(left), where=area > 0.0)


def rotated_box_corners(boxes: npt.ArrayLike) -> Points:
    """boxes [n, 5] (cx, cy, w, h, radians) -> corners [n, 4, 2], in order round the box."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 5)
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    along = np.stack([cos, sin], axis=1) * boxes[:, 2:3] / 2
    across = np.stack([-sin, cos], axis=1) * boxes[:, 3:4] / 2
    offsets = np.stack([-along - across, along - across, along + across, across - along], axis=1)
    return np.asarray(boxes[:, None, :2] + offsets, np.float64)


def map_rotated_boxes(matrix: Matrix, boxes: npt.ArrayLike) -> Points:
    """boxes [n, 5] (cx, cy, w, h, radians) -> the rectangles of least area round their mapped corners [n, 5].

    The smallest rectangle shares a side with the shape (Freeman & Shapira 1975), so four directions are tried; the
    box's own width direction wins a tie, which keeps w and h what they were under turns, flips and uniform scaling.
    The angle comes back in [-pi/2, pi/2), where a rectangle is the same as one turned by half a turn.
    """
    corners = map_points(matrix, rotated_box_corners(boxes))  # [n, 4, 2]
    sides = np.roll(corners, -1, axis=1) - corners
    angles = np.arctan2(sides[..., 1], sides[..., 0])  # [n, 4 directions]
    axes = np.stack([np.cos(angles), np.sin(angles), -np.sin(angles), np.cos(angles)], axis=-1).reshape(-1, 4, 2, 2)
    spans = np.einsum("ndax,ncx->ndac", axes, corners)  # [n, direction, axis, corner]
    low, high = spans.min(axis=3), spans.max(axis=3)
    area = np.prod(high - low, axis=2)
    best = np.argmax(area <= area.min(axis=1, keepdims=True) * (1 + 1e-9) + 1e-12, axis=1)
    rows = np.arange(len(corners))
    low, high, axes, angle = low[rows, best], high[rows, best], axes[rows, best], angles[rows, best]
    extent = high - low
    # Directions 1 and 3 run along the box's height: name the extents so that w stays w.
    turned = best % 2 == 1
    extent[turned] = extent[turned, ::-1]
    angle = np.where(turned, angle - np.pi / 2, angle)
    centre = np.einsum("na,nax->nx", (low + high) / 2, axes)
    return np.column_stack([centre, extent, (angle + np.pi / 2) % np.pi - np.pi / 2])


def map_polygons(matrix: Matrix, polygons: Sequence[npt.ArrayLike]) -> list[Points]:
    """polygons, each [k, 2] -> the same with every corner mapped."""
    return [map_points(matrix, polygon) for polygon in polygons]


def map_keypoints(matrix: Matrix, keypoints: npt.ArrayLike, flip_pairs: Sequence[tuple[int, int]] = ()) -> Points:
    """keypoints [..., k, 3] (x, y, visibility) -> the same, mapped.

    flip_pairs names the places that swap when the matrix mirrors: (left eye, right eye), ... A keypoint of visibility 0
    is not labelled; it comes back as (0, 0, 0), as COCO writes it.
    """
    keypoints = np.asarray(keypoints, np.float64)
    if keypoints.ndim < 2 or keypoints.shape[-1] != 3:
        raise ValueError(f"keypoints have the shape [..., k, 3], got {keypoints.shape}")
    mapped = np.zeros_like(keypoints)
    labelled = keypoints[..., 2] > 0
    mapped[labelled, :2] = map_points(matrix, keypoints[labelled, :2])
    mapped[labelled, 2] = keypoints[labelled, 2]
    order = np.arange(keypoints.shape[-2])
    if is_mirroring(matrix):
        for left, right in flip_pairs:
            order[[left, right]] = order[[right, left]]
    return mapped[..., order, :]
