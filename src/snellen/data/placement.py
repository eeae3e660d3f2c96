"""Where the pixels of a variant go: everything that is a plane map, as one matrix an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Literal

import numpy as np

from snellen.core.geometry import Matrix, Size, compose, crop_resize, perspective, rotation, scaling, shear, translation
from snellen.data.augment import Augmentation
from snellen.data.draws import Floats, either_way, uniforms
from snellen.data.policies import policy_matrices, policy_steps

Fit = Literal["squash", "crop", "contain"]
FITS: Mapping[str, Fit] = {"squash": "squash", "center crop": "crop", "letterbox": "contain"}
"""How training images are cut, by how evaluation brings images to the input (``Preprocessing.fit``)."""

_DRAWS = 21  # 10 of them for what came first, then scale, rotate90 (2) and perspective (8)
_UNIT_SQUARE = np.array([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)])


def geometry(
    settings: Augmentation,
    seed: int,
    epoch: int,
    sample_ids: Sequence[str],
    in_size: Size,
    out_size: Size,
    *,
    fit: Fit = "crop",
) -> Matrix:
    """Matrices [B, 3, 3] from images of ``in_size`` to ``out_size``, one a sample; each depends on its own key only.

    fit is how evaluation brings an image to ``out_size``, so that training sees things in the same proportions:
    "crop" cuts with the output's aspect ratio, "squash" with the image's own, "contain" cuts from the smallest frame of
    the output's aspect ratio that holds the whole image. With nothing to vary a matrix is that of
    ``core.geometry.center_crop`` (to the rounding of whole pixels), ``squash`` or ``letterbox``.
    The same count of numbers is drawn whatever the settings, so that switching one on leaves the others as they were.
    """
    draws = uniforms(seed, epoch, sample_ids, "geometry", _DRAWS)
    hflip, vflip, area, aspect, x, y, turn, lean, shift_x, shift_y = draws.T[:10]
    width, height = out_size
    centre = (width / 2, height / 2)
    shape = in_size if fit == "squash" else out_size
    cut = _frames if fit == "contain" else _crops
    steps = [crop_resize(cut(settings, area, aspect, x, y, in_size, shape), out_size)]
    if settings.hflip or settings.vflip:
        steps.append(scaling(np.where(hflip < settings.hflip, -1, 1), np.where(vflip < settings.vflip, -1, 1), centre))
    if settings.rotate90:
        steps.append(_quarter_turns(settings.rotate90, draws[:, 11], draws[:, 12], out_size))
    if settings.shear_degrees:
        steps.append(shear(either_way(lean, settings.shear_degrees), about=centre))
    if settings.rotate_degrees:
        steps.append(rotation(either_way(turn, settings.rotate_degrees), about=centre))
    if settings.scale != (1.0, 1.0):
        zoom = _between(settings.scale, draws[:, 10])
        steps.append(scaling(zoom, zoom, centre))
    if settings.translate:
        most = settings.translate
        steps.append(translation(either_way(shift_x, most * width), either_way(shift_y, most * height)))
    if settings.policy != "none":
        steps.append(policy_matrices(policy_steps(settings, seed, epoch, sample_ids), out_size))
    if settings.perspective:  # last, where the horizon cannot come near the output whatever went before
        corners = _UNIT_SQUARE + either_way(draws[:, 13:21], settings.perspective).reshape(-1, 4, 2)
        steps.append(perspective(_UNIT_SQUARE * out_size, corners * out_size))
    return compose(*steps)


def _between(limits: tuple[float, float], draw: Floats) -> Floats:
    """From the first limit to the second, evenly in the logarithm."""
    low, high = np.log(limits)
    return np.asarray(np.exp(low + draw * (high - low)))


def _quarter_turns(probability: float, whether: Floats, which: Floats, size: Size) -> Matrix:
    """Turned about the middle by 90, 180 or 270 degrees; an output that is no square is turned as if it were one."""
    turns = np.where(whether < probability, 1 + np.floor(3 * which), 0.0)
    cos, sin = np.rint(np.cos(turns * np.pi / 2)), np.rint(np.sin(turns * np.pi / 2))
    turned = np.zeros((len(turns), 3, 3))
    turned[:, 0, 0] = turned[:, 1, 1] = cos
    turned[:, 0, 1], turned[:, 1, 0] = -sin, sin
    turned[:, 2, 2] = 1.0
    width, height = size
    to_square = compose(translation(-width / 2, -height / 2), scaling(1 / width, 1 / height))
    return compose(to_square, turned, scaling(width, height), translation(width / 2, height / 2))


def _crops(
    settings: Augmentation, area: Floats, aspect: Floats, x: Floats, y: Floats, in_size: Size, shape: Size
) -> Floats:
    """Boxes [B, 4] inside the image with about the aspect ratio of ``shape``.

    torchvision draws area and aspect until the box fits, and gives up after 10 times. Drawing the aspect first and
    then the area among those that fit needs no second try.
    """
    ratio = shape[0] / shape[1] * _between(settings.aspect, aspect)
    widest = np.minimum(in_size[0], in_size[1] * ratio)  # the largest box of this ratio
    largest = widest * widest / ratio / prod(in_size)
    most = np.minimum(settings.area[1], largest)
    least = np.minimum(settings.area[0], most)
    kept = np.sqrt((least + area * (most - least)) / largest)
    crop_width, crop_height = widest * kept, widest / ratio * kept
    if settings.area[0] == 1.0:  # nothing is to be cropped but what does not fit: keep the middle
        x = y = np.full_like(area, 0.5)
    left, top = x * (in_size[0] - crop_width), y * (in_size[1] - crop_height)
    return np.stack([left, top, left + crop_width, top + crop_height], axis=1)


def _frames(
    settings: Augmentation, area: Floats, aspect: Floats, x: Floats, y: Floats, in_size: Size, shape: Size
) -> Floats:
    """Boxes [B, 4] with about the aspect ratio of ``shape``, cut from the frame round the whole image.

    Where a box is longer than the image, the image lies somewhere within it and the rest is filled.
    """
    ratio = shape[0] / shape[1] * _between(settings.aspect, aspect)
    whole = np.maximum(in_size[0], in_size[1] * ratio)  # the width of the smallest frame that holds the image
    low, high = settings.area
    width = whole * np.sqrt(low + area * (high - low))
    height = width / ratio
    if low == 1.0:
        x = y = np.full_like(area, 0.5)
    left, top = x * (in_size[0] - width), y * (in_size[1] - height)
    return np.stack([left, top, left + width, top + height], axis=1)
