"""Grids of what channels show and of what excites them, a row for each depth or channel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from snellen.draw.heat import heat_colours
from snellen.draw.pictures import font
from snellen.draw.text import legible

_PAPER, _INK, _FAINT = (27, 30, 34), (232, 234, 237), (154, 160, 166)
_TILE, _GAP, _LETTERS = 128, 6, 13  # pixels
_FILTER = 48  # pixels of the side of a filter's tile
_MOST_FILTERS = 96

Pixels = NDArray[np.uint8]


def draw_channels(
    prepared: Pixels,
    names: Sequence[str],
    maps: Sequence[Sequence[NDArray[np.floating]]],
    captions: Sequence[Sequence[str]],
) -> Image.Image:
    """The input, and for each depth a row of its channels' maps [h, w], 0..1, each cell as large as it sees.

    names     a line above each row
    captions  below each map
    """
    size = _fitting(prepared)
    rows = [
        [Image.fromarray(heat_colours(each)).resize(size, Image.Resampling.NEAREST) for each in row] for row in maps
    ]
    first = [Image.fromarray(prepared).resize(size, Image.Resampling.BILINEAR)]
    told = ["what the network is fed", *(f"{name}: the channels that answer most" for name in names)]
    return _rows([first, *rows], told, [["input"], *captions], size)


def draw_patches(rows: Sequence[Sequence[Pixels]], names: Sequence[str]) -> Image.Image:
    """A row of patches [h, w, 3] of photographs for each channel, and its name above it."""
    side = (_TILE, _TILE)
    tiles = [[Image.fromarray(each).resize(side, Image.Resampling.BICUBIC) for each in row] for row in rows]
    return _rows(tiles, names, [[""] * len(row) for row in rows], side)


def draw_filters(filters: NDArray[np.floating], title: str) -> Image.Image:
    """filters [k, h, w, 3] -> tiles in colour, grey where a weight is 0; each scaled by its own largest weight.

    The first hundred or so, where there are more.
    """
    shown = filters[:_MOST_FILTERS]
    columns = min(12, len(shown))
    num_rows = -(-len(shown) // columns)
    step, top = _FILTER + _GAP, 2 * _LETTERS + _GAP
    width = max(columns * step + _GAP, 520)
    sheet = Image.new("RGB", (width, num_rows * step + top + _GAP), _PAPER)
    ImageDraw.Draw(sheet).text((_GAP, _GAP), legible(title), font=font(_LETTERS), fill=_INK)
    for i, each in enumerate(shown):
        unit = each / max(float(np.abs(each).max()), 1e-12)
        tile = Image.fromarray((127.5 * (1 + unit)).round().astype(np.uint8))
        place = (_GAP + (i % columns) * step, top + (i // columns) * step)
        sheet.paste(tile.resize((_FILTER, _FILTER), Image.Resampling.NEAREST), place)
    return sheet


def _rows(
    tiles: Sequence[Sequence[Image.Image]],
    names: Sequence[str],
    captions: Sequence[Sequence[str]],
    size: tuple[int, int],
) -> Image.Image:
    letters = font(_LETTERS)
    has_captions = any(any(row) for row in captions)
    step_y = size[1] + 2 * _LETTERS + (_LETTERS + _GAP if has_captions else 0) + _GAP
    columns = max(len(row) for row in tiles)
    width = max(columns * (size[0] + _GAP) + _GAP, 420)
    sheet = Image.new("RGB", (width, len(tiles) * step_y + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for i, (row, name, below) in enumerate(zip(tiles, names, captions, strict=True)):
        top = _GAP + i * step_y
        pen.text((_GAP, top), legible(name), font=letters, fill=_INK)
        for k, (tile, caption) in enumerate(zip(row, below, strict=True)):
            left = _GAP + k * (size[0] + _GAP)
            sheet.paste(tile, (left, top + 2 * _LETTERS - 4))
            pen.text((left, top + size[1] + 2 * _LETTERS), legible(caption, 24), font=letters, fill=_FAINT)
    return sheet


def _fitting(prepared: Pixels) -> tuple[int, int]:
    scale = _TILE / max(prepared.shape[:2])
    return max(1, round(prepared.shape[1] * scale)), max(1, round(prepared.shape[0] * scale))
