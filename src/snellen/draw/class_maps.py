"""A class for each pixel, as colours over the image with their names below it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from snellen.draw.palette import colour_of
from snellen.draw.pictures import Picture, enlarged, font, rgb
from snellen.draw.text import legible

VOID = 255

_OPACITY = 0.5  # of a class's colour; its outline is solid
_HATCH = 6  # pixels from one line of the void's hatching to the next
_SMALLEST = 480  # pixels of the longer side: smaller images are enlarged
_PAPER, _INK, _GREY = (27, 30, 34), (232, 234, 237), (128, 128, 128)
_LONGEST_NAME = 24


def draw_class_map(
    image: Picture, classes: NDArray[np.uint8], names: Sequence[str], *, clear: int | None = None
) -> Image.Image:
    """``image`` with ``classes`` uint8 [H, W] over it, each in its colour, and below it the names of those it shows.

    classes  of the whole image, at whatever size; 255 is void, which is hatched grey
    clear    a class that leaves the image as it is, such as a background
    """
    picture = enlarged(rgb(image), _SMALLEST)
    spread = np.asarray(Image.fromarray(classes).resize(picture.size, Image.Resampling.NEAREST))
    coloured = _coloured(np.asarray(picture), spread, clear)
    shown = [int(i) for i in np.unique(classes) if i != VOID and i < len(names) and i != clear]
    entries = [(names[i], colour_of(i)) for i in shown]
    if (classes == VOID).any():
        entries.append(("void", _GREY))
    return _with_legend(Image.fromarray(coloured), entries)


def _coloured(pixels: NDArray[np.uint8], classes: NDArray[np.uint8], clear: int | None) -> NDArray[np.uint8]:
    colours = np.array([colour_of(i) for i in range(VOID)] + [_GREY], np.float32)[classes]
    opacity = np.where(_outlines(classes), 1.0, _OPACITY)
    across, down = np.arange(classes.shape[1]), np.arange(classes.shape[0])[:, None]
    opacity = np.where((classes == VOID) & ((across + down) % _HATCH > 1), 0.2, opacity)
    if clear is not None:
        opacity = np.where(classes == clear, 0.0, opacity)
    mixed = pixels + opacity[..., None] * (colours - pixels)
    return np.asarray(mixed.round(), np.uint8)


def _outlines(classes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels that have another class to the right of them or below."""
    edge = np.zeros(classes.shape, np.bool_)
    edge[:, :-1] |= classes[:, :-1] != classes[:, 1:]
    edge[:-1] |= classes[:-1] != classes[1:]
    return edge


def _with_legend(picture: Image.Image, entries: Sequence[tuple[str, tuple[int, int, int]]]) -> Image.Image:
    """A strip below the picture: a patch of each colour with its name, in as many rows as it takes."""
    size = max(12, round(picture.width / 40))
    letters = font(size)
    pen = ImageDraw.Draw(picture)
    places: list[tuple[int, int]] = []
    x = row = 0
    for name, _ in entries:
        wide = 2 * size + round(pen.textlength(legible(name, _LONGEST_NAME), letters)) + size
        if x and x + wide > picture.width:
            x, row = 0, row + 1
        places.append((x, row))
        x += wide
    step = 2 * size
    sheet = Image.new("RGB", (picture.width, picture.height + (row + 1) * step), _PAPER)
    sheet.paste(picture, (0, 0))
    pen = ImageDraw.Draw(sheet)
    for (name, colour), (x, row) in zip(entries, places, strict=True):
        top = picture.height + row * step
        pen.rectangle((x + size // 2, top + size // 2, x + size // 2 + size, top + size // 2 + size), fill=colour)
        pen.text((x + 2 * size, top + size), legible(name, _LONGEST_NAME), font=letters, fill=_INK, anchor="lm")
    return sheet
