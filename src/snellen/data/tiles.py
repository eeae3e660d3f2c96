"""Images far larger than those that a model learnt from, looked at tile by tile: where the tiles are.

A tile is cut out of the image and then treated as an image of its own: prepared as any other, answered in its own
pixels, and what was answered is moved to where the tile lies (``Task.merge``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Self

from snellen.core.errors import ConfigError
from snellen.core.geometry import Size

Region = tuple[int, int, int, int]  # x0, y0, x1, y1 in whole pixels of the image

_OVERLAP = 0.2
_LEAST_SIDE = 16  # pixels of a tile; with less, a large photo has millions of them
_MOST_OVERLAP = 0.9  # of a tile's side: each pixel is then looked at a hundred times
_WISH = f"give a side of at least {_LEAST_SIDE} pixels, or width x height as 640x480"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """How large images are cut into tiles, and how the answers become one.

    tile     (width, height) in pixels of the image; the whole image where it is no larger in either direction
    overlap  the least share of a tile's side that its neighbour shows as well. An object no larger than the overlap is
             whole in at least one tile
    merge    one of the task's ``tile_merges``; None: its usual one
    """

    tile: Size
    overlap: float = _OVERLAP
    merge: str | None = None

    @classmethod
    def of(cls, tile: object, overlap: float | None = None, merge: str | None = None) -> Self | None:
        """``640``, ``'640x480'`` or ``(640, 480)``; None where no tile is asked for. Raises ConfigError."""
        if tile is None:
            if overlap is not None or merge is not None:
                raise ConfigError("tile_overlap and tile_merge say something of tiles: give tile as well, as 640x480")
            return None
        overlap = _OVERLAP if overlap is None else overlap
        if not 0 <= overlap <= _MOST_OVERLAP:
            raise ConfigError(f"tile_overlap = {overlap} is not a share from 0 to {_MOST_OVERLAP}: give one, as 0.2")
        return cls(tile=_sides(tile), overlap=overlap, merge=merge)

    def regions(self, size: Size, *, whole: bool) -> list[Region]:
        """Which parts of an image of ``size`` are looked at: its tiles row by row, and last, with ``whole``, all of it.

        One region, the image, where a tile holds it.
        """
        columns, rows = (_stretches(*each, self.overlap) for each in zip(size, self.tile, strict=True))
        tiles = [(x0, y0, x1, y1) for y0, y1 in rows for x0, x1 in columns]
        return [*tiles, (0, 0, *size)] if whole and len(tiles) > 1 else tiles


def nearest(regions: Sequence[Region]) -> list[Region]:
    """The part of each tile whose pixels are nearer to its middle than to any other's: together, all of the image.

    regions  the tiles of an image as ``Tiling.regions`` gives them, without the whole. A tie goes to the tile that lies
             further right and down.
    """
    columns, rows = (_shares((region[axis], region[axis + 2]) for region in regions) for axis in (0, 1))
    parts = ((columns[x0, x1], rows[y0, y1]) for x0, y0, x1, y1 in regions)
    return [(left, top, right, bottom) for (left, right), (top, bottom) in parts]


def _sides(tile: object) -> Size:
    match = re.fullmatch(r"(\d{1,9})(?:\s*x\s*(\d{1,9}))?", tile.strip()) if isinstance(tile, str) else None
    given = (int(match[1]), int(match[2] or match[1])) if match else tile
    sides = (given, given) if isinstance(given, int) else given
    if not isinstance(sides, list | tuple) or len(sides) != 2:
        raise ConfigError(f"tile = {tile!r} is not a size: {_WISH}")
    width, height = sides
    if not all(isinstance(side, int) and not isinstance(side, bool) and side >= _LEAST_SIDE for side in sides):
        raise ConfigError(f"tile = {tile!r} is not a size: {_WISH}")
    return width, height


def _stretches(length: int, tile: int, overlap: float) -> list[tuple[int, int]]:
    """Along one axis: as few as are needed, evenly spread, the first at one end and the last at the other."""
    if tile >= length:
        return [(0, length)]
    step = max(1, int(tile * (1 - overlap) + 1e-9))  # 100 * (1 - 0.9) is a little less than 10
    steps = ceil((length - tile) / step)
    starts = (i * (length - tile) // steps for i in range(steps + 1))
    return [(start, start + tile) for start in starts]


def _shares(stretches: Iterable[tuple[int, int]]) -> dict[tuple[int, int], tuple[int, int]]:
    """Along one axis: between the middles of each two neighbours the halfway point, rounded to whole pixels."""
    order = sorted(set(stretches))
    middles = [start + end for start, end in order]  # twice the middle
    bounds = [(one + other + 1) // 4 for one, other in pairwise(middles)]
    edges = [order[0][0], *bounds, order[-1][1]]
    return dict(zip(order, pairwise(edges), strict=True))
