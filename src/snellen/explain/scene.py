"""An image that is explained: how it is shown, what of it the model looks at, and what takes the place of its parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from snellen.core.errors import ConfigError
from snellen.core.geometry import Size, clip_boxes, invert, map_boxes
from snellen.core.preprocessing import Preprocessing
from snellen.core.sample import Frame
from snellen.data.store import frame_of
from snellen.data.warp import FILL

Pixels = NDArray[np.uint8]
Heat = NDArray[np.float32]
Region = tuple[int, int, int, int]  # x0, y0, x1, y1 in whole pixels
Fill = Literal["blur", "grey"]

FILLS: tuple[Fill, ...] = ("blur", "grey")
MOST_SIDE = 1024  # pixels of the longer side of a map: finer than any network tells
_BLUR = 8  # the blur's standard deviation is so small a part of the short side: shapes are gone, colours stay


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """An image as it is explained.

    pixels  uint8 [H, W, 3], as it is shown: no larger than MOST_SIDE
    frame   how the image on disk becomes the input
    """

    pixels: Pixels
    frame: Frame

    @classmethod
    def of(cls, pixels: Pixels, size: Size, preprocessing: Preprocessing) -> Scene:
        """pixels uint8 [H, W, 3] of an image that is (width, height) on disk, perhaps decoded at a reduced scale."""
        return cls(shrunk(pixels, longest=MOST_SIDE), frame_of(size, preprocessing))

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of a map."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def seen(self) -> Region:
        """What the model looks at, in pixels of a map: less than all of it after a centre crop."""
        return seen_region(self.frame, (self.shape[1], self.shape[0]))


def seen_region(frame: Frame, size: Size) -> Region:
    """What the input shows of the image, in pixels of a copy of (width, height)."""
    box, _ = clip_boxes(map_boxes(invert(frame.matrix), [(0, 0, *frame.input_size)]), frame.size)
    scale = [size[0] / frame.size[0], size[1] / frame.size[1]] * 2
    x0, y0, x1, y1 = (round(float(each)) for each in box[0] * scale)
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def shrunk(pixels: Pixels, *, longest: int | None = None, shortest: int | None = None) -> Pixels:
    """With its longer (or shorter) side no longer than that; never enlarged."""
    height, width = pixels.shape[:2]
    wanted = longest / max(width, height) if longest is not None else (shortest or 1) / min(width, height)
    if wanted >= 1:
        return pixels
    size = (max(1, round(width * wanted)), max(1, round(height * wanted)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def check_fill(fill: str) -> Fill:
    """Raises ConfigError for anything but the two."""
    for known in FILLS:
        if fill == known:
            return known
    raise ConfigError(f"fill = '{fill}' is not known: use {' or '.join(FILLS)}")


def stand_in(pixels: Pixels, fill: Fill) -> Pixels:
    """What takes the place of removed pixels: the image so blurred that no shape is left, or the grey that networks
    take for nothing. Blur adds no edges and leaves colours; grey takes colours too (Fong and Vedaldi 2017,
    arXiv:1704.03296)."""
    if fill == "grey":
        return np.broadcast_to(np.array(FILL, np.uint8), pixels.shape)
    radius = max(2.0, min(pixels.shape[:2]) / _BLUR)
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def placed(cells: NDArray[np.floating], covers: Size, scene: Scene) -> Heat:
    """A map [h, w] of the input's cells -> [H, W] of the scene; 0 where the model does not look.

    covers  (width, height) in pixels of the input that the cells lie over. Between their centres, linear.
    """
    frame, (height, width) = scene.frame, scene.shape
    across, inside_x = _places(frame, 0, width, cells.shape[1], covers[0])
    down, inside_y = _places(frame, 1, height, cells.shape[0], covers[1])
    rows = _interpolated(np.asarray(cells, np.float32), down)
    heat = _interpolated(np.ascontiguousarray(rows.T), across).T
    return np.asarray(np.where(inside_y[:, None] & inside_x[None, :], heat, 0), np.float32)


def _places(
    frame: Frame, axis: int, num_out: int, num_cells: int, covered: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Where the centres of a map's pixels lie among the cells, and which of them the input shows: frames never turn."""
    on_disk = (np.arange(num_out) + 0.5) * frame.size[axis] / num_out
    in_input = frame.matrix[axis, axis] * on_disk + frame.matrix[axis, 2]
    inside = (in_input >= 0) & (in_input <= frame.input_size[axis])
    return np.clip(in_input * num_cells / covered - 0.5, 0, num_cells - 1), inside


def _interpolated(values: Heat, places: NDArray[np.float64]) -> Heat:
    """values [n, k] at n centres -> [len(places), k]"""
    below = np.floor(places).astype(int)
    above = np.minimum(below + 1, len(values) - 1)
    share = (places - below).astype(np.float32)[:, None]
    return np.asarray(values[below] * (1 - share) + values[above] * share, np.float32)


def scaled(change: NDArray[np.floating], floor: float) -> tuple[Heat, float]:
    """A map of changes -> 0..1, and the change that 1 stands for: the largest, but no less than ``floor``.

    So a map of next to nothing stays dark, where scaling by its own maximum would make noise glow.
    """
    change = np.maximum(np.nan_to_num(np.asarray(change, np.float64)), 0)
    peak = max(float(change.max(initial=0)), floor)
    heat = change / peak if peak > 0 else np.zeros_like(change)
    return heat.astype(np.float32), peak
