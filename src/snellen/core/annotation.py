"""What an image's owner says of one object in it: a box, and perhaps its outline, its mask or its keypoints. No torch.

Coordinates are those of ``core.geometry``: continuous pixels of the upright image (after EXIF), pixel (0, 0) covering
[0, 1) x [0, 1). Every format brings its own conventions here, and writes them back from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

Box = tuple[float, float, float, float]  # x0, y0, x1, y1
Polygon = tuple[float, ...]  # x, y, x, y, ...: one part of an object

MIN_VISIBLE = 0.3
"""Of an object's area, or of its pixels where these are known: with less of it left, a crop, or what covers it, has
taken the object away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rle:
    """A mask as COCO writes it: lengths of runs down the columns, the first of them outside of the object.

    size is (height, width), as in COCO files; counts sum to height * width.
    """

    size: tuple[int, int]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """One object.

    label      class name
    box        upright, x0 < x1 and y0 < y1, within the image
    polygons   its outline, a part each; empty when the owner gave none
    mask       its pixels, where the owner gave runs instead of outlines
    corners    four corners (x, y, ...) in order round a rotated box, of which ``box`` is the upright hull
    keypoints  (x, y, visibility) each; visibility 0 not labelled, 1 hidden, 2 seen
    crowd      a region of many objects that nobody told apart (COCO's iscrowd)
    difficult  not to be counted when it is missed (Pascal VOC)
    area       in pixels, as the file says; None: that of the mask or of the box
    source     what the file called it: its id, kept for writing back
    """

    label: str
    box: Box
    polygons: tuple[Polygon, ...] = ()
    mask: Rle | None = None
    corners: Polygon | None = None
    keypoints: tuple[tuple[float, float, int], ...] = ()
    crowd: bool = False
    difficult: bool = False
    area: float | None = None
    source: str | None = None

    @property
    def has_shape(self) -> bool:
        """Whether more than its box is known."""
        return bool(self.polygons) or self.mask is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskFile:
    """A class for each pixel, in an image file of its own.

    values  what stands in the file -> class index: a grey or palette index, or a colour packed as R << 16 | G << 8 | B.
            What is not in it is void: it is neither learnt nor judged
    colour  whether values are packed colours
    """

    path: Path
    values: Mapping[int, int]
    colour: bool = False
