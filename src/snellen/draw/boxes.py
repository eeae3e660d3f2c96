"""Boxes with their names on an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from snellen.draw.palette import colour_of
from snellen.draw.pictures import Picture, enlarged, font, rgb
from snellen.draw.text import legible

SMALLEST = 480  # pixels of the longer side: smaller images are enlarged, so that lines and names do not cover them
_LONGEST_NAME = 24


def draw_boxes(image: Picture, boxes: NDArray[np.floating], names: Sequence[str], kinds: Sequence[int]) -> Image.Image:
    """``image`` with each box [n, 4] (in its pixels) in the colour of its kind, and its name where there is room."""
    own = rgb(image)
    picture = enlarged(own, SMALLEST)
    boxes = boxes * (picture.width / own.width)
    pen = ImageDraw.Draw(picture)
    width = max(1, round(max(picture.size) / 320))
    for box, kind in zip(boxes, kinds, strict=True):
        pen.rectangle(_inside(box, picture), outline=colour_of(kind), width=width)
    write_names(picture, boxes, names, kinds)
    return picture


def draw_questions(image: Picture, boxes: NDArray[np.floating], questions: Sequence[str]) -> Image.Image:
    """``image`` with each box [n, 4] (in its pixels) in dashes of white and black, whatever lies below, and a question
    inside it."""
    picture = rgb(image)
    pen = ImageDraw.Draw(picture)
    width = max(1, round(max(picture.size) / 240))
    letters = font(max(11, round(max(picture.size) / 40)))
    for box, question in zip(boxes, questions, strict=True):
        x0, y0, x1, y1 = _inside(box, picture)
        pen.rectangle((x0, y0, x1, y1), outline=(0, 0, 0), width=width)
        for start, end in (((x0, y0), (x1, y0)), ((x0, y1), (x1, y1)), ((x0, y0), (x0, y1)), ((x1, y0), (x1, y1))):
            _dash(pen, np.array(start), np.array(end), width)
        place = ((x0 + x1) / 2, (y0 + y1) / 2)
        pen.text(
            place,
            legible(question, _LONGEST_NAME),
            (255, 255, 255),
            letters,
            "mm",
            stroke_width=2,
            stroke_fill=(0, 0, 0),
        )
    return picture


def _dash(pen: ImageDraw.ImageDraw, start: NDArray[np.floating], end: NDArray[np.floating], width: int) -> None:
    length = float(np.abs(end - start).sum())
    for along in np.arange(0, length, 8 * width):
        one, other = (start + (end - start) * min(each / length, 1.0) for each in (along, along + 4 * width))
        pen.line([tuple(one), tuple(other)], fill=(255, 255, 255), width=width)


def write_names(picture: Image.Image, boxes: NDArray[np.floating], names: Sequence[str], kinds: Sequence[int]) -> None:
    """Write onto ``picture`` the name of each box [n, 4], above it or below it.

    Names that would lie on an earlier name are left out: the colour still tells the kind.
    """
    pen = ImageDraw.Draw(picture)
    letters = font(max(11, round(max(picture.size) / 52)))
    written: list[tuple[float, float, float, float]] = []
    for box, name, kind in zip(boxes, names, kinds, strict=True):
        x0, y0, _, y1 = (float(each) for each in box)
        text = legible(name, _LONGEST_NAME)
        left, _, right, bottom = pen.textbbox((0, 0), text, font=letters)
        wide, high = right - left + 4, bottom + 3
        x = min(max(0.0, x0), max(0.0, picture.width - wide))
        y = y0 - high if y0 >= high else min(y1, picture.height - high)
        place = (x, y, x + wide, y + high)
        if any(_overlap(place, other) for other in written):
            continue
        written.append(place)
        pen.rectangle(place, fill=colour_of(kind))
        pen.text((x + 2, y + 1), text, font=letters, fill=(0, 0, 0))


def _inside(box: NDArray[np.floating], picture: Image.Image) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (float(each) for each in box)
    return x0, y0, min(max(x0, x1 - 1), picture.width - 1), min(max(y0, y1 - 1), picture.height - 1)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def beside(left: Image.Image, right: Image.Image, captions: tuple[str, str]) -> Image.Image:
    """Two pictures of one size side by side, each with its caption above it."""
    size = max(14, round(left.width / 28))
    letters = font(size)
    sheet = Image.new("RGB", (left.width + right.width + size // 2, left.height + 2 * size), (27, 30, 34))
    pen = ImageDraw.Draw(sheet)
    for x, picture, caption in ((0, left, captions[0]), (left.width + size // 2, right, captions[1])):
        sheet.paste(picture, (x, 2 * size))
        pen.text((x + size // 2, size), caption, font=letters, fill=(232, 234, 237), anchor="lm")
    return sheet
