"""A map of heat over a photograph, beside the photograph, with a legend and what is to be said of it."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from snellen.draw.pictures import Picture, enlarged, font, rgb
from snellen.draw.text import legible

# Even steps of matplotlib's "inferno" (CC0): lightness rises all the way, so that the order is seen with any colour
# vision, and in grey (Smith and van der Walt, SciPy 2015). Written down because matplotlib takes seconds to import.
_STEPS = np.array(
    [
        (0, 0, 4),
        (11, 7, 36),
        (33, 12, 74),
        (61, 9, 101),
        (87, 16, 110),
        (113, 25, 110),
        (138, 34, 106),
        (163, 44, 97),
        (188, 55, 84),
        (210, 70, 68),
        (228, 90, 49),
        (241, 115, 29),
        (249, 142, 9),
        (252, 172, 17),
        (249, 203, 53),
        (242, 234, 105),
        (252, 255, 164),
    ],
    np.float32,
)
_SMALLEST = 480  # pixels of the longer side: smaller images are enlarged
_STRENGTH = 0.62  # of the colours; the rest is the photograph in grey, so that one sees what is hot
_DIM = 0.35  # of the light of what the model does not see
_PAPER, _INK = (27, 30, 34), (232, 234, 237)


def heat_colours(heat: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Values 0..1, [...] -> RGB [..., 3]: from black over purple and orange to pale yellow."""
    at = np.clip(heat, 0, 1) * (len(_STEPS) - 1)
    channels = [np.interp(at, np.arange(len(_STEPS)), _STEPS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def heat_over(
    image: NDArray[np.uint8], heat: NDArray[np.floating], seen: tuple[int, int, int, int]
) -> NDArray[np.uint8]:
    """``image`` [H, W, 3] in grey under the colours of ``heat`` [H, W]; what lies outside of ``seen`` (x0, y0, x1, y1)
    is dark and has none."""
    grey = image.astype(np.float32).mean(axis=2, keepdims=True)
    x0, y0, x1, y1 = seen
    out = np.broadcast_to(grey * _DIM, image.shape).copy()
    colours = heat_colours(heat[y0:y1, x0:x1]).astype(np.float32)
    out[y0:y1, x0:x1] = _mixed(grey[y0:y1, x0:x1], colours)
    return out.round().astype(np.uint8)


def _mixed(grey: NDArray[np.float32], colours: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(_STRENGTH * colours + (1 - _STRENGTH) * grey, np.float32)


def draw_heat(
    image: NDArray[np.uint8],
    heat: NDArray[np.floating],
    *,
    photograph: Picture,
    seen: tuple[int, int, int, int],
    lines: Sequence[str],
    hottest: str,
) -> Image.Image:
    """The photograph, beside it ``heat`` [H, W] over ``image`` [H, W, 3], and below them ``lines`` and a legend.

    photograph  what stands on the left: the image, or the image with the answer drawn on it
    hottest     what the last colour of the legend stands for
    """
    left = enlarged(rgb(photograph), _SMALLEST)
    right = enlarged(rgb(heat_over(image, heat, seen)), _SMALLEST)
    size = max(14, round(max(right.size) / 40))
    letters, gap = font(size), size // 2
    width, height = left.width + gap + right.width, max(left.height, right.height)
    pen = ImageDraw.Draw(left)
    fitting = max(10, int(left.width / max(1.0, pen.textlength("n", letters))))
    told = [part for line in lines for part in wrap(legible(line, 400), fitting)]
    below = max((len(told) + 1) * round(1.5 * size), 4 * size)
    sheet = Image.new("RGB", (width, height + below), _PAPER)
    sheet.paste(left, (0, 0))
    sheet.paste(right, (left.width + gap, 0))
    pen = ImageDraw.Draw(sheet)
    for i, line in enumerate(told):
        pen.text((gap, height + gap + round(1.5 * size) * i), line, font=letters, fill=_INK)
    _legend(sheet, (left.width + gap, height + gap), right.width, size, hottest)
    return sheet


def _legend(sheet: Image.Image, corner: tuple[int, int], width: int, size: int, hottest: str) -> None:
    """The colours as they look over middle grey, and what their ends stand for."""
    x, y = corner
    colours = heat_colours(np.linspace(0, 1, width - size // 2)).astype(np.float32)
    bar = _mixed(np.full((1, 1), 128, np.float32), colours).round().astype(np.uint8)
    sheet.paste(Image.fromarray(np.repeat(bar[None], size, axis=0)), (x, y))
    pen, letters = ImageDraw.Draw(sheet), font(size)
    pen.text((x, y + round(1.3 * size)), "0", font=letters, fill=_INK)
    end = x + width - size // 2
    pen.text((end, y + round(1.3 * size)), f"1: {legible(hottest, 60)}", font=letters, fill=_INK, anchor="ra")
