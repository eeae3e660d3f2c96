"""Pictures of pictures: small copies, sheets of many with captions, and one with words on it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from snellen.core.errors import ImageError
from snellen.draw.text import legible

Picture = NDArray[np.uint8] | Image.Image  # an array is [H, W, 3] RGB

_PAPER, _INK = (27, 30, 34), (232, 234, 237)  # dark like a contact sheet: it disturbs neither a light nor a dark page
_CAPTION_SIZE = 12  # pixels
_GAP = 8  # pixels


def thumbnail(picture: Picture, max_side: int, *, quality: int = 80) -> bytes:
    """A WebP of ``picture`` whose longer side is at most ``max_side`` pixels; smaller pictures keep their size.

    The same picture gives the same bytes, so that copies can be told by their content.
    """
    small = rgb(picture)
    small.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    written = io.BytesIO()
    small.save(written, "WEBP", quality=quality, method=4)
    return written.getvalue()


def contact_sheet(images: Sequence[NDArray[np.uint8]], captions: Sequence[str], columns: int = 6) -> Image.Image:
    """``images`` in rows of ``columns``, each with its caption below it, in the order given.

    Images smaller than 96 pixels are enlarged by a whole factor, so that every pixel the model gets can be seen.
    Raises ImageError when there are no images, or not one caption for each.
    """
    if not images or len(images) != len(captions):
        raise ImageError(f"a contact sheet needs a caption for each image, got {len(images)} and {len(captions)}")
    tiles = [enlarged(rgb(image), 96) for image in images]
    width = max(tile.width for tile in tiles)
    height = max(tile.height for tile in tiles)
    columns = max(1, min(columns, len(tiles)))
    num_rows = -(-len(tiles) // columns)
    step_x, step_y = width + _GAP, height + _CAPTION_SIZE + 2 * _GAP
    sheet = Image.new("RGB", (columns * step_x + _GAP, num_rows * step_y + _GAP), _PAPER)
    pen, letters = ImageDraw.Draw(sheet), font(_CAPTION_SIZE)
    for i, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        left, top = _GAP + (i % columns) * step_x, _GAP + (i // columns) * step_y
        sheet.paste(tile, (left + (width - tile.width) // 2, top + (height - tile.height) // 2))
        pen.text((left, top + height + 4), _fitted(pen, caption, letters, width), font=letters, fill=_INK)
    return sheet


def draw_label(image: Picture, text: str) -> Image.Image:
    """``image`` with ``text`` on a strip below it: nothing of the image is covered. Small images are enlarged."""
    picture = enlarged(rgb(image), 160)
    size = max(14, round(picture.width / 24))
    letters = font(size)
    labelled = Image.new("RGB", (picture.width, picture.height + 2 * size), _PAPER)
    labelled.paste(picture, (0, 0))
    pen = ImageDraw.Draw(labelled)
    line = _fitted(pen, text, letters, picture.width - size)
    pen.text((size // 2, picture.height + size), line, font=letters, fill=_INK, anchor="lm")
    return labelled


@cache
def font(size: int) -> Any:
    """DejaVu Sans, which lies beside matplotlib and has Greek, Cyrillic and arrows; else Pillow's own (Latin)."""
    matplotlib = find_spec("matplotlib")  # found, not imported: that takes seconds
    if matplotlib is not None and matplotlib.origin is not None:
        file = Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if file.is_file():
            return ImageFont.truetype(file, size)
    return ImageFont.load_default(size)


def rgb(picture: Picture) -> Image.Image:
    """A copy in RGB."""
    if isinstance(picture, Image.Image):
        return picture.convert("RGB") if picture.mode != "RGB" else picture.copy()
    return Image.fromarray(np.ascontiguousarray(picture))


def enlarged(picture: Image.Image, side: int) -> Image.Image:
    """By a whole factor, until the longer side has ``side`` pixels."""
    factor = -(-side // max(picture.size))
    return picture if factor <= 1 else picture.resize((picture.width * factor, picture.height * factor), 0)


def _fitted(pen: ImageDraw.ImageDraw, text: str, letters: Any, width: int) -> str:
    """As much of ``text`` as fits into ``width`` pixels."""
    line = legible(text, 200)
    length = len(line)
    while length > 1 and pen.textlength(line, letters) > width:
        length = min(length - 1, int(length * width / pen.textlength(line, letters)) + 1)
        line = legible(text, length)
    return line
