"""Objects as translucent colours with outlines, and their names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from snellen.draw.boxes import SMALLEST, write_names
from snellen.draw.palette import colour_of
from snellen.draw.pictures import Picture, enlarged, rgb

_OPACITY = 0.45  # of an object's colour; its outline is solid

Piece = tuple[NDArray[np.bool_], NDArray[np.floating]]


def draw_instances(image: Picture, pieces: Sequence[Piece], names: Sequence[str], kinds: Sequence[int]) -> Image.Image:
    """``image`` with each object in the colour of its kind, the first ones in front, and its name where there is room.

    pieces  of each object a mask [h, w], and the box (x0, y0, x1, y1) in pixels of ``image`` that it fills
    """
    own = rgb(image)
    picture = enlarged(own, SMALLEST)
    scale = picture.width / own.width
    width = max(1, round(max(picture.size) / 320))
    pixels = np.asarray(picture).astype(np.float32)
    boxes = np.array([box * scale for _, box in pieces]).reshape(-1, 4)
    for (mask, _), box, kind in reversed(list(zip(pieces, boxes, kinds, strict=True))):
        _colour(pixels, mask, box, colour_of(kind), width)
    picture = Image.fromarray(pixels.round().astype(np.uint8))
    write_names(picture, boxes, names, kinds)
    return picture


def _colour(
    pixels: NDArray[np.float32],
    mask: NDArray[np.bool_],
    box: NDArray[np.floating],
    colour: tuple[int, int, int],
    width: int,
) -> None:
    """Lay a mask over float32 [H, W, 3], in place."""
    x0, y0 = (max(0, round(float(side))) for side in box[:2])
    x1, y1 = min(round(float(box[2])), pixels.shape[1]), min(round(float(box[3])), pixels.shape[0])
    if x0 >= x1 or y0 >= y1 or not mask.size:
        return
    spread = np.asarray(Image.fromarray(mask).resize((x1 - x0, y1 - y0), Image.Resampling.NEAREST))
    opacity = np.where(spread & ~_core(spread, width), 1.0, _OPACITY * spread)[..., None]
    piece = pixels[y0:y1, x0:x1]
    piece += opacity * (np.array(colour, np.float32) - piece)


def _core(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """The pixels of a mask further than ``width`` from its edge."""
    height, length = mask.shape
    core = mask.copy()
    padded = np.pad(mask, width)
    for step in (0, 2 * width):
        core &= padded[step : step + height, width : width + length]
        core &= padded[width : width + height, step : step + length]
    return core
