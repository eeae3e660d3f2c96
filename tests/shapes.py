"""Synthetic shapes on noisy backgrounds, as files: data that a tiny network learns in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle")
# How each shape is drawn in a box (left, top, right, bottom), and the colour channel that it brightens most.
_CHANNEL = {"circle": 0, "square": 1, "triangle": 2}


def picture(rng: np.random.Generator, kinds: Sequence[str], side: int) -> np.ndarray:
    """uint8 [side, side, 3]: each of ``kinds`` once, in a place and colour of its own, on noise."""
    noise = rng.integers(0, 90, (side, side, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    pen = ImageDraw.Draw(image)
    places = rng.permutation(4)[: len(kinds)]
    for place, kind in zip(places, kinds, strict=True):
        _draw(pen, kind, _box(rng, int(place), side, alone=len(kinds) == 1), _colour(rng, kind))
    return np.asarray(image)


def _box(rng: np.random.Generator, place: int, side: int, *, alone: bool) -> tuple[float, float, float, float]:
    """Somewhere in the image, or in its quarter number ``place``."""
    room = side if alone else side // 2
    size = int(rng.integers(room // 2, room * 3 // 4 + 1))
    x, y = (0, 0) if alone else (place % 2 * room, place // 2 * room)
    left, top = x + int(rng.integers(0, room - size + 1)), y + int(rng.integers(0, room - size + 1))
    return left, top, left + size - 1, top + size - 1


def _colour(rng: np.random.Generator, kind: str) -> tuple[int, int, int]:
    colour = rng.integers(120, 200, 3)
    colour[_CHANNEL[kind]] = 255
    return int(colour[0]), int(colour[1]), int(colour[2])


def _draw(
    pen: ImageDraw.ImageDraw, kind: str, box: tuple[float, float, float, float], colour: tuple[int, int, int]
) -> None:
    left, top, right, bottom = box
    if kind == "circle":
        pen.ellipse(box, fill=colour)
    elif kind == "square":
        pen.rectangle(box, fill=colour)
    else:
        pen.polygon([((left + right) / 2, top), (right, bottom), (left, bottom)], fill=colour)


def save_folders(root: Path, *, per_class: int = 20, side: int = 16, seed: int = 0) -> Path:
    """One folder a class, one shape an image: root/circle/000.png ..."""
    rng = np.random.default_rng(seed)
    for kind in SHAPES:
        (root / kind).mkdir(parents=True)
        for i in range(per_class):
            Image.fromarray(picture(rng, [kind], side)).save(root / kind / f"{i:03}.png")
    return root


def save_table(root: Path, *, num: int = 60, side: int = 16, seed: int = 0) -> Path:
    """Any number of shapes an image, also none: root/labels.csv beside root/images/000.png ..."""
    rng = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True)
    sets = [kinds for size in range(len(SHAPES) + 1) for kinds in combinations(SHAPES, size)]
    rows = ["image,label"]
    for i in range(num):
        kinds = sets[i % len(sets)]
        Image.fromarray(picture(rng, kinds, side)).save(root / "images" / f"{i:03}.png")
        rows.append(f"images/{i:03}.png,{'|'.join(kinds)}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return root / "labels.csv"


def save_sizes(root: Path, *, num: int = 60, side: int = 16, seed: int = 0) -> Path:
    """A square an image, somewhere, and the length of its sides in pixels: root/sizes.csv beside root/images/000.png"""
    rng = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True)
    rows = ["image,size"]
    for i in range(num):
        size = int(rng.integers(2, side - 1))
        left, top = (int(place) for place in rng.integers(0, side - size + 1, 2))
        pixels = rng.integers(0, 90, (side, side, 3), dtype=np.uint8)
        pixels[top : top + size, left : left + size] = rng.integers(200, 256, 3)
        Image.fromarray(pixels).save(root / "images" / f"{i:03}.png")
        rows.append(f"images/{i:03}.png,{size}")
    (root / "sizes.csv").write_text("\n".join(rows) + "\n")
    return root / "sizes.csv"


def save_for(task: str, root: Path, *, num: int = 60, side: int = 16, seed: int = 0) -> Path:
    """A data set of about ``num`` images that poses ``task``."""
    if task == "multilabel":
        return save_table(root, num=num, side=side, seed=seed)
    if task == "regression":
        return save_sizes(root, num=num, side=side, seed=seed)
    return save_folders(root, per_class=-(-num // len(SHAPES)), side=side, seed=seed)
